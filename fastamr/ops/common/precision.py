"""Autocast stops at an op: each op states its own arithmetic."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def exact(like: Tensor) -> AbstractContextManager[None]:
    """A context without autocast on the device of ``like``.

    Autocast stays active inside a registered op and would turn its float32 products into bfloat16.
    """
    device = like.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
