"""Exact and near duplicates: what must be found, and what must not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fastamr.data import PackedSkeletons, Split, import_file, synthetic_actions
from fastamr.data.audit import NearOptions, audit, find_duplicates, near_pairs
from fastamr.data.audit.motion import describe
from fastamr.data.audit.near import align

RNG = np.random.default_rng(5)


def clips_of(data: PackedSkeletons) -> list[np.ndarray]:
    """First bodies as arrays (T, 1, V, C)."""
    offsets, owners = data.offsets.tolist(), data.body_clip.tolist()
    first = [body for body in range(data.num_bodies) if body == 0 or owners[body] != owners[body - 1]]
    return [data.coords[offsets[b] : offsets[b + 1]].numpy()[:, None] for b in first]


@pytest.fixture(scope="module")
def base() -> list[np.ndarray]:
    return clips_of(synthetic_actions(60, seed=3, frames=(40, 70), noise=0.0))


def pack(clips: list[np.ndarray], **more: object) -> PackedSkeletons:
    return PackedSkeletons.from_clips(clips, layout="ntu25", **more)  # type: ignore[arg-type]


def pairs_of(data: PackedSkeletons, **options: object) -> set[tuple[int, int]]:
    found = find_duplicates(data, NearOptions(**options))  # type: ignore[arg-type]
    return {tuple(pair) for pair in found.pairs.tolist()}


def test_exact_copies_whatever_the_packing(base: list[np.ndarray]) -> None:
    two = np.concatenate([base[0], base[1][: len(base[0])]], axis=1) if len(base[1]) >= len(base[0]) else None
    two = two if two is not None else np.concatenate([base[0][: len(base[1])], base[1]], axis=1)
    padded = np.concatenate([np.zeros_like(base[2][:3]), base[2], np.zeros_like(base[2][:2])])
    negative = base[3].copy()
    negative[5, 0, 4] = 0.0
    signed = negative.copy()
    signed[5, 0, 4] = -0.0
    data = pack([two, two[:, ::-1], base[2], padded, negative, signed, base[6], base[7]])
    assert find_duplicates(data, near=False).group.tolist() == [0, 0, 2, 2, 4, 4, 6, 7]


def test_one_number_or_the_timing_of_a_body_makes_another_clip(base: list[np.ndarray]) -> None:
    changed = base[0].copy()
    changed[10, 0, 3, 1] += 1e-6
    late = np.concatenate([base[0], np.zeros_like(base[0])], axis=1)
    late[:20, 1], late[20:40, 1] = 0, base[1][:20, 0]
    later = late.copy()
    later[20:40, 1], later[21:, 1] = 0, 0
    later[20, 1] = 0
    later = np.concatenate([late[:, :1], np.roll(late[:, 1:], 3, axis=0)], axis=1)
    group = find_duplicates(pack([base[0], changed, late, later]), near=False).group
    assert group.tolist() == [0, 1, 2, 3]


def test_a_clip_without_a_body_equals_nothing() -> None:
    data = synthetic_actions(3, seed=0)
    data = dataclasses.replace(data, coords=torch.zeros_like(data.coords))
    assert find_duplicates(data).group.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("noise", "front", "back"),
    [(0.0, 0, 0), (0.003, 0, 0), (0.0, 2, 0), (0.0, 0, 3), (0.002, 3, 2)],
    ids=["origin", "noise", "later", "earlier", "all"],
)
def test_near_copies_are_found(base: list[np.ndarray], noise: float, front: int, back: int) -> None:
    copies = []
    for clip in base[:20]:
        cut = clip[front : len(clip) - back]
        copies.append(cut + RNG.normal(size=3) + noise * RNG.normal(size=cut.shape))
    found = pairs_of(pack([*base, *copies]))
    missing = [k for k in range(20) if (k, len(base) + k) not in found]
    assert not missing
    assert all(b - len(base) == a for a, b in found), "only true copies"


def test_shift_and_residual_are_told(base: list[np.ndarray]) -> None:
    found = near_pairs(pack([base[0], base[0][4:] + 1.0, base[9]]))
    assert found.bodies.tolist() == [[0, 1]]
    assert found.shift.tolist() == [4]
    assert found.residual[0] < 1e-3


def test_other_clips_are_no_copies(base: list[np.ndarray]) -> None:
    assert pairs_of(pack(base)) == set()
    mirrored = base[0] * np.array([-1, 1, 1], dtype=np.float32)
    backwards = base[1][::-1]
    turned = base[2][..., [2, 1, 0]] * np.array([1, 1, -1], dtype=np.float32)
    assert pairs_of(pack([*base[:3], mirrored, backwards, turned])) == set()


def test_too_far_too_short_or_too_still(base: list[np.ndarray]) -> None:
    assert pairs_of(pack([base[0], base[0][8:]])) == set()
    assert pairs_of(pack([base[0], base[0][8:]]), max_shift=8) == {(0, 1)}
    assert pairs_of(pack([base[0][:10], base[0][:10] + 0.1])) == set()
    still = np.repeat(base[0][:1], 30, axis=0)
    assert pairs_of(pack([still, still + 0.1])) == set()


def test_near_copies_of_seen_joints_only(base: list[np.ndarray]) -> None:
    seen = np.ones(base[0].shape[:3], dtype=bool)
    seen[:, :, 7] = False
    data = pack([base[0], base[0] + 2.0, base[5]], valid=[seen, seen, np.ones(base[5].shape[:3], dtype=bool)])
    assert near_pairs(data).bodies.tolist() == [[0, 1]]


def test_descriptor_brings_no_pair_further_apart(base: list[np.ndarray]) -> None:
    """At no shift in time the distance of two descriptors is a lower bound of what the copies differ by."""
    for scale in (0.01, 0.1, 1.0):
        noisy = [clip + scale * RNG.normal(size=clip.shape).astype(np.float32) for clip in base[:10]]
        data = pack([*base[:10], *noisy])
        described = describe(data, None, 8)
        options = NearOptions(max_shift=0, residual=1.0, pose=1.0)
        for k in range(10):
            apart = float(np.linalg.norm(described.features[k] - described.features[10 + k]))
            from fastamr.data.audit.motion import read_motion

            left = align(read_motion(data, k), read_motion(data, 10 + k), options)[1]
            assert apart <= left * (1 + 1e-4)


def test_leaks_by_split(base: list[np.ndarray]) -> None:
    near = base[1][2:] + 0.5
    clips = [base[0], base[1], base[2], base[0], near, base[3], base[2]]
    train = torch.tensor([True, True, True, False, False, False, True])
    clean = torch.tensor([False, False, True, False, False, False, True])
    data = pack(
        clips,
        labels=[0, 1, 2, 0, 1, 3, 4],
        label_names=["wave", "sit", "run", "jump", "fall"],
        splits={"all": Split(train, ~train), "clean": Split(clean, ~train)},
    )
    report = audit(data)["duplicates"]
    leaky = report["splits"]["all"]
    assert (leaky["test"], leaky["exact_copies_of_training"], leaky["near_copies_of_training"]) == (3, 1, 1)
    assert leaky["exact_share"] == pytest.approx(1 / 3)
    assert leaky["by_class"] == {"wave": 1, "sit": 1}
    assert leaky["examples"] == [["clip3", "clip0"], ["clip4", "clip1"]]
    assert leaky["exact_copies_within_training"] == 1
    assert report["splits"]["clean"]["exact_copies_of_training"] == 0
    assert report["splits"]["clean"]["near_copies_of_training"] == 0
    assert report["different_labels"] == [["clip2", "clip6"]]


def test_near_copy_of_a_repeated_training_clip_leaks_too(base: list[np.ndarray]) -> None:
    """Of exact copies one is compared; the leak must be seen though the compared one is in neither half."""
    clips = [base[0], base[0], base[0][2:] + 1]
    train, test = torch.tensor([False, True, False]), torch.tensor([False, False, True])
    report = audit(pack(clips, splits={"official": Split(train, test)}))
    split = report["duplicates"]["splits"]["official"]
    assert split["near_copies_of_training"] == 1
    assert split["examples"] == [["clip2", "clip1"]]


def test_one_motion_in_two_bodies(base: list[np.ndarray]) -> None:
    twins = np.concatenate([base[0], base[0] + 0.4], axis=1)
    report = audit(pack([twins, base[1]], names=["twins", "single"]))
    assert report["duplicates"]["same_motion_in_two_bodies"] == ["twins"]


def test_real_data_leaks_as_its_readme_says(shared_data: Path, tmp_path: Path) -> None:
    import_file(shared_data / "nw_ucla" / "nw_ucla.npz", tmp_path / "ucla.safetensors")
    data = PackedSkeletons.load(tmp_path / "ucla.safetensors")
    report = audit(data)
    official, dedup = (report["duplicates"]["splits"][name] for name in ("official", "dedup"))
    assert (official["exact_copies_of_training"], official["test"]) == (95, 464)
    assert round(100 * official["exact_share"], 1) == 20.5
    assert official["by_class"] == {"pick up with two hands": 50, "drop trash": 45}
    assert (dedup["exact_copies_of_training"], dedup["near_copies_of_training"]) == (0, 0)
    assert "95 of 464 test clips (20.5 %)" in report["findings"][0]["text"]
    # The data set names the copies itself.
    expected = set(np.flatnonzero((data.columns["duplicate_of"] >= 0).numpy()).tolist())
    group = find_duplicates(data, near=False).group
    members = np.bincount(group)
    assert expected <= set(np.flatnonzero(members[group] > 1).tolist())


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("max_shift", -1, "max_shift=-1 must be at least 0"),
        ("residual", 0.0, "residual=0.0 must be a share"),
        ("pose", 1.5, "pose=1.5 must be a share"),
        ("min_frames", 1, "min_frames=1 must be at least 2"),
    ],
)
def test_options_are_checked(option: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NearOptions(**{option: value})  # type: ignore[arg-type]


def test_start_and_end_may_differ_by_so_much(base: list[np.ndarray]) -> None:
    x = base[0][:, 0]
    options = NearOptions(max_shift=5)
    assert align(x, x[:-5], options) == (0, pytest.approx(0, abs=1e-6))
    assert align(x, x[5:], options) == (5, pytest.approx(0, abs=1e-6))
    assert align(x, x[3:-2], options) == (3, pytest.approx(0, abs=1e-6))
    assert align(x, x[:-8], options)[1] > 0.01
    assert align(x[:10], x[40:50], NearOptions(min_frames=11))[1] == np.inf
