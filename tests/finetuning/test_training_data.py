from __future__ import annotations

import dataclasses

import pytest
import torch

from fastamr.finetuning.training_data import describe_training


@pytest.mark.parametrize("kind", ["mask", "indices"])
def test_lengths_and_rate_of_the_training_clips(make_data, kind) -> None:
    data = make_data(clips=5, bodies=(1,), lengths=(4, 10, 20, 90, 90), fps=[10.0, 10, 20, 20, 20])
    train = torch.tensor([True, True, True, False, False])
    facts = describe_training(data, train if kind == "mask" else train.nonzero()[:, 0])
    assert facts["clips"] == 3
    assert (facts["fps"], facts["median_frames"], facts["median_seconds"]) == (10.0, 10, 1.0)
    assert facts["channels"] == 3


def test_a_rate_that_no_clip_tells_is_unknown(make_data) -> None:
    facts = describe_training(make_data(clips=3, lengths=(4, 10, 20)), torch.ones(3, dtype=torch.bool))
    assert (facts["fps"], facts["median_seconds"], facts["median_frames"]) == (None, None, 10)


def test_a_person_who_comes_late_is_as_long_as_it_is_seen(make_data) -> None:
    data = make_data(clips=2, bodies=(1,), lengths=(8, 8))
    late = dataclasses.replace(data, body_start=torch.tensor([300, 0]))
    assert describe_training(late, torch.ones(2, dtype=torch.bool))["median_frames"] == 8
