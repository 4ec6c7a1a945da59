"""Naming a device."""

from __future__ import annotations

import torch


def pick_device(name: str) -> torch.device:
    """Return a device by name; ``auto`` is the GPU where there is one.

    Raises:
        ValueError: no such device, or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used: {reason}; expected auto, cpu or cuda") from None
