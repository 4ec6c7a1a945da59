"""A body's motion as the search for near duplicates sees it: centred, smoothed, and described by few numbers."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from ..packed.dataset import PackedSkeletons
from .blocks import Block, Flags, Floats, Index, body_blocks, read_body

# Choices of the search; what decides in the end is NearOptions.
SMOOTH = 5
_QUANTILES = 4
_STILL = 1e-3


class Described(NamedTuple):
    """Bodies that can be compared.

    Attributes:
        bodies: ``(n,)`` int64, their indices.
        features: ``(n, D)`` float32; root mean square distances, in the data's unit.
        motion: ``(n,)`` float32, root mean square distance of the joints from their mean place.
        size: ``(n,)`` float32, root mean square distance of the joints from the middle of the body.
        frames: ``(n,)`` int64, after smoothing.
        axes: ``(V*C, 4)`` float32, the directions in which the poses of all bodies, each frame about its own middle,
            vary most.
    """

    bodies: Index
    features: Floats
    motion: Floats
    size: Floats
    frames: Index
    axes: Floats


def describe(data: PackedSkeletons, clips: Flags | None, min_frames: int) -> Described:
    """Describe the bodies of some clips; those that hardly move or have too few frames are left out.

    The features are the means of each coordinate over the quarters of its sorted values. Sorting brings two
    sequences closer, never further apart (rearrangement inequality), and a few frames more or less change the
    means little.

    Args:
        data: the data set.
        clips: ``(N,)`` bool; None = all.
        min_frames: fewest frames after smoothing.
    """
    owners = data.body_clip.cpu().numpy()
    width = data.coords.shape[1] * data.coords.shape[2]
    spread = np.zeros((width, width))
    bodies, features, measures = [], [], []
    for block in body_blocks(data):
        for body, rows in block.bodies():
            if clips is not None and not clips[owners[body]]:
                continue
            x = _smooth(_centred(block, rows))
            if len(x) < min_frames:
                continue
            moved = x - x.mean(axis=0)
            size = root_mean_square(about_middle(x))
            motion = root_mean_square(moved)
            if motion <= _STILL * size:
                continue
            ordered = np.sort(x.reshape(len(x), -1).T, axis=1)
            flat = about_middle(moved).reshape(len(x), -1) / motion
            spread += flat.T @ flat / len(x)
            bodies.append(body)
            features.append((ordered @ _quantile_means(len(x))).ravel())
            measures.append((motion, size, len(x)))
    scale = np.float32(1 / np.sqrt(_QUANTILES * data.layout.num_joints))
    table = np.array(measures, dtype=np.float64).reshape(-1, 3)
    return Described(
        np.array(bodies, dtype=np.int64),
        np.array(features, dtype=np.float32).reshape(-1, _QUANTILES * width) * scale,
        table[:, 0].astype(np.float32),
        table[:, 1].astype(np.float32),
        table[:, 2].astype(np.int64),
        np.linalg.eigh(spread)[1][:, -4:].astype(np.float32),
    )


def read_motion(data: PackedSkeletons, body: int) -> Floats:
    """Return a body's present frames ``(T, V, C)``, about their mean and smoothed over time."""
    block = read_body(data, body)
    return _smooth(_centred(block, slice(0, len(block.coords))))


def root_mean_square(x: Floats) -> float:
    """Return the root mean square length of the vectors of ``(T, V, C)``."""
    return float(np.sqrt(np.einsum("tvc,tvc->", x, x) / (x.shape[0] * x.shape[1])))


def about_middle(x: Floats) -> Floats:
    """Return the poses ``(T, V, C)``, each about the mean of its joints."""
    # A product is several times as fast as a mean over the middle axis.
    return x - (x.reshape(len(x), -1) @ _average(*x.shape[1:]))[:, None]


def mean_place(x: Floats) -> Floats:
    """Return ``(C,)``, the mean over frames and joints of ``(T, V, C)``; NaN without a frame."""
    return x.sum(axis=0).sum(axis=0) / x.dtype.type(x.shape[0] * x.shape[1])


def _centred(block: Block, rows: slice) -> Floats:
    """Return the present frames about their mean; a joint that was not seen lies in the mean."""
    present = block.present[rows]
    coords, seen = block.coords[rows][present], block.seen[rows][present][..., None]
    if not len(coords):
        return coords
    if seen.all():
        return coords - mean_place(coords)
    known = np.where(seen, coords, np.float32(0))
    mean = mean_place(known) * np.float32(seen.size / max(int(seen.sum()), 1))
    return np.where(seen, coords - mean, np.float32(0))


def _smooth(x: Floats) -> Floats:
    """Return the means over windows of 5 frames, 4 fewer: noise shrinks, and frames cut off change no other one."""
    if len(x) < SMOOTH:
        return x[:0]
    total = x[: len(x) - SMOOTH + 1].copy()
    for shift in range(1, SMOOTH):
        total += x[shift : len(x) - SMOOTH + 1 + shift]
    return total / np.float32(SMOOTH)


@functools.lru_cache(maxsize=16)
def _average(joints: int, channels: int) -> Floats:
    """Return ``(V*C, C)``, which turns flat poses into the means of their joints."""
    return np.tile(np.eye(channels, dtype=np.float32), (joints, 1)) / np.float32(joints)


@functools.lru_cache(maxsize=4096)
def _quantile_means(frames: int) -> Floats:
    """Return ``(T, Q)``: the weights of the sorted values in the mean of each of Q equal parts."""
    edges = np.linspace(0, frames, _QUANTILES + 1)
    below = np.clip(edges[None, :] - np.arange(frames)[:, None], 0, 1)
    return (np.diff(below, axis=1) * (_QUANTILES / frames)).astype(np.float32)
