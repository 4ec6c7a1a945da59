"""What a model is given and makes of it, laid over a clip: tokens, guidance, reconstruction.

Models see one body sequence at a time, resized to a fixed number of frames; overlays are drawn on that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import ops
from ..features.sampling import sample_bodies
from ..models.parts.masking import choose_visible, token_validity
from ..models.parts.presence import joints_seen, over_times
from ..skeleton import is_body
from .clip import Clip, Overlay, class_of, up_and_unit

if TYPE_CHECKING:
    from ..data import PackedSkeletons
    from ..models import SkeletonModel


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


def tokens_there(
    model: SkeletonModel, valid: Tensor | None, bodies: int, joints: Sequence[int] | None = None
) -> Tensor | None:
    """Return which tokens a model encodes of some bodies, ``(M, N)`` bool; None = all.

    Args:
        model: the model; only one of the layout ``body`` lacks tokens.
        valid: ``(M, T, V)`` bool or None.
        bodies: M.
        joints: the joints that every sequence has, see :meth:`fastamr.models.SkeletonModel.encode`.
    """
    if joints is None and model.present is None and not model.config.by_parts:
        return None
    if joints is not None or valid is None:
        return model.known_tokens(bodies, None, joints)
    return model.known_tokens(bodies, valid.any(1, keepdim=True).expand_as(valid))


def as_model_sees(given: ModelClip, model: SkeletonModel) -> ModelClip:
    """Return a clip without the joints that are no tokens of a model.

    Raises:
        ValueError: a body has fewer tokens than stay visible.
    """
    there = tokens_there(model, given.valid, len(given.clips))
    if there is None:
        return given
    config = model.config
    fewest = int(there.sum(1).min())
    if config.masks_tokens and fewest < config.visible:
        raise ValueError(
            f"clip {given.shown.name!r} has {fewest // config.time_patches} joints of the model, {fewest} tokens, "
            f"fewer than the K = {config.visible} that stay visible: show another clip, or leave --checkpoint"
        )
    joints = there[:, None, : config.joints]
    valid = joints.expand(given.clips.shape[:3]) if given.valid is None else given.valid & joints
    coords = np.where(joints.transpose(0, 1).numpy()[..., None], given.shown.coords, np.nan)
    return ModelClip(given.clips, valid, dataclasses.replace(given.shown, coords=coords.astype(np.float32)))


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
    # In the layout `body` a joint that is never seen is no token.
    there = None
    if given.valid is not None and is_body(given.shown.layout):
        there = joints_seen(given.valid)
    known = joints if there is None else round(float(there.sum(1).double().mean()))
    total = times * known
    if keep is None:
        visible = max(1, round(total * (1 - ratio)))
        valid = None if given.valid is None else token_validity(given.valid, patch_frames)
        if there is not None and valid is not None:
            visible = min(visible, times * int(there.sum(1).min()))
            enough = valid.sum(1, keepdim=True) >= visible
            valid = torch.where(enough, valid, over_times(there, times))
        number = torch.tensor([seed, 0])
        keep = choose_visible(number, bodies, times, joints, visible, strategy=strategy, valid=valid)
    tokens = torch.zeros(bodies, times * joints, dtype=torch.bool).scatter(1, keep.long(), True)
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
    if given.valid is not None and is_body(given.shown.layout):
        never = ~joints_seen(given.valid)[None].expand_as(weights.transpose(0, 1)).numpy()
        values = np.where(never, np.nan, values)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if high - low < 1e-9:
        low, high = 0.0, 1.0
    text = (
        f"guidance W, the weight in the loss; mean {float(np.nanmean(values)):.3f}; "
        f"the clip resized to {len(values)} frames as a model sees it"
    )
    return Overlay("values", values.astype(np.float32), text, "weight W", (low, high))
