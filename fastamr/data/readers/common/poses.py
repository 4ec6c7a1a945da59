"""From single poses (a body in a frame) in any order to packed sequences: for sources that list detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ....skeleton import SkeletonLayout
from ...packed.dataset import PackedSkeletons
from ..numbering.frame_steps import mostly_empty, without_step

FREE_FRAMES = 1_000_000
MAX_STRETCH = 100
"""A source of ``n`` poses may span ``FREE_FRAMES + MAX_STRETCH * n`` frames of bodies (choice): the frames between
are stored, and a wrong frame number must not fill the memory."""
# Scores of peaks and visibilities (COCO's 2) exceed 1 a little; a confidence above this is no share (choice).
_NO_SHARE = 10.0


@dataclass
class Poses:
    """Detected poses.

    Args:
        clip: ``(n,)`` int64, the clip of each.
        body: ``(n,)`` int64, the body within the clip; a body that occurs in no pose is no gap.
        frame: ``(n,)`` int64, the frame within the clip; a clip begins at its first one.
        coords: ``(n, V, C)`` float32.
        valid: ``(n, V)`` bool, which joints were seen.
    """

    clip: np.ndarray
    body: np.ndarray
    frame: np.ndarray
    coords: np.ndarray
    valid: np.ndarray


def seen_from(confidence: np.ndarray, minimum: float) -> np.ndarray:
    """Return which joints count as seen: a confidence above 0 and not below the minimum.

    Raises:
        ValueError: the minimum is negative or not finite, or a share where the confidences are percent.
    """
    if not 0 <= minimum < float("inf"):
        raise ValueError(f"min_confidence is {minimum}, expected a number from 0")
    if 0 < minimum <= 1 and (highest := np.nanmax(confidence, initial=0)) > _NO_SHARE:
        raise ValueError(
            f"min_confidence is {minimum}, but confidences go up to {highest:g}, as percent do; give the minimum on "
            f"the same scale, such as --min-confidence {100 * minimum:g}"
        )
    return (confidence > 0) & (confidence >= minimum)


def reading_note(min_confidence: float) -> tuple[dict[str, Any], ...]:
    """Return what the header records of how the joints' visibility was decided."""
    return ({"name": "note", "about": "validity", "source": "confidence", "min_confidence": min_confidence},)


def pack_poses(
    poses: Poses,
    *,
    layout: SkeletonLayout,
    names: Sequence[str],
    where: Callable[[int], str],
    labels: Sequence[int] | None = None,
    label_names: Sequence[str] = (),
    fps: Sequence[float] | None = None,
    body_names: Sequence[str] | None = None,
    steps: tuple[dict[str, Any], ...] = (),
    notes: list[str] | None = None,
    way_on: str = "number the frames of a clip without such gaps",
) -> PackedSkeletons:
    """Pack poses; a body's frames between its first and its last one that were not detected are empty.

    A constant step of the frame numbers is divided out, of the frame rate too (see :mod:`..numbering.frame_steps`). A
    clip with more empty than filled frames is left out and listed; it is an error where no clip is left.

    Args:
        poses: at least one; those without any seen joint are left out.
        layout: the skeleton.
        names: the clips' names; a clip without a pose is dropped and listed.
        where: tells in words where a pose comes from, for errors.
        labels: the clips' classes; None = unknown.
        label_names: the classes.
        fps: the clips' frame rates, NaN = unknown; None = all unknown.
        body_names: the names of the bodies by their number in ``poses.body``; None = unknown.
        steps: what the header records.
        notes: receives what a person must know, a line each.
        way_on: what to do about clips with more empty than filled frames.

    Raises:
        ValueError: a body twice in a frame, a coordinate that is not finite, all clips with more empty than filled
            frames, frame numbers too far apart for the number of poses, or no pose with a seen joint.
    """
    notes = [] if notes is None else notes
    even = without_step(poses.clip, poses.frame)
    rows = np.flatnonzero(poses.valid.any(axis=1))
    _check_spans(poses, rows, even.frame, where)
    hollow = _hollow(poses, even.frame, names, where, notes, way_on)
    notes += even.notes
    rows = rows[~np.isin(poses.clip[rows], list(hollow))]
    if len(rows) == 0:
        raise ValueError(f"{where(0)}: no pose of the file has a joint that was seen; the data set is empty")
    rows = rows[np.lexsort((even.frame[rows], poses.body[rows], poses.clip[rows]))]
    clip, body, frame = poses.clip[rows], poses.body[rows], even.frame[rows]
    begins = np.r_[True, (np.diff(clip) != 0) | (np.diff(body) != 0)]
    _check_poses(poses, rows, begins, where)
    track = begins.cumsum() - 1
    first = np.flatnonzero(begins)
    last = np.r_[first[1:], len(rows)] - 1
    lengths = frame[last] - frame[first] + 1
    offsets = np.r_[0, lengths.cumsum()]
    places = offsets[track] + frame - frame[first][track]
    kept, clip_of_body = np.unique(clip[first], return_inverse=True)
    clip_start = np.full(len(kept), np.iinfo(np.int64).max)
    np.minimum.at(clip_start, clip_of_body, frame[first])
    coords = np.zeros((int(offsets[-1]), *poses.coords.shape[1:]), dtype=np.float32)
    valid = np.zeros(coords.shape[:2], dtype=bool)
    coords[places] = np.where(poses.valid[rows][..., None], poses.coords[rows], np.float32(0))
    valid[places] = poses.valid[rows]
    if not even.frame.any():
        notes.append("each clip is a single frame, which is no motion")
    lost = np.setdiff1d(np.arange(len(names)), kept)
    return PackedSkeletons(
        coords=torch.from_numpy(coords),
        offsets=torch.from_numpy(offsets),
        body_clip=torch.from_numpy(clip_of_body),
        body_start=torch.from_numpy(frame[first] - clip_start[clip_of_body]),
        labels=torch.tensor([-1 if labels is None else labels[place] for place in kept]),
        fps=torch.tensor(
            [float("nan") if fps is None else fps[place] / int(even.step[place]) for place in kept]
        ),
        layout=layout,
        names=[str(names[place]) for place in kept],
        valid=None if poses.valid[rows].all() else torch.from_numpy(valid),
        label_names=tuple(label_names),
        body_names=[] if body_names is None else [str(body_names[number]) for number in body[first]],
        steps=steps,
        dropped={str(names[place]): hollow.get(int(place), "no body") for place in lost},
    )


def _check_spans(poses: Poses, rows: np.ndarray, frame: np.ndarray, where: Callable[[int], str]) -> None:
    """Raise where the bodies' frames would fill the memory: frame numbers too far apart for the number of poses."""
    order = rows[np.lexsort((frame[rows], poses.body[rows], poses.clip[rows]))]
    ends = np.flatnonzero(np.diff(poses.clip[order]) | np.diff(poses.body[order]))
    first, last = order[np.r_[0, ends + 1][: len(order)]], order[np.r_[ends, len(order) - 1][: len(order)]]
    lengths = frame[last] - frame[first] + 1
    if int(lengths.sum()) > FREE_FRAMES + MAX_STRETCH * len(rows):
        longest = int(lengths.argmax())
        raise ValueError(
            f"{where(int(last[longest]))}: frame {poses.frame[last[longest]]}, but the body begins in frame "
            f"{poses.frame[first[longest]]}; number the frames of a clip without such gaps"
        )


def _hollow(
    poses: Poses,
    frame: np.ndarray,
    names: Sequence[str],
    where: Callable[[int], str],
    notes: list[str],
    way_on: str,
) -> dict[int, str]:
    """Return the clips with more empty than filled frames, and why they are left out; raise where all are."""
    hollow = mostly_empty(poses.clip, frame)
    if not hollow:
        return hollow
    first = next(iter(hollow))
    own = poses.clip == first
    if len(hollow) == len(np.unique(poses.clip)):
        numbers = np.unique(poses.frame[own])
        shown = ", ".join(str(number) for number in numbers[:4]) + ", ..." * (len(numbers) > 4)
        after = numbers[1:][np.diff(numbers).argmax()]
        row = int(np.flatnonzero(own & (poses.frame == after))[0])
        raise ValueError(
            f"{where(row)}: clip {names[first]!r} has poses in frames {shown}: {hollow[first]}, which is no motion; "
            f"{way_on}"
        )
    shown = ", ".join(f"{names[clip]} ({reason})" for clip, reason in list(hollow.items())[:3])
    notes.append(f"left out {len(hollow)} clips with more empty than filled frames: {shown}; {way_on}")
    return hollow


def _check_poses(poses: Poses, rows: np.ndarray, begins: np.ndarray, where: Callable[[int], str]) -> None:
    """Raise where a body occurs twice in a frame, or a seen joint is not finite; ``rows`` are sorted."""
    twice = np.flatnonzero(~begins[1:] & (np.diff(poses.frame[rows]) == 0))
    if len(twice):
        one, other = sorted((int(rows[twice[0]]), int(rows[twice[0] + 1])))
        raise ValueError(
            f"{where(other)}: its body is in frame {poses.frame[other]} already, see {where(one)}; give each body of "
            f"a frame a number of its own, or leave the numbers out to have people linked by their poses"
        )
    broken = poses.valid[rows] & ~np.isfinite(poses.coords[rows]).all(axis=2)
    if broken.any():
        row, joint = (int(axis[0]) for axis in np.nonzero(broken))
        raise ValueError(f"{where(int(rows[row]))}, joint {joint}: coordinates are not finite")
