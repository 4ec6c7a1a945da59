"""The augmenting kernel against the reference: the same choices, and float64's coordinates within rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fastamr.kernels.augment_clips import _configs

from fastamr import ops, reference
from fastamr.testing import assert_as_good_as, random_clips

from .repeats import assert_repeats

DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
AMOUNTS = {
    "mirror": {"mirror": 0.5},
    "scale": {"scale_jitter": 0.3},
    "limbs": {"drop_limbs": 0.4, "patch_frames": 2, "visible": 3},
    "noise": {"noise": 0.05},
    "projection": {"project": 0.5},
    "all": {"mirror": 0.5, "scale_jitter": 0.3, "drop_limbs": 0.3, "noise": 0.05, "project": 0.5},
}


def make(
    device: torch.device, joints: int = 5, frames: int = 9, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Seven clips with all that belongs to them."""
    place = torch.arange(joints, device=device)
    return {
        "clips": random_clips(7, frames, joints, dtype=dtype, device=device),
        "seed": torch.tensor([-123456789012345, (5 << 32) | 77], device=device),
        "valid": torch.rand(7, frames, joints, device=device) > 0.2,
        "partners": place.flip(0),
        "limbs": place % 9 - 1,
        "flat": torch.arange(7, device=device) % 3 == 1,
        "group": torch.tensor([7, 7, -8, 2**40 + 3, 0, 1, 1], device=device),
        "numbers": torch.tensor([14, 15, 2**33 + 9, 1, 2, 3, 4], device=device),
    }


def check(given: dict[str, Any], **amounts: Any) -> None:
    """As exact as PyTorch, the same validity, the same bits twice."""
    found = ops.augment_clips(**given, **amounts)
    absent = {"mirror": 0.0, "scale_jitter": 0.0, "drop_limbs": 0.0, "noise": 0.0, "project": 0.0}
    names = ("partners", "limbs", "flat", "group", "numbers", "valid")
    full = {**dict.fromkeys(names), **absent, "patch_frames": 1, "visible": 0, **given, **amounts}
    truth, seen = reference.augment_clips(**{**full, "clips": full["clips"].double()})
    peer, _ = reference.augment_clips(**full)
    assert found[0].dtype == torch.float32
    assert found[0].shape == truth.shape
    assert (found[1] is None) == (seen.ndim == 1)
    assert found[1] is None or torch.equal(found[1], seen)
    if not truth.numel():
        return
    assert torch.equal(found[0] == 0, truth == 0), "the same joints and depths are left out"
    assert_as_good_as(found[0], truth, peer)
    torch.testing.assert_close(found[0], peer, rtol=2e-6, atol=2e-6)
    results = [value for value in found if value is not None]
    assert_repeats(
        results, lambda: [each for each in ops.augment_clips(**given, **amounts) if each is not None]
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", AMOUNTS)
def test_each_augmentation(name: str, dtype: torch.dtype, device: torch.device) -> None:
    check(make(device, dtype=dtype), **AMOUNTS[name])


def test_nothing_at_all(device: torch.device) -> None:
    given = make(device)
    found, seen = ops.augment_clips(given["clips"], given["seed"], valid=given["valid"])
    assert torch.equal(found, given["clips"])
    assert seen is not None
    assert torch.equal(seen, given["valid"])


@pytest.mark.parametrize("without", ["valid", "flat", "group", "numbers"])
def test_what_may_be_absent(without: str, device: torch.device) -> None:
    check({**make(device), without: None}, **AMOUNTS["all"])


@pytest.mark.thinned
@pytest.mark.parametrize("joints", [1, 3, 4, 25, 133])
def test_joints(joints: int, device: torch.device) -> None:
    check(make(device, joints), **AMOUNTS["all"])


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_around_the_block_sizes(extra: int, device: torch.device) -> None:
    block = _configs(64)[0].blocks["BLOCK_T"]
    check(make(device, 64 + extra, block + extra), **AMOUNTS["all"])


def test_two_channels(device: torch.device) -> None:
    given = {**make(device), "flat": None}
    given["clips"] = given["clips"][..., :2]
    check(given, **{**AMOUNTS["all"], "project": 0.0})
    with pytest.raises(ValueError, match="needs 3 channels"):
        check(given, project=0.5)


def test_inputs_of_other_layouts(device: torch.device) -> None:
    given = make(device, 6)
    clips, valid = given["clips"], given["valid"]
    turned = {"clips": clips.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)}
    turned["valid"] = valid.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    check({**given, **turned}, **AMOUNTS["all"])
    names = ("partners", "limbs", "flat", "group", "numbers", "seed")
    spread = {name: given[name].repeat_interleave(2)[::2] for name in names}
    assert not spread["limbs"].is_contiguous()
    check({**given, **spread}, **AMOUNTS["all"])


def test_no_sequences_and_one_frame(device: torch.device) -> None:
    given = make(device, 3, 1)
    check(given, **AMOUNTS["all"])
    rows = ("clips", "valid", "flat", "group", "numbers")
    check({**given, **{name: given[name][:0] for name in rows}}, **AMOUNTS["all"])
    with pytest.raises(RuntimeError, match="float64 takes the reference"):
        check({**given, "clips": given["clips"].double()}, **AMOUNTS["all"])


def test_choices_are_the_same_on_many_rows(device: torch.device) -> None:
    """Many sequences of one frame: a threshold that is off by little would tell."""
    given = {
        "clips": torch.ones(100_000 if device.type == "cuda" else 60, 1, 3, 3, device=device),
        "seed": torch.tensor([9, 1], device=device),
        "partners": torch.arange(3, device=device),
        "limbs": torch.arange(3, device=device),
    }
    check(given, mirror=0.3, drop_limbs=0.6, visible=1, project=0.4)


def test_a_sequence_does_not_depend_on_the_batch(device: torch.device) -> None:
    given = make(device)
    rows = ("clips", "valid", "flat", "group", "numbers")
    whole = ops.augment_clips(**given, **AMOUNTS["all"])
    some = ops.augment_clips(**{**given, **{name: given[name][3:5] for name in rows}}, **AMOUNTS["all"])
    for one, other in zip(whole, some, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one[3:5], other)
