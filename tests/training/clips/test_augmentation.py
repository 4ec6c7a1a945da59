"""Augmentations of a run: what they need of a layout, and that clips do not depend on how they are drawn."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastamr import ops
from fastamr.models import AMRModel
from fastamr.models.parts.masking import token_validity
from fastamr.skeleton import LAYOUTS, SkeletonLayout, get_layout
from fastamr.training import PretrainConfig, PretrainStep, pretrain
from fastamr.training.clips.augmentation import Augmentation, limbs_of, partners_of
from fastamr.training.clips.batches import BatchOrder, Part
from fastamr.training.clips.clip_streams import PrefetchedClips, ResidentClips
from fastamr.training.clips.sampling import ClipSampler

CPU = torch.device("cpu")
NTU = get_layout("ntu25")
ALL = {"mirror": 0.5, "scale_jitter": 0.2, "drop_limbs": 0.3, "noise": 0.01, "project": 0.3}
# A triangle of nameless joints: neither pairs nor limbs.
PLAIN = SkeletonLayout("plain", ("a", "b", "c"), (-1, 0, 1))


def augmentation(**changes: Any) -> Augmentation:
    found = Augmentation.of(NTU, 3, **{**ALL, "patch_frames": 4, "visible": 10, **changes})
    assert found is not None
    return found


def seed(counter: int = 0) -> Tensor:
    return torch.tensor([7, counter])


def sampler(data: Any, **changes: Any) -> ClipSampler:
    return ClipSampler(data, 16, min_frames=8, **{"augmentation": augmentation(), **changes})


def test_partners_and_limbs_by_name() -> None:
    joint = NTU.joints.index
    partners, limbs = partners_of(NTU), limbs_of(NTU)
    assert partners[joint("left_wrist")] == joint("right_wrist")
    assert partners[joint("right_knee")] == joint("left_knee")
    assert partners[joint("head")] == joint("head")
    assert limbs[joint("spine")] == limbs[joint("base_of_spine")] == -1
    by_limb = {name: limbs[joint(name)].item() for name in ("head", "left_wrist", "right_thumb", "left_foot")}
    assert len(set(by_limb.values())) == 4
    assert limbs[joint("left_shoulder")] == by_limb["left_wrist"]


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_of_every_layout(name: str) -> None:
    """Mirroring twice is nothing, both sides are opposite limbs, and something always remains."""
    layout = LAYOUTS[name]
    partners, limbs = partners_of(layout), limbs_of(layout)
    assert torch.equal(partners[partners], torch.arange(layout.num_joints))
    assert -1 <= limbs.min() <= limbs.max() < 5
    for left, right in layout.pairs:
        one, other = int(limbs[left]), int(limbs[right])
        assert (one in (-1, 0) and one == other) or {one, other} in ({1, 2}, {3, 4})


def test_what_a_layout_or_the_data_do_not_allow() -> None:
    assert Augmentation.of(PLAIN, 3) is None
    assert Augmentation.of(PLAIN, 2, keep_flat=True) is None
    assert Augmentation.of(PLAIN, 3, noise=0.1) is not None
    with pytest.raises(ValueError, match=r"mirror 0\.5: layout 'plain' has no pairs"):
        Augmentation.of(PLAIN, 3, mirror=0.5)
    with pytest.raises(ValueError, match=r"drop_limbs 0\.5: layout 'plain' has no joint of an arm"):
        Augmentation.of(PLAIN, 3, drop_limbs=0.5)
    with pytest.raises(ValueError, match=r"project 0\.5: the data has 2 channels"):
        Augmentation.of(NTU, 2, project=0.5)


@pytest.mark.parametrize("with_valid", [False, True])
def test_a_sampler_augments_what_it_drew(make_skeletons: Any, with_valid: bool) -> None:
    data = make_skeletons(6, bodies=2, with_valid=with_valid)
    ids = torch.tensor([3, 1, 10, 2])
    plain, known = sampler(data, augmentation=None)(ids, seed())
    found, seen = sampler(data)(ids, seed())
    expected = ops.augment_clips(
        plain,
        seed(),
        valid=known,
        **ALL,
        partners=partners_of(NTU),
        limbs=limbs_of(NTU),
        patch_frames=4,
        visible=10,
        group=ids // 2,
        numbers=ids,
    )
    assert torch.equal(found, expected[0])
    assert seen is not None
    assert expected[1] is not None
    assert torch.equal(seen, expected[1])
    assert (known is None) != with_valid
    without, mask = sampler(data, augmentation=augmentation(drop_limbs=0.0))(ids, seed())
    assert (mask is None) != with_valid
    assert not torch.equal(without, plain)


def test_bodies_of_a_clip_are_mirrored_together(make_skeletons: Any) -> None:
    data = make_skeletons(10, bodies=2)
    for first in range(0, data.num_bodies, 2):
        begin, middle, end = data.offsets[first : first + 3].tolist()
        data.coords[middle:end] = data.coords[begin:middle]
    shared = augmentation(drop_limbs=0.0, noise=0.0)
    clips, _ = sampler(data, augmentation=shared)(torch.arange(20), seed())
    assert torch.equal(clips[0::2], clips[1::2])
    apart, _ = sampler(data, augmentation=augmentation(drop_limbs=0.0))(torch.arange(20), seed())
    assert not (apart[0::2] == apart[1::2]).all(-1).any(), "noise is each body's own"


def test_sequences_without_depth_stay_flat(make_skeletons: Any) -> None:
    """A rotation gives them a depth, and noise would; a projected clip is told by its depth, too."""
    data = make_skeletons(30)
    for body in range(0, 30, 3):
        data.coords[data.offsets[body] : data.offsets[body + 1], :, 2] = 0
    ids = torch.arange(30)
    rotated, _ = sampler(data, augmentation=None)(ids, seed())
    assert (rotated[..., 2] != 0).any(2).any(1).all()
    kept, _ = sampler(data, augmentation=augmentation(project=0.0, keep_flat=True))(ids, seed())
    flat = (kept[..., 2] == 0).flatten(1).all(1)
    assert torch.equal(flat, ids % 3 == 0)
    clips, _ = sampler(data, augmentation=augmentation(project=0.5, noise=0.0, drop_limbs=0.0, mirror=0.0))(
        ids, seed()
    )
    projected = (clips[..., 2] == 0).flatten(1).all(1)
    assert projected[::3].all()
    assert 0 < projected[ids % 3 != 0].sum() < 20
    # What had no depth before is not turned.
    scale = clips[::3][..., :2] / rotated[::3][..., :2]
    torch.testing.assert_close(scale, scale[:, :1, :1, :1].expand_as(scale))


def stream(data: Any, kind: str, part: Part | None = None, *, empty: bool = False) -> Any:
    numbers = torch.arange(data.num_bodies)
    if empty:
        numbers = torch.stack([numbers, torch.full_like(numbers, -1)], 1)
    order = BatchOrder(numbers, 12, 1, part)
    drawn = sampler(data, empty_bodies=empty)
    return ResidentClips(drawn, order) if kind == "resident" else PrefetchedClips(drawn, order, CPU)


def draw(source: Any, update: int) -> tuple[Tensor, Tensor]:
    source.advance(update)
    clips, valid = source.draw(torch.tensor(update), seed(update))
    source.done(update)
    return clips, valid


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("with_valid", [False, True])
def test_fetched_clips_are_the_resident_ones_to_the_bit(
    make_skeletons: Any, with_valid: bool, empty: bool
) -> None:
    data = make_skeletons(9, bodies=2, with_valid=with_valid)
    resident, fetched = (stream(data, kind, empty=empty) for kind in ("resident", "fetched"))
    for update in range(5):
        one, other = draw(resident, update), draw(fetched, update)
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
        absent = resident.order.batch(update) < 0
        assert absent.any() == empty
        assert (one[0][absent] == 0).all()
        assert one[1][absent].all(), "an empty slot counts as seen"
        assert not one[1][~absent].all(), "limbs are lost"


@pytest.mark.parametrize("kind", ["resident", "fetched"])
@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_draws_the_same_clips(make_skeletons: Any, kind: str, processes: int) -> None:
    data = make_skeletons(9, bodies=2)
    whole = draw(stream(data, kind), 2)
    parts = [draw(stream(data, kind, Part(rank, processes)), 2) for rank in range(processes)]
    for place, tensor in enumerate(whole):
        assert torch.equal(torch.cat([part[place] for part in parts]), tensor)


@pytest.mark.parametrize("mask_ratio", [0.5, 0.9])
def test_lost_limbs_leave_what_a_model_shows(mask_ratio: float, make_skeletons: Any) -> None:
    """Every visible token exists, and there are others left to be predicted."""
    sizes = {"frames": 16, "width": 8, "depth": 1, "heads": 2, "target_patches": 4}
    sizes |= {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    model = AMRModel(**sizes, mask_ratio=mask_ratio)
    hard = augmentation(drop_limbs=1.0, visible=model.config.visible)
    clips, valid = sampler(make_skeletons(40), augmentation=hard)(torch.arange(40), seed())
    assert valid is not None
    tokens = token_validity(valid, 4)
    assert (tokens.sum(1) > model.config.visible).all()
    assert not tokens.all(1).any(), "with probability 1 every clip loses some"
    keep = model.choose_visible(clips, seed=seed(), valid=valid)
    assert tokens.gather(1, keep.long()).all()
    assert model(clips, seed=seed(), valid=valid).isfinite()


def configure(out: Path, **changes: Any) -> PretrainConfig:
    small = {"frames": 16, "width": 8, "depth": 1, "heads": 2}
    small |= {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2, "target_patches": 4}
    settings = {"architecture": small, "updates": 6, "batch_size": 8, "min_frames": 8, "log_every": 1}
    return PretrainConfig(
        out=str(out),
        **{**settings, **ALL, "device": "cpu", "tensorboard": False, "progress": False, **changes},
    )


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def test_a_run_goes_on_with_the_same_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_skeletons: Any
) -> None:
    data = make_skeletons(20, bodies=2)
    whole = pretrain(configure(tmp_path / "whole"), data=data, quiet=True)
    fetched = pretrain(configure(tmp_path / "fetched", data_budget=0.0), data=data, quiet=True)
    assert losses(fetched) == losses(whole)
    plain = pretrain(configure(tmp_path / "plain", **dict.fromkeys(ALL, 0.0)), data=data, quiet=True)
    assert losses(plain) != losses(whole)
    assert "augment_clips" not in (plain / "metrics.jsonl").read_text()
    assert "augment_clips" in (whole / "metrics.jsonl").read_text()
    call = PretrainStep.__call__

    def interrupted(step: Any) -> Tensor:
        if step.update == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return call(step)

    with monkeypatch.context() as patch:
        patch.setattr(PretrainStep, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretrain(configure(tmp_path / "parts"), data=data, quiet=True)
    parts = pretrain(configure(tmp_path / "parts", resume=True), data=data, quiet=True)
    assert losses(parts) == losses(whole)


def test_a_run_on_a_layout_without_pairs_is_refused(tmp_path: Path, make_skeletons: Any) -> None:
    data = make_skeletons(20)
    bare = dataclasses.replace(
        data, layout=SkeletonLayout("bare", tuple(f"j{n}" for n in range(25)), (-1, *range(24)))
    )
    with pytest.raises(ValueError, match="layout 'bare' has no pairs of left and right joints"):
        pretrain(configure(tmp_path / "run"), data=bare, quiet=True)
