"""A recorded update of a model of any skeleton, on sequences of different joints."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from fastamr.data.joining import gather
from fastamr.skeleton import BODY
from fastamr.training.clips.batches import BatchOrder
from fastamr.training.clips.clip_streams import ResidentClips
from fastamr.training.clips.sampling import ClipSampler
from fastamr.training.update.optimizer import build_optimizer
from fastamr.training.update.step import PretrainStep

from ...models.body.sets import pack
from ...models.body.twins import OWN, small
from .graphs import ReplayedCalls


@pytest.mark.parametrize("name", OWN)
def test_recorded_and_eager_updates_agree(name: str) -> None:
    data = gather([pack("ntu25"), pack("kinect20", 1)], ["a", "b"], layout=BODY).data
    torch.manual_seed(0)
    model = small(name, layout="body", typical_joints=22).train()
    found: list[list[float]] = []
    for graph in (ReplayedCalls, None):
        own = copy.deepcopy(model)
        optimizer = build_optimizer(own, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
        clips = ResidentClips(ClipSampler(data, 24, min_frames=4), BatchOrder(torch.arange(12), 6, 1))
        recorder: dict[str, Any] = {} if graph is None else {"recorder": graph(list(own.parameters()))}
        step = PretrainStep(own, optimizer, clips, seed=torch.tensor([7, 5]), **recorder)
        found.append([float(step()) for _ in range(6)])
        if graph is not None:
            assert recorder["recorder"].launched > 0
    assert found[0] == found[1]
