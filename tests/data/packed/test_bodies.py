from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fastamr.data import PackedSkeletons, Split, preprocess, split_bodies


def make(**more) -> PackedSkeletons:
    """A clip of two bodies and one of a single body, which begins at frame 4."""
    generator = np.random.default_rng(0)
    clips = [generator.normal(size=(frames, bodies, 17, 3)) for frames, bodies in ((6, 2), (3, 1))]
    train = torch.tensor([True, False])
    data = PackedSkeletons.from_clips(
        clips, layout="coco17", labels=[1, 0], label_names=("a", "b"), fps=[30.0, 25.0], names=["x", "y"],
        columns={"subject": ["s", "t"]}, splits={"mine": Split(train, ~train)},
    )  # fmt: skip
    return dataclasses.replace(data, **{"body_start": torch.tensor([0, 2, 4])} | more)


def test_each_body_is_a_clip_with_what_its_clip_had() -> None:
    data = make(body_names=["7", "9", "7"])
    found = split_bodies(data)
    assert found.names == ["x#7", "x#9", "y#7"]
    assert found.fps.tolist() == [30, 30, 25]
    assert found.labels.tolist() == [1, 1, 0]
    assert found.splits["mine"].train.tolist() == [True, True, False]
    assert found.splits["mine"].test.tolist() == [False, False, True]
    assert [found.column_names["subject"][code] for code in found.columns["subject"]] == ["s", "s", "t"]
    assert [found.column_names["recording"][code] for code in found.columns["recording"]] == ["x", "x", "y"]
    assert found.body_start.tolist() == [0, 2, 4]
    assert found.clip_frames().tolist() == [6, 8, 7]
    assert found.coords is data.coords
    assert data.num_clips == 2


def test_comes_back_from_a_file(tmp_path) -> None:
    found = split_bodies(make())
    found.save(tmp_path / "bodies.safetensors")
    again = PackedSkeletons.load(tmp_path / "bodies.safetensors")
    assert (again.names, again.fingerprint()) == (found.names, found.fingerprint())


@pytest.mark.parametrize("names", [[], ["", "b", "c"], ["b", "b", "c"]])
def test_numbers_stand_where_names_do_not_tell_bodies_apart(names) -> None:
    assert split_bodies(make(body_names=names)).names[:2] == ["x#0", "x#1"]


def test_labels_of_people() -> None:
    found = split_bodies(make(), labels=[2, -1, 0], label_names=("wave", "sit", "walk"))
    assert (found.labels.tolist(), found.label_names) == ([2, -1, 0], ("wave", "sit", "walk"))
    with pytest.raises(ValueError, match=r"labels has shape \(2,\) for 3 bodies"):
        split_bodies(make(), labels=[0, 1])
    with pytest.raises(ValueError, match="labels holds 5"):
        split_bodies(make(), labels=[0, 1, 5])


def test_what_was_done_for_the_clip_is_done_anew_for_each_body() -> None:
    data = preprocess(make(), ["center:per=clip", "scale:factor=2"])
    found = split_bodies(data)
    assert [step["name"] for step in found.steps] == ["scale"]
    centred = preprocess(found, ["center:per=clip"])
    alone = preprocess(split_bodies(make()), ["scale:factor=2", "center:per=clip"])
    torch.testing.assert_close(centred.coords, alone.coords)


def test_a_body_reaches_from_its_first_to_its_last_frame() -> None:
    clip = np.ones((9, 2, 17, 3), dtype=np.float32)
    clip[:3, 1], clip[5, 1], clip[7:, 1] = 0, 0, 0
    valid = clip.any(-1)
    data = PackedSkeletons.from_clips(
        [clip, clip[:, :1]], layout="coco17", valid=[valid, valid[:, :1]], fps=10
    )
    found = split_bodies(data)
    assert found.body_start.tolist() == [0, 3, 0]
    assert found.offsets.diff().tolist() == [9, 4, 9]
    assert found.coords.any(2).any(1).tolist() == [True] * 9 + [True, True, False, True] + [True] * 9
    assert torch.equal(found.valid.any(1), found.coords.any(2).any(1))


def test_a_body_that_no_frame_shows_stays() -> None:
    clip = np.ones((4, 2, 17, 3), dtype=np.float32)
    clip[:, 1] = 0
    found = split_bodies(PackedSkeletons.from_clips([clip], layout="coco17", drop_empty_bodies=False))
    assert found.offsets.diff().tolist() == [4, 4]
