"""How a stack of transformer blocks is run: ``fused`` as one autograd function, or ``reference``, block by block."""

from __future__ import annotations

from .backends import Backend, Problem, can_always, choose, declare


def _why_not(problem: Problem) -> str | None:
    return problem.refusals[0] if problem.refusals else None


def _slower_because(problem: Problem) -> str | None:
    """Why plain blocks are the faster choice: where the fused products would run in their reference form."""
    if choose("linear_gelu", Problem(problem.device_type, problem.dtype)) == "reference":
        return "no compiled form of its products runs here"
    return None


declare(
    "transformer_stack",
    Backend("fused", _why_not, slower_because=_slower_because),
    Backend("reference", can_always),
)


def choose_stack(problem: Problem, name: str | None = None) -> str:
    """``"fused"`` or ``"reference"`` for a stack of blocks.

    Args:
        problem: the activations, and as refusals the reasons against the fused form, if there are any.
        name: named by the caller; None takes the user's choice.

    Raises:
        RuntimeError: the fused form was named and cannot run; the message carries the reason.
    """
    return choose("transformer_stack", problem, name)
