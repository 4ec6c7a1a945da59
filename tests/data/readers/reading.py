"""What the tests of readers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pytest

    from fastamr.data import PackedSkeletons


def clip_of(data: PackedSkeletons, name: str) -> list[np.ndarray]:
    """The bodies of a clip, each ``(T, V, C)``."""
    clip = data.names.index(name)
    bodies = [place for place in range(data.num_bodies) if int(data.body_clip[place]) == clip]
    return [data.coords[int(data.offsets[b]) : int(data.offsets[b + 1])].numpy() for b in bodies]


def one_line(error: pytest.ExceptionInfo[ValueError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def person(seed: int, joints: int = 17) -> np.ndarray:
    """``(V, 3)``: x, y and a visibility of 2."""
    return np.c_[
        np.random.default_rng(seed).uniform(1, 99, (joints, 2)).astype(np.float32), np.full(joints, 2)
    ]
