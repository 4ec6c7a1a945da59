"""A mixture of sets of different skeletons, as parts of the layout ``body``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fastamr.data import PackedSkeletons, Split
from fastamr.models import load_pretrained
from fastamr.skeleton import get_layout


@pytest.fixture
def skeletons(tmp_path: Path) -> list[str]:
    """Files of 25, 20 and 17 joints, of 24, 9 and 12 clips."""
    sources = []
    for layout, clips in (("ntu25", 24), ("kinect20", 9), ("coco17", 12)):
        generator = np.random.default_rng(clips)
        shape = (12, 1, get_layout(layout).num_joints, 3)
        half = torch.arange(clips) % 3 > 0
        sources.append(str(tmp_path / f"{layout}.safetensors"))
        PackedSkeletons.from_clips(
            [0.1 * generator.standard_normal(shape).cumsum(0).astype(np.float32) for _ in range(clips)],
            layout=layout,
            names=[f"{layout}_{place}" for place in range(clips)],
            labels=[place % 2 for place in range(clips)],
            label_names=("sit", "walk"),
            splits={"official": Split(half, ~half)},
        ).save(sources[-1])
    return sources


@pytest.mark.parametrize("model", ["amr", "skeleton_mae", "mamp"])
def test_order_losses_probes_and_resuming(
    train: Any, skeletons: list[str], tmp_path: Path, model: str
) -> None:
    rate = {"min_lr": 1e-3, "warmup_epochs": 0.0}
    options = {"model": model, "architecture": {"layout": "body"}, "mixture": 0.5, "log_every": 1, **rate}
    options |= {"held_out_data": skeletons[2:], "probe_every": 5 * 8 / 22}
    whole = train("whole", skeletons[:2], **options)
    sets = whole["header"][0]["sets"]
    assert [(one["name"], one["sequences"]) for one in sets] == [("ntu25", 16), ("kinect20", 6)]
    assert sets[0]["share"] == pytest.approx(4 / (4 + 6**0.5))
    names = {name for line in whole["train"] for name in line if name.startswith("loss/")}
    assert names == {"loss/ntu25", "loss/kinect20"}
    probes = whole["probe"][-1]
    assert {"knn_1", "probe/ntu25", "probe/kinect20", "probe/coco17"} <= probes.keys()
    for line in whole["train"]:
        own = [line[name] for name in names if name in line]
        assert min(own) * 0.999 <= line["loss"] <= max(own) * 1.001
    train("run", skeletons[:2], **options | {"updates": 5})
    found = train("run", skeletons[:2], **options | {"resume": True, "data_budget": 0.0})
    for one, other in zip(whole["train"], found["train"], strict=True):
        assert all(one[name] == other[name] for name in one if "loss" in name)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert load_pretrained(tmp_path / "run").layout.name == "body"
