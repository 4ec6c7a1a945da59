"""Frame numbers: a step that all keep is divided out; what counts as mostly empty."""

from __future__ import annotations

import numpy as np
import pytest

from fastamr.data.readers.numbering.frame_steps import mostly_empty, without_step


def clips(*frames: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The clip and the frame of poses, by the frames of each clip."""
    number = np.repeat(np.arange(len(frames)), [len(own) for own in frames])
    return number, np.array([frame for own in frames for frame in own])


@pytest.mark.parametrize(
    ("frames", "expected", "step"),
    [
        ([[0, 5, 10]], [[0, 1, 2]], [5]),
        ([[12, 2, 2, 7]], [[2, 0, 0, 1]], [5]),
        ([[0, 5, 10, 25, 30]], [[0, 1, 2, 5, 6]], [5]),
        # A clip of two frames follows the others.
        ([[0, 4, 8, 12], [3, 7]], [[0, 1, 2, 3], [0, 1]], [4, 4]),
        ([[0, 2, 4, 6], [0, 3, 6, 9]], [[0, 1, 2, 3], [0, 1, 2, 3]], [2, 3]),
        ([[0, 2, 4, 6], [0, 1, 2]], [[0, 1, 2, 3], [0, 1, 2]], [2, 1]),
        # Two frames tell no step, and numbers without one stay.
        ([[0, 5]], [[0, 5]], [1]),
        ([[139, 285, 632, 724]], [[0, 146, 493, 585]], [1]),
        ([[0, 100, 1000, 5000]], [[0, 100, 1000, 5000]], [1]),
        ([[7]], [[0]], [1]),
    ],
)
def test_a_step_that_all_keep(frames: list[list[int]], expected: list[list[int]], step: list[int]) -> None:
    found = without_step(*clips(*frames))
    assert found.frame.tolist() == [frame for own in expected for frame in own]
    assert found.step.tolist() == step
    assert bool(found.notes) == (max(step) > 1)


@pytest.mark.parametrize(
    ("frames", "share"),
    [
        ([0, 1, 2, 3], ""),
        ([0, 2, 4], ""),
        ([0, 3], ""),
        ([0, 4], "3 of its 5 frames are empty"),
        ([0, 1, 2, 7], ""),
        ([0, 1, 2, 8], "5 of its 9 frames are empty"),
        ([*range(100), *range(500, 600)], "400 of its 600 frames are empty"),
        # PoseTrack: every fourth frame, dense in the middle.
        ([*range(0, 32, 4), *range(32, 42), *range(44, 80, 4)], ""),
        # Steps too long to be a choice of frames.
        ([0, 31, 62, 93, 95], "91 of its 96 frames are empty"),
    ],
)
def test_mostly_empty_clips(frames: list[int], share: str) -> None:
    found = mostly_empty(*clips([5, 6], frames))
    assert found == ({1: share} if share else {})
