"""What a model is given and makes of it, laid over a clip: tokens, guidance, reconstruction.

Models see one body sequence at a time, resized to a fixed number of frames; overlays are drawn on that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import ops
from ..features.sampling import sample_bodies
from ..models.parts.masking import choose_visible, token_validity
from .clip import Clip, Overlay, class_of, up_and_unit

if TYPE_CHECKING:
    from ..data import PackedSkeletons


class ModelClip(NamedTuple):
    """The bodies of a clip as a model sees them.

    Attributes:
        clips: ``(M, T, V, C)`` float32, each body resized to T frames.
        valid: ``(M, T, V)`` bool: all frames that a resized one is made of were seen; None = all.
        shown: the same for drawing.
    """

    clips: Tensor
    valid: Tensor | None
    shown: Clip


def model_clip(data: PackedSkeletons, clip: int, frames: int) -> ModelClip:
    """Resize the bodies of a clip to ``frames`` frames each, as the models' input is (whole clip, not turned).

    Args:
        data: the data set.
        clip: its index.
        frames: T.
    """
    part = data.select(torch.tensor([clip]))
    bodies = torch.arange(part.num_bodies, device=part.device)
    sampled, mask = sample_bodies(part, bodies, frames, crop=(1.0,))
    clips, valid = sampled.float().cpu(), None if mask is None else mask.cpu()
    there = clips.flatten(2).any(2)[..., None]
    seen = there if valid is None else there & valid
    coords = torch.where(seen[..., None], clips, torch.nan).transpose(0, 1).numpy()
    shown = Clip(coords, data.layout, data.names[clip], class_of(data, clip), **up_and_unit(data, coords))
    return ModelClip(clips, valid, shown)


def mask_overlay(
    given: ModelClip,
    *,
    ratio: float = 0.9,
    patch_frames: int = 4,
    strategy: str = "random",
    seed: int = 0,
    keep: Tensor | None = None,
) -> Overlay:
    """Return which tokens are visible and which are masked.

    Args:
        given: the clip.
        ratio: share of the tokens that is masked.
        patch_frames: frames of a token.
        strategy: how visible tokens are chosen, see :mod:`fastamr.models.parts.masking`.
        seed: of the choice.
        keep: ``(M, K)`` visible tokens, instead of a choice.

    Raises:
        ValueError: a ratio or a number of frames that leaves no token, or patches that do not divide the frames.
    """
    bodies, frames, joints = given.clips.shape[:3]
    if patch_frames < 1 or frames % patch_frames:
        raise ValueError(
            f"patch_frames={patch_frames} does not divide the {frames} frames of the model's clip"
        )
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio={ratio} leaves no visible token: expected 0 <= ratio < 1, for example 0.9")
    times = frames // patch_frames
    total = times * joints
    if keep is None:
        visible = max(1, round(total * (1 - ratio)))
        valid = None if given.valid is None else token_validity(given.valid, patch_frames)
        number = torch.tensor([seed, 0])
        keep = choose_visible(number, bodies, times, joints, visible, strategy=strategy, valid=valid)
    tokens = torch.zeros(bodies, total, dtype=torch.bool).scatter(1, keep.long(), True)
    mask = tokens.unflatten(1, (times, joints)).repeat_interleave(patch_frames, dim=1)
    text = (
        f"{keep.shape[1]} of {total} tokens visible (one joint over {patch_frames} frames each); "
        f"the clip resized to {frames} frames as a model sees it"
    )
    return Overlay("mask", mask.transpose(0, 1).numpy(), text)


def guidance_overlay(given: ModelClip, weights: Tensor | None = None) -> Overlay:
    """Return AMR's guidance map W: the weight of each joint and frame in the loss.

    Args:
        given: the clip.
        weights: ``(M, T, V)`` as a model computes it; None = the paper's settings.
    """
    if weights is None:
        weights = ops.motion_guidance(given.clips, valid=given.valid)
    values = weights.transpose(0, 1).float().numpy()
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9:
        low, high = 0.0, 1.0
    text = (
        f"guidance W, the weight in the loss; mean {float(values.mean()):.3f}; "
        f"the clip resized to {len(values)} frames as a model sees it"
    )
    return Overlay("values", values.astype(np.float32), text, "weight W", (low, high))
