"""What the augmentations do, by hand and in distribution; every back end makes the same choices."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastamr import ops
from fastamr.reference.augment_clips import limb_tokens, normals

# Of five joints 0 and 1 mirror 3 and 4; 2 is the trunk. Each side is a limb.
PARTNERS = torch.tensor([3, 4, 2, 0, 1])
LIMBS = torch.tensor([0, 0, -1, 1, 1])
ALL = {
    "mirror": 0.5,
    "partners": PARTNERS,
    "scale_jitter": 0.2,
    "drop_limbs": 0.4,
    "limbs": LIMBS,
    "noise": 0.01,
    "project": 0.5,
}


def make(sequences: int = 6, frames: int = 8, channels: int = 3) -> Tensor:
    return torch.randn(sequences, frames, 5, channels, dtype=torch.float64)


def seed(counter: int = 0) -> Tensor:
    return torch.tensor([4, counter])


def test_off_is_the_clip_itself() -> None:
    clips, valid = make(), torch.rand(6, 8, 5) > 0.3
    assert torch.equal(ops.augment_clips(clips, seed())[0], clips)
    assert ops.augment_clips(clips, seed())[1] is None
    found, seen = ops.augment_clips(clips, seed(), valid=valid)
    assert torch.equal(found, clips)
    assert seen is not None
    assert torch.equal(seen, valid)


@pytest.mark.parametrize("channels", [2, 3])
def test_mirroring_exchanges_sides_and_turns_x_round(channels: int) -> None:
    clips, valid = make(channels=channels), torch.rand(6, 8, 5) > 0.3
    found, seen = ops.augment_clips(clips, seed(), valid=valid, mirror=1.0, partners=PARTNERS)
    expected = clips[:, :, [3, 4, 2, 0, 1]].clone()
    expected[..., 0] *= -1
    assert torch.equal(found, expected)
    assert seen is not None
    assert torch.equal(seen, valid[:, :, [3, 4, 2, 0, 1]])
    again, _ = ops.augment_clips(found, seed(), mirror=1.0, partners=PARTNERS)
    assert torch.equal(again, clips)


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_a_share_of_clips_is_mirrored(share: float) -> None:
    clips = torch.ones(20_000, 1, 1, 2)
    found, _ = ops.augment_clips(clips, seed(), mirror=share, partners=torch.tensor([0]))
    assert abs((found[:, 0, 0, 0] < 0).double().mean() - share) < 0.015
    assert (found[..., 1] == 1).all()


def test_scale_is_uniform_about_the_origin() -> None:
    clips = torch.ones(20_000, 2, 1, 3, dtype=torch.float64)
    found, _ = ops.augment_clips(clips, seed(), scale_jitter=0.25)
    factor = found[:, 0, 0, 0]
    assert torch.equal(found, factor[:, None, None, None].expand_as(found))
    assert 0.75 <= factor.min() < 0.7505
    assert 1.2495 < factor.max() <= 1.25
    assert abs(factor.mean() - 1) < 0.005
    assert abs(factor.std() - 0.25 / math.sqrt(3)) < 0.003


@pytest.mark.parametrize("masked", [False, True])
def test_a_lost_limb_is_not_seen_in_any_frame(masked: bool) -> None:
    clips, valid = make(200) + 9, torch.rand(200, 8, 5) > 0.1 if masked else None
    found, seen = ops.augment_clips(clips, seed(), valid=valid, drop_limbs=0.4, limbs=LIMBS)
    assert seen is not None
    given = torch.ones_like(seen) if valid is None else valid
    lost = (found == 0).flatten(3).all(3).all(1)
    assert torch.equal(lost[:, 0], lost[:, 1])
    assert torch.equal(lost[:, 3], lost[:, 4])
    assert not lost[:, 2].any()
    assert 0 < lost[:, 0].sum() < 200
    assert not torch.equal(lost[:, 0], lost[:, 3])
    assert torch.equal(seen, given & ~lost[:, None])
    assert torch.equal(found, clips.masked_fill(lost[:, None, :, None], 0))


def test_each_limb_is_lost_with_its_probability() -> None:
    clips = torch.ones(20_000, 1, 10, 3)
    limbs = torch.tensor([-1] * 7 + [0, 1, 7])  # one joint each: three of ten are never too many
    found, _ = ops.augment_clips(clips, seed(), drop_limbs=0.3, limbs=limbs)
    lost = found[:, 0, 7:, 0] == 0
    assert ((lost.double().mean(0) - 0.3).abs() < 0.015).all()
    both = (lost[:, 0] & lost[:, 1]).double().mean()
    assert abs(both - 0.09) < 0.01, "limbs are lost independently of one another"
    assert (found[:, 0, :7] == 1).all()


@pytest.mark.parametrize("visible", [0, 4, 10, 30])
def test_enough_tokens_remain(visible: int) -> None:
    """A quarter of what is beyond the visible tokens, with and without missing joints; each limb is lost as often."""
    valid = torch.rand(3_000, 8, 5) > torch.rand(3_000, 1, 5)
    limbs = torch.tensor([0, 1, 2, 3, 4])
    seen = ops.augment_clips(
        make(3_000),
        seed(),
        valid=valid,
        drop_limbs=1.0,
        limbs=limbs,
        patch_frames=2,
        visible=visible,
    )[1]
    assert seen is not None
    tokens, left = (mask.unflatten(1, (4, 2)).all(2).sum((1, 2)) for mask in (valid, seen))
    assert (left >= tokens.clamp(max=visible)).all()
    assert (left >= tokens.clamp(max=visible) + (tokens - visible).clamp(min=0) / 4).all()
    assert (left < tokens).any() == (visible < 20), "no clip has 30 tokens to spare"
    lost = (valid & ~seen).any(1).double().mean(0)
    assert (lost - lost.mean()).abs().max() < 0.03


def test_tokens_of_a_limb_by_hand() -> None:
    valid = torch.ones(1, 5, 3, dtype=torch.bool)
    valid[0, 0, 1] = False
    tokens, spare = limb_tokens(valid, torch.tensor([-1, 2, 2]), 1, 5, 2, 1)
    assert tokens.tolist() == [[0, 0, 3, 0, 0, 0, 0, 0]], "two patches of two frames, one of them not whole"
    assert spare.tolist() == [3], "three quarters of four"
    tokens, spare = limb_tokens(None, torch.tensor([-1, 2, 2]), 2, 5, 2, 4)
    assert tokens.tolist() == [[0, 0, 4, 0, 0, 0, 0, 0]] * 2
    assert spare.tolist() == [1, 1]


def test_noise_is_normal_and_independent() -> None:
    drawn = normals(seed(), torch.arange(40), torch.empty(40, 30, 20, 3, dtype=torch.float64))
    assert abs(drawn.mean()) < 0.02
    assert abs(drawn.std() - 1) < 0.01
    assert abs((drawn.abs() < 1).double().mean() - 0.6827) < 0.01
    assert abs((drawn.abs() < 2).double().mean() - 0.9545) < 0.005
    columns = drawn.flatten(0, 2)
    assert (torch.corrcoef(columns.T) - torch.eye(3)).abs().max() < 0.03
    for step in (drawn[:, 1:] * drawn[:, :-1], drawn[:, :, 1:] * drawn[:, :, :-1], drawn[1:] * drawn[:-1]):
        assert abs(step.mean()) < 0.02


def test_noise_spares_what_was_not_seen() -> None:
    clips, valid = make(), torch.rand(6, 8, 5) > 0.5
    found, _ = ops.augment_clips(clips, seed(), valid=valid, noise=0.02)
    moved = (found != clips).any(3)
    assert torch.equal(moved, valid)
    assert abs((found - clips)[valid].std() - 0.02) < 0.002


def test_a_projection_is_a_turn_about_y_without_depth() -> None:
    clips = make(2_000, 2)
    found, _ = ops.augment_clips(clips, seed(), project=0.5)
    flat = (found[..., 2] == 0).flatten(1).all(1)
    assert abs(flat.double().mean() - 0.5) < 0.04
    assert torch.equal(found[~flat], clips[~flat])
    assert torch.equal(found[flat][..., 1], clips[flat][..., 1])
    # x after the turn is cos x + sin z: the angle follows from two joints, and explains the others.
    x, z, after = (
        clips[flat][..., 0].flatten(1),
        clips[flat][..., 2].flatten(1),
        found[flat][..., 0].flatten(1),
    )
    solved = torch.linalg.lstsq(torch.stack([x, z], 2), after[..., None]).solution[..., 0]
    torch.testing.assert_close(solved.norm(dim=1), torch.ones(len(solved), dtype=torch.float64))
    residual = after - solved[:, :1] * x - solved[:, 1:] * z
    assert residual.abs().max() < 1e-9
    angle = torch.atan2(solved[:, 1], solved[:, 0])
    assert ((angle / math.pi * 2).floor().long() + 2).bincount(minlength=4).min() > 200, "all around"


def test_flat_clips_stay_as_they_are() -> None:
    clips = make(100)
    flat = torch.arange(100) % 3 == 0
    found, _ = ops.augment_clips(clips, seed(), project=0.5, flat=flat, noise=0.0)
    assert torch.equal(found[flat][..., :2], clips[flat][..., :2])
    assert (found[flat][..., 2] == 0).all()
    disturbed, _ = ops.augment_clips(clips, seed(), flat=flat, noise=0.1)
    assert (disturbed[flat][..., 2] == 0).all()
    assert (disturbed[~flat][..., 2] != 0).all()


def test_bodies_of_a_clip_share_what_they_must() -> None:
    """Mirror, scale and projection follow from the group; limbs and noise from the body's own number."""
    clips = make(1).expand(40, 8, 5, 3)
    group, numbers = torch.arange(40) // 2, torch.arange(40)
    shared = {key: ALL[key] for key in ("mirror", "partners", "scale_jitter", "project")}
    found, _ = ops.augment_clips(clips, seed(), **shared, group=group, numbers=numbers)
    assert torch.equal(found[0::2], found[1::2])
    assert len(found.flatten(1).unique(dim=0)) == 20
    noisy, _ = ops.augment_clips(clips, seed(), noise=0.1, group=group, numbers=numbers)
    assert len(noisy.flatten(1).unique(dim=0)) == 40
    _, seen = ops.augment_clips(clips, seed(), drop_limbs=0.5, limbs=LIMBS, group=group, numbers=numbers)
    assert seen is not None
    assert not torch.equal(seen[0::2], seen[1::2])


def test_the_number_and_not_the_place_names_the_draw() -> None:
    clips = make(6)
    valid = torch.rand(6, 8, 5) > 0.1
    group, numbers = torch.tensor([7, 7, 9, 2, 2, 5]), torch.tensor([14, 15, 18, 4, 5, 11])
    whole = ops.augment_clips(clips, seed(3), valid=valid, **ALL, group=group, numbers=numbers)
    part = [4, 1]
    some = ops.augment_clips(
        clips[part], seed(3), valid=valid[part], **ALL, group=group[part], numbers=numbers[part]
    )
    for one, other in zip(whole, some, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one[part], other)
    later = ops.augment_clips(clips, seed(4), valid=valid, **ALL, group=group, numbers=numbers)
    assert not torch.equal(later[0], whole[0])


@pytest.mark.parametrize(
    ("sequences", "frames", "joints"), [(0, 4, 5), (1, 1, 1), (3, 1, 5), (2, 7, 1), (2, 300, 5)]
)
def test_awkward_shapes(sequences: int, frames: int, joints: int) -> None:
    clips = torch.randn(sequences, frames, joints, 3)
    options = {**ALL, "partners": PARTNERS, "limbs": LIMBS}
    if joints == 1:
        options |= {"partners": torch.tensor([0]), "limbs": torch.tensor([0])}
    for backend in ("reference", "triton"):
        if ops.availability("cpu")["augment_clips"][backend] is not None:
            continue
        with ops.backend(augment_clips=backend):
            found, seen = ops.augment_clips(clips, seed(), **options)
        assert found.shape == clips.shape
        assert found.dtype == torch.float32
        assert seen is not None
        assert seen.shape == clips.shape[:3]
        if joints == 1:
            assert seen.all(), "the only joint is never lost"


def test_half_precision_becomes_float32() -> None:
    clips = make().half()
    found, _ = ops.augment_clips(clips, seed(), scale_jitter=0.1)
    assert found.dtype == torch.float32
    assert torch.equal(found, ops.augment_clips(clips.float(), seed(), scale_jitter=0.1)[0])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mirror": 0.5}, "mirror=0.5 needs partners"),
        ({"drop_limbs": 0.5}, "drop_limbs=0.5 needs limbs"),
        ({"mirror": 1.5, "partners": PARTNERS}, "mirror=1.5 must be a probability"),
        ({"drop_limbs": float("nan"), "limbs": LIMBS}, "drop_limbs=nan must be a probability"),
        ({"scale_jitter": 1.0}, "scale_jitter=1.0 must be"),
        ({"noise": -0.1}, "noise=-0.1 must be zero or more"),
        ({"project": 2.0}, "project=2.0 must be a probability"),
        ({"project": 0.5, "clips": torch.zeros(6, 8, 5, 2)}, "project=0.5 needs 3 channels"),
        ({"flat": torch.zeros(6, dtype=torch.bool), "clips": torch.zeros(6, 8, 5, 2)}, "flat is given"),
        ({"clips": torch.zeros(6, 8, 5, 4)}, "needs 2 or 3 channels, got C=4"),
        ({"patch_frames": 0}, "patch_frames=0"),
        ({"patch_frames": 9}, "patch_frames=9"),
        ({"mirror": 0.5, "partners": PARTNERS[:4]}, "partners must have shape"),
        ({"mirror": 0.5, "partners": PARTNERS + 1}, "partners lists joint 5"),
        ({"drop_limbs": 0.5, "limbs": LIMBS + 7}, "limbs"),
        ({"group": torch.zeros(5, dtype=torch.int64)}, "group must have shape"),
        ({"numbers": torch.zeros(7, dtype=torch.int64)}, "numbers must have shape"),
        ({"valid": torch.ones(6, 8, 4, dtype=torch.bool)}, "valid must have shape"),
    ],
)
def test_errors(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ops.augment_clips(**{"clips": make(), "seed": seed(), **options})
