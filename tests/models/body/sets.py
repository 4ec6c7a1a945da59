"""Small labelled data sets of any layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastamr.data import PackedSkeletons, Split
from fastamr.layouts.body import parts_of
from fastamr.skeleton import get_layout


def pack(layout: str, seed: int = 0, clips: int = 6, **fields: Any) -> PackedSkeletons:
    rng = np.random.default_rng(seed)
    joints = get_layout(layout).num_joints
    arrays = [
        0.1 * rng.standard_normal((12, 1, joints, 3)).cumsum(0).astype(np.float32) for _ in range(clips)
    ]
    half = torch.arange(clips) % 3 > 0
    return PackedSkeletons.from_clips(
        arrays,
        layout=layout,
        names=[f"{layout}_{seed}_{place}" for place in range(clips)],
        labels=[place % 2 for place in range(clips)],
        label_names=("sit", "walk"),
        splits={"official": Split(half, ~half)},
        **fields,
    )


def saved(folder: Path, *sets: PackedSkeletons) -> list[str]:
    sources = []
    for place, data in enumerate(sets):
        sources.append(str(folder / f"{place}.safetensors"))
        data.save(sources[-1])
    return sources


def parts(*layouts: str) -> set[str]:
    return {part for name in layouts for part in parts_of(get_layout(name)).values()}
