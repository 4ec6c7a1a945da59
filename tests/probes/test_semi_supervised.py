from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from fastamr.evaluation import FinetuneConfig, compare_supervised, labelled_subset
from fastamr.models import build_model

LABELS = torch.tensor([0] * 300 + [1] * 200 + [2] * 100 + [-1] * 50)
TRAIN = torch.arange(650) % 3 != 0

# Chosen from these by share 0.01 and seed 0.
WRITTEN = [61, 341, 547]


def counts(chosen: torch.Tensor) -> list[int]:
    return torch.bincount(LABELS[chosen], minlength=3).tolist()


def test_every_class_gives_the_same_number() -> None:
    # 400 labelled training clips of three classes: a tenth is 40, so 13 each.
    chosen = labelled_subset(LABELS, TRAIN, 0.1, seed=0)
    assert counts(chosen) == [13, 13, 13]
    assert not (chosen & ~(TRAIN & (LABELS >= 0))).any()


def test_at_least_one_clip_a_class_and_never_more_than_there_are() -> None:
    assert counts(labelled_subset(LABELS, TRAIN, 0.001, seed=0)) == [1, 1, 1]
    available = counts(TRAIN & (LABELS >= 0))
    assert counts(labelled_subset(LABELS, TRAIN, 0.9, seed=0)) == [min(120, each) for each in available]
    rare = LABELS.clone()
    rare[:300], rare[1] = 1, 0
    assert int(labelled_subset(rare, TRAIN, 0.1, seed=0)[rare == 0].sum()) == 1


def test_the_seed_decides_and_nothing_else() -> None:
    first = labelled_subset(LABELS, TRAIN, 0.1, seed=3)
    torch.manual_seed(99)
    torch.randperm(1000)
    assert torch.equal(first, labelled_subset(LABELS, TRAIN, 0.1, seed=3))
    other = labelled_subset(LABELS, TRAIN, 0.1, seed=4)
    assert not torch.equal(first, other)
    assert int((first & other).sum()) < 10


def test_a_smaller_share_is_part_of_a_larger_one() -> None:
    small, large = (labelled_subset(LABELS, TRAIN, share, seed=1) for share in (0.01, 0.1))
    assert int(small.sum()) < int(large.sum())
    assert not (small & ~large).any()


def test_another_process_with_other_settings_chooses_the_same() -> None:
    """Written down, so that a change of the choice is seen; and made anew by a process with rank and threads."""
    chosen = labelled_subset(LABELS, TRAIN, 0.01, seed=0).nonzero()[:, 0].tolist()
    assert chosen == WRITTEN
    code = (
        "import torch; from fastamr.evaluation import labelled_subset\n"
        "torch.manual_seed(7)\n"
        "labels = torch.tensor([0] * 300 + [1] * 200 + [2] * 100 + [-1] * 50)\n"
        "chosen = labelled_subset(labels, torch.arange(650) % 3 != 0, 0.01, 0)\n"
        "print(chosen.nonzero()[:, 0].tolist())\n"
    )
    environment = {"RANK": "3", "WORLD_SIZE": "4", "PYTHONHASHSEED": "5", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), **environment},
    )
    assert json.loads(run.stdout) == WRITTEN


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_share_out_of_range(share: float) -> None:
    with pytest.raises(ValueError, match=rf"share={share} must be above 0 and at most 1"):
        labelled_subset(LABELS, TRAIN, share, 0)


def test_nothing_to_choose_from() -> None:
    with pytest.raises(ValueError, match="no labelled clip"):
        labelled_subset(LABELS, LABELS < 0, 0.1, 0)
    with pytest.raises(ValueError, match=r"train has shape \(3,\)"):
        labelled_subset(LABELS, torch.ones(3, dtype=torch.bool), 0.1, 0)


def test_the_protocol_trains_on_the_share(make_data) -> None:
    data = make_data(clips=60, lengths=(8,))
    model = build_model(
        "amr",
        layout=data.layout,
        frames=8,
        width=8,
        depth=1,
        heads=2,
        decoder_width=8,
        decoder_depth=1,
        decoder_heads=2,
        target_patches=1,
    )
    recipe = FinetuneConfig(epochs=1, hidden=8, batch_size=8)
    lines: list[str] = []
    results = compare_supervised(
        model,
        data,
        protocol="semi",
        seeds=[0, 1],
        config=recipe,
        shares=[0.1, 0.4],
        progress=lines.append,
    )
    assert set(results) == {"random", "encoder"}
    for scores in results.values():
        # 30 training clips of three classes.
        assert {name: score["train_clips"] for name, score in scores.items()} == {
            "semi_10": [3, 3],
            "semi_40": [12, 12],
        }
        assert all(len(score["per_seed"]) == 2 for score in scores.values())
    assert any(line.startswith("encoder, semi_40, seed 1: ") for line in lines)
