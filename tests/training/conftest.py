"""A small stand-in for the models and small data, so that the loop is tested on its own."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastamr.data import PackedSkeletons, Split
from fastamr.skeleton import SkeletonLayout, get_layout


@dataclass
class TinyConfig:
    layout: Any = "ntu25"
    frames: int = 16
    channels: int = 3
    width: int = 4
    dropout: float = 0.1

    tokens: ClassVar[int] = 1
    visible: ClassVar[int] = 1

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        layout = self.layout
        return values | {"layout": layout.to_dict() if isinstance(layout, SkeletonLayout) else layout}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TinyConfig:
        layout = values["layout"]
        layout = SkeletonLayout.from_dict(layout) if isinstance(layout, dict) else layout
        return cls(**{**values, "layout": layout})


class TinyModel(nn.Module):
    """Rebuilds a clip from its mean pose; draws from the seed and from the global generator."""

    Config = TinyConfig

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config, self.layout, self.frames = config, get_layout(config.layout), config.frames
        numbers = self.layout.num_joints * config.channels
        self.encoder = nn.Linear(numbers, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.decoder = nn.Linear(config.width, numbers)
        self.seen: list[Tensor | None] = []

    @classmethod
    def from_config(cls, config: TinyConfig) -> TinyModel:
        return cls(config)

    def forward(
        self, clips: Tensor, *, seed: Tensor | None = None, valid: Tensor | None = None, **_: Any
    ) -> Tensor:
        self.seen = [clips, valid]
        assert seed is not None
        shift = (seed[1] % 7).to(clips.dtype) * 0.01
        pose = clips.mean(1).flatten(1) + shift
        prediction = self.decoder(self.dropout(self.encoder(pose))).float()
        return (prediction - clips[:, 0].flatten(1)).square().mean()

    def features(self, clips: Tensor, **_: Any) -> Tensor:
        return self.encoder(clips.mean(1).flatten(1))

    recompute: bool | None = None

    def set_recompute(self, recompute: bool = True) -> None:
        type(self).recompute = recompute

    side_branch: bool | None = None

    def set_side_branch(self, side_branch: bool = True) -> None:
        type(self).side_branch = side_branch

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        weights = [p for p in self.parameters() if p.ndim > 1]
        biases = [p for p in self.parameters() if p.ndim == 1]
        return [{"params": weights, "weight_decay": weight_decay}, {"params": biases, "weight_decay": 0.0}]

    def save_pretrained(self, directory: Path) -> None:
        from safetensors.torch import save_file

        save_file(self.state_dict(), Path(directory) / "model.safetensors")
        (Path(directory) / "config.json").write_text(json.dumps({"model": "tiny", **self.config.to_dict()}))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> type[TinyModel]:
    import fastamr.models

    monkeypatch.setitem(fastamr.models.MODELS, "tiny", TinyModel)
    return TinyModel


def make_data(
    clips: int = 20, *, bodies: int = 1, seed: int = 0, with_valid: bool = False
) -> PackedSkeletons:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(8, 40, clips)
    motion = [generator.normal(size=(length, bodies, 25, 3)).astype(np.float32) for length in lengths]
    train = torch.arange(clips) % 5 != 0
    return PackedSkeletons.from_clips(
        motion,
        layout="ntu25",
        labels=np.arange(clips) % 3,
        splits={"official": Split(train=train, test=~train)},
        valid=[generator.random((length, bodies, 25)) > 0.1 for length in lengths] if with_valid else None,
    )


@pytest.fixture
def make_skeletons() -> Any:
    """Makes small random data: ``make_skeletons(clips, bodies=1, seed=0, with_valid=False)``."""
    return make_data


@pytest.fixture
def skeletons() -> PackedSkeletons:
    """20 clips of one body, 16 of them in the training half of split ``official``."""
    return make_data()
