from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastamr.data import PackedSkeletons, Split
from fastamr.skeleton import SkeletonLayout

# A trunk with hips: root, chest, left hip, right hip.
LAYOUT = SkeletonLayout(
    "cross4", ("root", "chest", "hip_left", "hip_right"), (-1, 0, 0, 0), ((2, 3),), hips=(2, 3), spine=(0, 1)
)


class MeanEncoder(nn.Module):
    """A stand-in whose features can be computed by hand: a fixed matrix times the mean frame."""

    def __init__(self, layout: SkeletonLayout = LAYOUT, frames: int = 8, width: int = 5) -> None:
        super().__init__()
        self.layout, self.frames = layout, frames
        self.config = (layout.name, frames, width)
        self.linear = nn.Linear(layout.num_joints * 3, width)
        self.calls: list[tuple[Tensor, Tensor | None, bool]] = []

    @classmethod
    def from_config(cls, config: Any) -> MeanEncoder:
        return cls(LAYOUT, config[1], config[2])

    def features(self, clips: Tensor, *, valid: Tensor | None = None) -> Tensor:
        self.calls.append((clips, valid, self.training))
        return self.linear(clips.mean(1).flatten(1))


@pytest.fixture
def encoder() -> MeanEncoder:
    return MeanEncoder()


@pytest.fixture
def make_data() -> Callable[..., PackedSkeletons]:
    """Clips of one or two bodies; the class shows in how the chest moves."""

    def make(
        clips: int = 24,
        bodies: tuple[int, ...] = (1, 2),
        lengths: tuple[int, ...] = (5, 9, 1, 12),
        **more: Any,
    ) -> PackedSkeletons:
        generator = np.random.default_rng(0)
        arrays = []
        for place in range(clips):
            frames, count = lengths[place % len(lengths)], bodies[place % len(bodies)]
            pose = np.array([[0, 1, 3], [0, 1.5, 3], [0.2, 1, 3], [-0.2, 1, 3]])
            clip = np.tile(pose, (frames, count, 1, 1)) + 0.01 * generator.standard_normal(
                (frames, count, 4, 3)
            )
            clip[:, :, 1, 0] += 0.3 * (place % 3)
            arrays.append(clip.astype(np.float32))
        train = torch.arange(clips) % 2 == 0
        settings: dict[str, Any] = {
            "layout": LAYOUT,
            "labels": [place % 3 for place in range(clips)],
            "splits": {"official": Split(train, ~train)},
        }
        return PackedSkeletons.from_clips(arrays, **(settings | more))

    return make
