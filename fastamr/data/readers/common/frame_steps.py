"""Frame numbers of a source: a constant step is divided out, and clips that are mostly empty are named."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

USUAL_SHARE = 0.25
"""A step that makes up so much of a clip's steps is how its frames were chosen, and leaves no gap (choice)."""
LONGEST_STEP = 30
"""Frames; a longer step leaves a gap, however often it occurs (choice)."""


@dataclass(frozen=True)
class Steps:
    """Frames without their constant step.

    Args:
        frame: ``(n,)`` int64, the frame of each pose, from 0 in each clip.
        step: ``(clips,)`` int64, by what each clip's frame numbers were divided.
        notes: what was divided, in at most one line.
    """

    frame: np.ndarray
    step: np.ndarray
    notes: tuple[str, ...]


def without_step(clip: np.ndarray, frame: np.ndarray) -> Steps:
    """Divide frame numbers by a step that all of them keep: every fifth frame, 0, 5, 10, becomes 0, 1, 2.

    All clips are divided by their common step, or each by its own where they have none; a step counts where three
    frames keep it and at least half of the steps are of its length.

    Args:
        clip: ``(n,)`` int64, from 0.
        frame: ``(n,)`` int64, in any order.
    """
    clips, frames, steps, of_clip = _steps(clip, frame)
    first = np.zeros(int(clip.max()) + 1, dtype=np.int64)
    first[clips[::-1]] = frames[::-1]
    step = np.full(len(first), max(1, _constant(steps)), dtype=np.int64)
    if step[0] == 1 and len(steps):
        edges = np.flatnonzero(np.r_[True, np.diff(of_clip) != 0])
        for begin, part in zip(edges, np.split(steps, edges[1:]), strict=True):
            step[of_clip[begin]] = max(1, _constant(part))
    found = np.unique(step[np.unique(clip)])
    shown = ", ".join(str(number) for number in found[found > 1][:4])
    notes = (f"frame numbers keep a step of {shown}, which was divided out: the frames follow one another",)
    return Steps((frame - first[clip]) // step[clip], step, notes if shown else ())


def mostly_empty(clip: np.ndarray, frame: np.ndarray) -> dict[int, str]:
    """Return the clips with more empty than filled frames, and the counts in words.

    A frame is filled where a pose lies in it. Frames between the first and the last one are empty, but for those that
    a usual step leaves out: PoseTrack's every fourth frame, dense in the middle.

    Args:
        clip: ``(n,)`` int64, from 0.
        frame: ``(n,)`` int64, in any order.
    """
    clips, _, steps, of_clip = _steps(clip, frame)
    filled = np.bincount(clips)
    empty = np.zeros(len(filled), dtype=np.int64)
    np.add.at(empty, of_clip, steps - 1)
    found = {}
    for number in np.flatnonzero(empty > filled):
        own = steps[of_clip == number]
        sizes, counts = np.unique(own, return_counts=True)
        usual = sizes[(counts >= max(2, USUAL_SHARE * len(own))) & (sizes <= LONGEST_STEP)]
        left = int((own - 1)[~np.isin(own, usual)].sum())
        if left > filled[number]:
            found[int(number)] = f"{left} of its {filled[number] + left} frames are empty"
    return found


def _steps(clip: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return clip and number of all different frames in order, the steps between them, and the clips of the steps."""
    clips, frames = np.unique(np.stack([clip, frame]), axis=1)
    inner = np.diff(clips) == 0
    return clips, frames, np.diff(frames)[inner], clips[1:][inner]


def _constant(steps: np.ndarray) -> int:
    """Return the step that all steps are multiples of and most are, or 1."""
    step = int(np.gcd.reduce(steps)) if len(steps) > 1 else 1
    return step if step and 2 * int((steps == step).sum()) >= len(steps) else 1
