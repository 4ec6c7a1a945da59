"""What a pre-trained encoder is compared with: raw coordinates, and the same encoder before any training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..models.parts.pooling import body_motion
from .sampling import sample_bodies

if TYPE_CHECKING:
    from ..data import PackedSkeletons
    from ..models import SkeletonModel
    from ..skeleton import SkeletonLayout

RAW_FRAMES = 32
RAW_BODIES = 2
_CHUNK = 4096


def random_encoder(model: SkeletonModel, seed: int = 0) -> SkeletonModel:
    """Return a model of the same configuration with fresh weights, on the same device, in evaluation mode.

    Args:
        model: the model to compare; it is left as it is.
        seed: fixes the weights. The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        fresh = type(model).from_config(model.config)
    return fresh.to(next(model.parameters()).device).eval()


@torch.inference_mode()
def raw_features(data: PackedSkeletons, *, frames: int = RAW_FRAMES, bodies: int | None = None) -> Tensor:
    """Return the raw-coordinate baseline: resampled, root-centred, body-aligned, flattened coordinates.

    Each body is resized to ``frames`` frames (linear, align_corners=False, nothing cut off), moved so that
    its root starts at the origin, turned about the vertical axis (y) so that its hip axis starts along x, and
    divided by the mean length of its lowest trunk bone. Choices: the first two follow the first frame in
    which root and hips were seen; only the heading is turned, so leaning and lying bodies stay so; joints
    that were not seen are 0. Without hips the shoulders serve; without both, or in 2-D, nothing is turned.
    The probes scale these features by the training clips' statistics before they compare them
    (:func:`fastamr.evaluation.standardize_features`).

    Args:
        data: packed data with the y axis up (or down).
        frames: T, frames of a resized body.
        bodies: bodies of a clip that count; None = as many as the fullest clip has, at most 2. The bodies of
            a clip are ordered by how much they move, the most active first (choice: trackers number them at
            random); an absent one is 0.

    Returns:
        ``(N, bodies * frames * V * C)`` float32, on the device of the data.

    Raises:
        ValueError: frames or bodies below 1.
    """
    return _flattened(data, frames, bodies, _normalised)


@torch.inference_mode()
def input_features(data: PackedSkeletons, *, frames: int = RAW_FRAMES, bodies: int | None = None) -> Tensor:
    """Return the coordinates that an encoder is given, resampled and flattened: the second raw baseline.

    Nothing is done here beyond the resampling, so it profits from the same pre-processing as the encoder. With body
    alignment it is the stronger of the two baselines.

    Args:
        data: packed data, pre-processed as for training.
        frames: T, frames of a resized body.
        bodies: as in :func:`raw_features`.

    Returns:
        ``(N, bodies * frames * V * C)`` float32, on the device of the data.

    Raises:
        ValueError: frames or bodies below 1.
    """
    return _flattened(data, frames, bodies, _resampled)


def _flattened(
    data: PackedSkeletons,
    frames: int,
    bodies: int | None,
    prepare: Callable[[PackedSkeletons, Tensor, int], tuple[Tensor, Tensor]],
) -> Tensor:
    """Return the bodies of each clip side by side, the most active first, ``(N, bodies * frames * V * C)``."""
    counts = torch.bincount(data.body_clip, minlength=data.num_clips)
    if bodies is None:
        bodies = min(int(counts.max()), RAW_BODIES)
    for name, value in (("frames", frames), ("bodies", bodies)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    ids = torch.arange(data.num_bodies, device=data.device).split(_CHUNK)
    clips, motion = (
        torch.cat(parts) for parts in zip(*(prepare(data, part, frames) for part in ids), strict=True)
    )
    order = (-motion).argsort(stable=True)
    order = order[data.body_clip[order].argsort(stable=True)]
    clip = data.body_clip[order]
    rank = torch.arange(len(order), device=clip.device) - (counts.cumsum(0) - counts)[clip]
    chosen = rank < bodies
    features = clips.new_zeros(data.num_clips, bodies, *clips.shape[1:])
    features[clip[chosen], rank[chosen]] = clips[order[chosen]]
    return features.flatten(1)


def _sample(data: PackedSkeletons, ids: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Return some bodies resized, ``(S, T, V, C)``, and which of their joints were seen ``(S, T, V)``."""
    sampled, valid = sample_bodies(data, ids, frames, crop=(1.0,))
    clips = sampled.float()
    seen = (clips != 0).flatten(2).any(2)[..., None].expand(clips.shape[:3])
    return clips, seen if valid is None else seen & valid


def _resampled(data: PackedSkeletons, ids: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Return some bodies as ``(S, T, V, C)``, joints that were not seen at 0, and how much each moves."""
    clips, seen = _sample(data, ids, frames)
    clips = torch.where(seen[..., None], clips, 0)
    return clips, body_motion(clips, seen)


def _normalised(data: PackedSkeletons, ids: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Return some bodies as ``(S, T, V, C)`` of the raw baseline, and how much each moves (metres a frame)."""
    clips, seen = _sample(data, ids, frames)
    layout = data.layout
    across = layout.hips or layout.shoulders
    rows = torch.arange(len(clips), device=clips.device)
    start = seen[:, :, [layout.root, *(across or ())]].all(2).int().argmax(1)
    clips = clips - clips[rows, start, layout.root][:, None, None]
    if across is not None and clips.shape[-1] == 3:
        pose = clips[rows, start]
        clips = clips @ _heading(pose[:, across[0]] - pose[:, across[1]])[:, None].transpose(-1, -2)
    clips = torch.where(seen[..., None], clips, 0)
    return clips / _body_unit(clips, seen, layout), body_motion(clips, seen)


def _heading(axis: Tensor) -> Tensor:
    """Return rotations ``(S, 3, 3)`` about y that turn axes ``(S, 3)`` into the x-y plane, x positive."""
    x, z = axis[:, 0], axis[:, 2]
    length = (x * x + z * z).sqrt()
    sound = length > 1e-6
    cos, sin = torch.where(sound, x / length, 1.0), torch.where(sound, z / length, 0.0)
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    return torch.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], 1).view(-1, 3, 3)


def _body_unit(clips: Tensor, seen: Tensor, layout: SkeletonLayout) -> Tensor:
    """Return the mean length ``(S, 1, 1, 1)`` of each body's lowest trunk bone; 1 if never seen."""
    bones = torch.tensor(_trunk_bone(layout), device=clips.device)
    length = (clips[:, :, bones[:, 0]] - clips[:, :, bones[:, 1]]).norm(dim=-1)
    known = seen[:, :, bones[:, 0]] & seen[:, :, bones[:, 1]]
    mean = (length * known).sum((1, 2)) / known.sum((1, 2))
    return torch.where(mean > 1e-6, mean, 1.0)[:, None, None, None]


def _trunk_bone(layout: SkeletonLayout) -> list[tuple[int, int]]:
    """Return the bone from the spine's lower joint towards its upper one; all bones where there is none."""
    if layout.spine is not None:
        lower, joint = layout.spine
        while joint != -1:
            if layout.parents[joint] == lower:
                return [(joint, lower)]
            joint = layout.parents[joint]
    return list(layout.edges) or [(0, 0)]
