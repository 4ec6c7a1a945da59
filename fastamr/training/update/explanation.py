"""What a training step runs as, and what keeps its parts from their faster forms."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from ...nn import CrossAttentionStack, TransformerStack
from ...ops.common.backends import Choice, explain, watched

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_FORMS = {"fused": "fused", "reference": "block by block"}


@dataclass(frozen=True)
class Explanation:
    """How a step runs, see :meth:`fastamr.training.PretrainStep.explain`.

    Attributes:
        device: type of the device.
        graph: why updates are not recorded as a CUDA graph; None where they are, or will be after the first ones.
        recordable: whether they could be recorded on this device.
        stacks: of each stack of blocks, ``"fused"`` or ``"reference"`` (block by block).
        ops: of each op that the step runs, the back end; an op is listed twice where its calls differ.
        unknown: why nothing is known of the model's own stacks and ops; None where it is.
        kept: bytes that the forward pass of a micro-batch keeps for its backward, block by block; None = not known.
        tuning: digest of the record of ``fastamr tune`` that the back ends were chosen by; None without one.
    """

    device: str
    graph: str | None
    recordable: bool
    stacks: list[Choice]
    ops: list[Choice]
    unknown: str | None = None
    kept: int | None = None
    tuning: str | None = None

    def lines(self) -> list[str]:
        """Text: what is as fast as it gets in one line, then a line for each thing that is not, with the reason."""
        fast, slow = [], []
        if self.graph is None:
            fast.append("updates recorded as a CUDA graph")
        elif self.recordable:
            way_on = (
                "leave it at 'auto'" if self.graph == "graph=False" else "graph=True stops with the error"
            )
            slow.append(f"updates are not recorded as a CUDA graph: {self.graph}; {way_on}")
        else:
            fast.append("eager updates (CUDA graphs need an NVIDIA GPU)")
        stacks = [replace(each, backend=_FORMS[each.backend]) for each in self.stacks]
        for choice in _merged([*stacks, *self.ops]):
            if not choice.faster:
                measured = " (measured by fastamr tune)" if choice.source == "measured" else ""
                fast.append(f"{choice.backend}: {choice.op}{measured}")
            for name, reason in choice.faster.items():
                told = any(line.rstrip(")").endswith(reason.rstrip(")")) for line in slow)
                why = "for the reason above" if told else reason
                slow.append(f"{choice.op}: {choice.backend} instead of {name}: {why}")
        if self.unknown is not None:
            slow.append(f"the model's own parts are not known: {self.unknown}")
        if self.device == "cuda" and self.tuning is None:
            slow.append(
                "no record of fastamr tune for this GPU: the back ends are the built-in choices; fastamr tune, or "
                "fastamr pretrain --tune, checks and times them here"
            )
        place = {"cpu": "CPU", "cuda": "GPU"}.get(self.device, self.device)
        return [f"as fast as it gets on this {place}: {'; '.join(fast)}", *slow]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def _merged(choices: Iterable[Choice]) -> list[Choice]:
    """Choices that differ in the op alone become one, with the ops' names side by side."""
    groups: list[tuple[Choice, list[str]]] = []
    for choice in choices:
        for known, names in groups:
            if replace(known, op="") == replace(choice, op=""):
                names.append(choice.op)
                break
        else:
            groups.append((choice, [choice.op]))
    return [replace(choice, op=", ".join(names)) for choice, names in groups]


def explain_model(
    model: nn.Module,
    forward: Callable[[nn.Module], object],
    autocast: Callable[[], AbstractContextManager[None]],
) -> tuple[list[Choice], list[Choice], int]:
    """Find out how the stacks and ops of a training forward pass run, from shapes alone: nothing is computed.

    A copy of the model without hooks, over the same parameters, is called with fake tensors:
    they have a shape, a dtype and a device, and no values.

    Args:
        model: the model.
        forward: calls the model that it is given.
        autocast: makes the context of the forward pass.

    Returns:
        The choices for the stacks, under their names, and for the ops, each different one once; and the bytes that the
        forward pass keeps for the backward, where all stacks run block by block.

    Raises:
        Exception: whatever a forward pass raises that reads values.
    """
    calls: list[tuple[str, str, tuple[Tensor, ...], bool]] = []
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        with FakeCopyMode(mode):
            twin = copy.deepcopy(model, {id(each): each for each in model.parameters()})
        names = {module: name for name, module in twin.named_modules()}
        for module, name in names.items():
            for hooks in _HOOKS:
                getattr(module, hooks).clear()
            if isinstance(module, (TransformerStack, CrossAttentionStack)):
                module.__dict__["path"] = _noting(calls, name, names)
        kept = _Kept([*twin.parameters(), *twin.buffers()])
        with watched() as chosen, kept.counted(), autocast():
            forward(twin)
    stacks: list[Choice] = []
    ops = [explain(*call) for call in chosen]
    with autocast():
        for name, norm, inputs, masked in calls:
            stack = model.get_submodule(name)
            like = [
                torch.empty((), dtype=each.dtype, device=each.device).expand(each.shape) for each in inputs
            ]
            first, *rows = stack.explain(  # type: ignore[operator]
                *like, norm=model.get_submodule(norm), masked=masked
            )
            stacks.append(replace(first, op=name))
            ops += rows
    return _distinct(stacks), sorted(_distinct(ops), key=lambda choice: choice.op), kept.size


class _Kept:
    """Counts what autograd keeps of a forward pass, the model's own tensors left out."""

    def __init__(self, own: Iterable[Tensor]) -> None:
        self._storages = {each.untyped_storage()._cdata: each.untyped_storage() for each in own}
        self.size = 0

    def counted(self) -> AbstractContextManager[None]:
        return torch.autograd.graph.saved_tensors_hooks(self._note, lambda kept: kept)

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storages:  # held, so that no other one takes its address
            self._storages[storage._cdata] = storage
            self.size += storage.nbytes()
        # An operation's own output, held as it is, keeps the operation, and that the output: nothing frees such a ring.
        return tensor.detach()


def _noting(
    calls: list[tuple[str, str, tuple[Tensor, ...], bool]], name: str, names: dict[nn.Module, str]
) -> Callable[..., str]:
    """Stand in for ``path`` of the stack of this name: note the call, and let plain blocks give its shapes."""

    def path(*inputs: Tensor, norm: nn.LayerNorm, masked: bool = False) -> str:
        calls.append((name, names[norm], inputs, masked))
        return "reference"

    return path


def _distinct(choices: list[Choice]) -> list[Choice]:
    return [choice for place, choice in enumerate(choices) if choice not in choices[:place]]


def is_compiled(model: nn.Module) -> bool:
    """Whether ``torch.compile`` took over the model or a part of it."""
    return any(
        "_orig_mod" in module._modules or module._compiled_call_impl is not None for module in model.modules()
    )
