"""Strides as keyword arguments of a kernel."""

from __future__ import annotations

from torch import Tensor


def strides(name: str, tensor: Tensor | None, axes: str) -> dict[str, int]:
    """``{"clips_s": ..., "clips_t": ...}`` for ``strides("clips", clips, "st")``; zeros for a tensor that is absent."""
    values = tensor.stride() if tensor is not None else (0,) * len(axes)
    return {f"{name}_{axis}": value for axis, value in zip(axes, values, strict=True)}
