"""Target, normalisation, guidance and weighted squared error of the reconstruction."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def motion_of(clips: Tensor, valid: Tensor | None, stride: int) -> tuple[Tensor, Tensor | None]:
    """Motion ``x[t + stride] - x[t]``, 0 on the last ``stride`` frames, and where it is known."""
    still = min(stride, clips.shape[1])
    moved = clips[:, still:] - clips[:, : clips.shape[1] - still]
    motion = torch.cat([moved, torch.zeros_like(clips[:, :still])], dim=1)
    return motion, None if valid is None else known_motion(valid, stride)


def known_motion(valid: Tensor, stride: int) -> Tensor:
    """Where a motion is known ``(S, T, V)``: both its frames are valid; after the last ``stride`` frames is nothing."""
    still = min(stride, valid.shape[1])
    return valid & torch.cat([valid[:, still:], torch.ones_like(valid[:, :still])], dim=1)


def centre(
    values: Tensor, known: Tensor | None, dims: tuple[int, ...], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Values less their mean (0 where unknown), the mean, and the root of the unbiased variance plus eps, over dims."""
    if known is None:
        mean = values.mean(dims, keepdim=True)
        centred = values - mean
        free: Tensor | int = max(math.prod([values.shape[dim] for dim in dims]) - 1, 1)
    else:
        number = known.sum(dims, keepdim=True)
        mean = torch.where(known, values, 0).sum(dims, keepdim=True) / number.clamp(min=1)
        centred = torch.where(known, values - mean, 0)
        free = (number - 1).clamp(min=1)
    return centred, mean, (centred.square().sum(dims, keepdim=True) / free + eps).sqrt()


def standardise(values: Tensor, known: Tensor | None, dims: tuple[int, ...], eps: float) -> Tensor:
    """Subtract the mean and divide by the root of the unbiased variance plus eps over ``dims``."""
    centred, _, deviation = centre(values, known, dims, eps)
    return centred / deviation


def to_patches(values: Tensor, target_frames: int, target_joints: int) -> Tensor:
    """Cut ``(S, T, V, C)`` into ``(S, Q, target_frames*target_joints*C)``, patches time-major, then joint groups."""
    sequences, frames, joints, channels = values.shape
    rows, groups = frames // target_frames, joints // target_joints
    grid = values.reshape(sequences, rows, target_frames, groups, target_joints, channels)
    return grid.transpose(2, 3).reshape(sequences, rows * groups, target_frames * target_joints * channels)


def reconstruction_target(
    clips: Tensor,
    *,
    target_frames: int,
    target_joints: int = 1,
    valid: Tensor | None = None,
    target: str = "motion",
    stride: int = 1,
    normalize: str = "sequence",
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor | None]:
    """The target patches ``(S, Q, P)`` and which of their values are known (None = all)."""
    values = clips.to(torch.promote_types(torch.float32, clips.dtype))
    known = valid
    if target == "motion":
        values, known = motion_of(values, valid, stride)
    if normalize == "sequence":
        values = standardise(values, known[..., None] if known is not None else None, (1,), eps)
    patches = to_patches(values, target_frames, target_joints)
    if known is not None:
        known = to_patches(known[..., None].expand_as(clips), target_frames, target_joints)
    if normalize == "patch":
        patches = standardise(patches, known, (2,), eps)
    return patches, known


def loss_weights(
    prediction: Tensor,
    known: Tensor | None,
    guidance: Tensor | None,
    token_mask: Tensor | None,
    target_frames: int,
    target_joints: int,
) -> tuple[Tensor | None, Tensor | int]:
    """Weight of each predicted value ``(S, Q, P)``, None where all weigh 1, and how many values the mean runs over."""
    weight = None
    if guidance is not None:
        channels = prediction.shape[-1] // (target_frames * target_joints)
        maps = guidance.to(prediction.dtype)[..., None].expand(*guidance.shape, channels)
        weight = to_patches(maps, target_frames, target_joints)
    if known is None and token_mask is None:
        return weight, max(prediction.numel(), 1)
    counted = torch.ones_like(prediction, dtype=torch.bool)
    if known is not None:
        counted = counted & known
    if token_mask is not None:
        counted = counted & token_mask[..., None]
    number = counted.sum().clamp(min=1)
    return (counted.to(prediction.dtype) if weight is None else torch.where(counted, weight, 0)), number


def loss_slope_and_share(
    prediction: Tensor,
    clips: Tensor,
    *,
    target_frames: int,
    target_joints: int = 1,
    guidance: Tensor | None = None,
    token_mask: Tensor | None = None,
    return_sequences: bool = False,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss, and its gradient as a slope ``(S, Q, P)`` in the prediction's dtype times a share, a scalar.

    Last the part of the loss that each sequence adds ``(S,)``, where it is asked for, else ``(0,)``.

    The share is the power of two next below one over the number of values. The gradient itself is not stored: of
    millions of values a single one is less than the smallest normal float16.
    """
    patches, known = reconstruction_target(
        clips, target_frames=target_frames, target_joints=target_joints, **options
    )
    compute = torch.promote_types(torch.float32, prediction.dtype)
    error = prediction.to(compute) - patches.to(compute)
    weight, number = loss_weights(error, known, guidance, token_mask, target_frames, target_joints)
    weighted = error
    if weight is not None:
        # An unknown target may be NaN; its weight is 0 and so must be its share of the loss.
        weighted = error * weight if known is None else torch.where(weight > 0, error * weight, 0)
        error = error if known is None else torch.where(weight > 0, error, 0)
    number = torch.as_tensor(number, dtype=compute, device=error.device)
    share = torch.ldexp(torch.ones_like(number), 1 - torch.frexp(number).exponent)
    squares = weighted * error
    parts = squares.sum((1, 2)) / number if return_sequences else squares.new_empty(0)
    return squares.sum() / number, (2 * weighted / (number * share)).to(prediction.dtype), share, parts


def weighted_reconstruction_loss(prediction: Tensor, clips: Tensor, **options: Any) -> Tensor:
    """Scalar loss; see :func:`fastamr.ops.weighted_reconstruction_loss`, also for the options."""
    return loss_slope_and_share(prediction, clips, **options)[0]
