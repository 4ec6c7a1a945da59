"""How a stack of transformer blocks is run: ``fused`` as one autograd function, or ``reference``, block by block."""

from __future__ import annotations

from .backends import Backend, Choice, Problem, can_always, choose, declare, explain


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


def explain_stack(problem: Problem, name: str | None = None) -> Choice:
    """Return what :func:`choose_stack` returns, and where plain blocks are not the faster choice why they run.

    Args:
        problem: as in :func:`choose_stack`.
        name: as in :func:`choose_stack`.

    Raises:
        RuntimeError: as :func:`choose_stack`.
    """
    choice = explain("transformer_stack", problem, name)
    if choice.backend == "reference" and not choice.faster:
        missing = explain("linear_gelu", Problem(problem.device_type, problem.dtype)).faster
        for backend, reason in missing.items():
            choice.faster["fused"] = f"no compiled form of its products runs here ({backend}: {reason})"
    return choice
