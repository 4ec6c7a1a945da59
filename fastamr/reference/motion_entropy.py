"""Motion energy and motion information entropy of each window of each joint."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def window_energy(frames: Tensor, valid: Tensor | None) -> Tensor:
    """Mean squared distance from the window's mean position.

    Args:
        frames: ``(S, W, n, V, C)`` coordinates of ``W`` windows of ``n`` frames.
        valid: ``(S, W, n, V)`` bool or None; other frames count neither in the mean nor in the energy.

    Returns:
        ``(S, W, V)`` in squared units; 0 for a window without valid frames.
    """
    if valid is None:
        return (frames - frames.mean(2, keepdim=True)).square().sum(-1).mean(2)
    mask = valid[..., None]
    count = valid.sum(2).clamp(min=1)
    mean = torch.where(mask, frames, 0).sum(2) / count[..., None]
    return torch.where(mask, frames - mean[:, :, None], 0).square().sum(-1).sum(2) / count


def split_windows(values: Tensor, window: int) -> list[Tensor]:
    """Cut ``(S, T, ...)`` into ``(S, T // window, window, ...)`` and, if T leaves a rest, ``(S, 1, rest, ...)``."""
    full = values.shape[1] // window * window
    parts = [values[:, :full].unflatten(1, (full // window, window))]
    return parts if full == values.shape[1] else [*parts, values[:, full:].unsqueeze(1)]


def entropy_of_energy(energy: Tensor, channels: int, eps: float) -> Tensor:
    """Differential entropy in nats of an isotropic Gaussian with total variance ``energy`` in C dimensions."""
    return 0.5 * channels * torch.log(2 * math.pi * math.e * (energy + eps) / channels)


def motion_entropy(
    clips: Tensor, *, window: int, valid: Tensor | None = None, eps: float = 1e-8
) -> tuple[Tensor, Tensor]:
    """Energy and entropy ``(S, ceil(T/window), V)``; see :func:`fastamr.ops.motion_entropy`."""
    coordinates = clips.to(torch.promote_types(torch.float32, clips.dtype))
    parts = split_windows(coordinates, window)
    masks = split_windows(valid, window) if valid is not None else [None] * len(parts)
    energy = torch.cat([window_energy(part, mask) for part, mask in zip(parts, masks, strict=True)], dim=1)
    return energy, entropy_of_energy(energy, clips.shape[-1], eps)
