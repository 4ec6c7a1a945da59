"""Adaptive guidance: where the motion is, the reconstruction loss weighs more."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .motion_entropy import entropy_of_energy, motion_entropy, split_windows


def _known_windows(valid: Tensor, window: int) -> Tensor:
    """Windows with at least one valid frame, ``(S, W, V)`` bool."""
    return torch.cat([part.any(2) for part in split_windows(valid, window)], dim=1)


def _mean_energy(energy: Tensor, valid: Tensor | None, window: int) -> Tensor:
    """Mean energy over all windows and joints of a sequence, ``(S, 1, 1)``; windows without valid frames left out."""
    if valid is None:
        return energy.mean((1, 2), keepdim=True)
    known = _known_windows(valid, window)
    return (energy * known).sum((1, 2), keepdim=True) / known.sum((1, 2), keepdim=True).clamp(min=1)


def entropy_weight(clips: Tensor, window: int, k: float, eps: float, valid: Tensor | None) -> Tensor:
    """Logistic of the entropy gap ``(S, W, V)``: ``sigmoid(2/C * (H_s - H_t) - log k)``."""
    channels = clips.shape[-1]
    energy, entropy = motion_entropy(clips, window=window, valid=valid, eps=eps)
    total = entropy_of_energy(_mean_energy(energy, valid, window), channels, eps)
    log_k = math.log(k) if k > 0 else -math.inf
    return torch.sigmoid(2.0 / channels * (entropy - total) - log_k)


def energy_weight(clips: Tensor, window: int, k: float, eps: float, valid: Tensor | None) -> Tensor:
    """The paper's form ``(S, W, V)``: ``1 / (1 + k * e_t / (e_s + eps))``."""
    energy, _ = motion_entropy(clips, window=window, valid=valid, eps=eps)
    return 1.0 / (1.0 + k * _mean_energy(energy, valid, window) / (energy + eps))


def histogram_weight(clips: Tensor, window: int, bins: int, valid: Tensor | None) -> Tensor:
    """Normalised Shannon entropy ``(S, W, V)`` of the displacement magnitudes within each window."""
    coordinates = clips.to(torch.promote_types(torch.float32, clips.dtype))
    length = (coordinates[:, 1:] - coordinates[:, :-1]).norm(dim=-1)
    known = torch.ones_like(length, dtype=torch.bool) if valid is None else valid[:, 1:] & valid[:, :-1]
    length = torch.where(known, length, 0)
    # The zero keeps the maximum defined for clips of a single frame.
    largest = torch.nn.functional.pad(length.flatten(1), (0, 1)).amax(1)[:, None, None]
    scaled = length / torch.where(largest > 0, largest, 1) * bins
    member = torch.nn.functional.one_hot(scaled.long().clamp(max=bins - 1), bins) * known[..., None]
    # Displacement t belongs to the window of frame t + 1 only if frame t lies in the same window.
    member = torch.nn.functional.pad(member, (0, 0, 0, 0, 1, 0))
    return torch.cat([_shannon(part[:, :, 1:]) for part in split_windows(member, window)], dim=1).to(
        length.dtype
    )


def _shannon(member: Tensor) -> Tensor:
    """Entropy of ``(S, W, n-1, V, bins)`` one-hot members over its largest possible value; 0 below two members."""
    highest = math.log(min(member.shape[-1], member.shape[2])) if member.shape[2] > 1 else 0.0
    counts = member.sum(2).double()
    share = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    entropy = -torch.special.xlogy(share, share).sum(-1)
    return entropy / highest if highest > 0 else entropy


def motion_guidance(
    clips: Tensor,
    *,
    windows: tuple[int, ...] = (4, 8, 12),
    k: float = 0.01,
    eps: float = 1e-8,
    kind: str = "entropy",
    bins: int = 8,
    valid: Tensor | None = None,
) -> Tensor:
    """Fused guidance map ``(S, T, V)`` in [0, 1]; see :func:`fastamr.ops.motion_guidance`."""
    frames = clips.shape[1]
    total = clips.new_zeros(clips.shape[:3], dtype=torch.promote_types(torch.float32, clips.dtype))
    for window in windows:
        if kind == "histogram":
            weight = histogram_weight(clips, window, bins, valid)
        elif kind == "energy":
            weight = energy_weight(clips, window, k, eps, valid)
        else:
            weight = entropy_weight(clips, window, k, eps, valid)
        total = total + weight.repeat_interleave(window, dim=1)[:, :frames]
    fused = total / len(windows)
    return fused if valid is None else torch.where(valid, fused, 0)
