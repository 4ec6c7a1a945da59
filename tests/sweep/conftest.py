"""Data of a few clips, which real runs of these tests train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fastamr.data import PackedSkeletons, Split


@pytest.fixture
def save_data(tmp_path: Path) -> Callable[[str], Path]:
    """Write twelve random clips with a split ``xsub`` under a name, and return the file."""

    def save(name: str) -> Path:
        generator = np.random.default_rng(0)
        motion = [generator.normal(size=(20, 1, 25, 3)).astype(np.float32) for _ in range(12)]
        train = torch.arange(12) % 4 != 0
        data = PackedSkeletons.from_clips(
            motion, layout="ntu25", labels=np.arange(12) % 3, splits={"xsub": Split(train=train, test=~train)}
        )
        data.save(tmp_path / name)
        return tmp_path / name

    return save
