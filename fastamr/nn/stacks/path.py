"""What about a call keeps it from the fused path: its tensors, or what surrounds it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from ...ops.common.planning import planned_device

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(f"_global{hooks}" for hooks in HOOKS)


def compute_dtype(x: Tensor) -> torch.dtype:
    """Autocast's dtype where it applies, else x's."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return x.dtype


def is_plain(tensor: Tensor) -> bool:
    """Whether it is a tensor of PyTorch's own, or where nothing is run one without values."""
    if type(tensor) in (Tensor, nn.Parameter):
        return True
    return isinstance(tensor, FakeTensor) and planned_device() is not None


def call_why_not(inputs: tuple[Tensor, ...]) -> str | None:
    """What about the inputs or the surroundings keeps the fused stack from running."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return "the code is being traced: a compiler fuses the plain blocks itself"
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "torch.func transforms need the plain blocks"
    if not all(map(is_plain, inputs)):
        return "the input is a tensor of another class"
    if any(each.ndim != 3 or each.numel() == 0 for each in inputs):
        return "the input is empty or not (S, N, D)"
    if any(getattr(nn.modules.module, hooks) for hooks in _GLOBAL_HOOKS):
        return "a hook is set on all modules, which only block-by-block computation calls: remove it"
    return None
