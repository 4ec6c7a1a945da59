"""Any skeleton becomes the parts of a body: what is copied, what is not seen, what is left out and said."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from fastamr.data import PackedSkeletons
from fastamr.data.joining import gather
from fastamr.data.to_body import as_body, body_note, joints_left_out, parts_seen, source_layout
from fastamr.layouts.body import parts_of
from fastamr.skeleton import BODY, LAYOUTS, SkeletonLayout, get_layout

WHOLE = [
    *("ntu25", "kinect20", "coco17", "smpl22", "h36m17", "sbu15", "penn13", "jhmdb15", "openpose18"),
    *("bandai21", "lsp14", "aic14", "crowdpose14", "smpl24", "azure32"),
]


def pack(layout: str | SkeletonLayout, seed: int = 0, frames: int = 4, **fields: Any) -> PackedSkeletons:
    joints = get_layout(layout).num_joints
    rng = np.random.default_rng(seed)
    clips = [rng.uniform(-1, 1, size=(frames + place, 1 + place, joints, 3)) for place in range(2)]
    names = [f"{get_layout(layout).name}_{seed}_{place}" for place in range(2)]
    return PackedSkeletons.from_clips(clips, layout=layout, names=names, **fields)


@pytest.mark.parametrize("name", WHOLE)
def test_no_joint_of_a_common_layout_is_lost(name: str) -> None:
    assert joints_left_out(get_layout(name)) == ()


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "hand21"])
def test_each_joint_becomes_its_part_to_the_bit(name: str) -> None:
    data = pack(name)
    body = as_body(data)
    assert body.layout is BODY
    parts = parts_of(data.layout)
    known = [joint for joint in data.layout.joints if parts[joint] in BODY.joints]
    for joint in known:
        place = BODY.index(parts[joint])
        assert torch.equal(body.coords[:, place], data.coords[:, data.layout.index(joint)])
    if name == "body":
        assert body.valid is None
        return
    assert body.valid is not None
    there = [BODY.index(parts[joint]) for joint in known]
    assert body.valid.all(0).nonzero()[:, 0].tolist() == sorted(there)
    assert int(body.valid.any(0).sum()) == len(there)
    assert parts_seen(body).sum(1).tolist() == [len(there)] * data.num_bodies


def test_what_is_left_out_is_said() -> None:
    text = body_note(get_layout("openpose25"), "a")
    assert text == (
        "a: 23 joints of openpose25 are parts of the layout body, 2 are left out (left_small_toe, right_small_toe)"
    )
    assert body_note(get_layout("ntu25"), "a") == "a: 25 joints of ntu25 are parts of the layout body"
    assert body_note(BODY, "a") is None


def test_a_hand_is_refused() -> None:
    with pytest.raises(ValueError, match="'hand21' and 'body' have no joint in common; a hand is no body"):
        as_body(pack("hand21"))


def test_parts_are_seen_by_sequence() -> None:
    data = as_body(pack("ntu25"))
    assert data.valid is not None
    data.valid[data.offsets[1] : data.offsets[2], BODY.index("head")] = False
    data.valid[0, BODY.index("neck")] = False
    seen = parts_seen(data)
    assert seen[:, BODY.index("head")].tolist() == [True, False, True]
    assert seen[:, BODY.index("neck")].all()


def test_sets_of_different_layouts_join() -> None:
    sets = [pack("kinect20"), pack("ntu25", 1), pack("body", 2)]
    sources = ["a", "b", "c"]
    found = gather(sets, sources, ["center"], layout=BODY, labelled=False)
    assert found.data.layout is BODY
    assert found.data.num_clips == 6
    assert parts_seen(found.data).sum(1).tolist() == [20] * 3 + [25] * 3 + [39] * 3
    assert [note.split(":")[0] for note in found.notes] == ["a", "b"]
    # Each is pre-processed as what it is: the root of its own skeleton is the origin.
    alone = [as_body(gather([one], ["x"], ["center"], labelled=False).data) for one in sets]
    assert torch.equal(found.data.coords, torch.cat([one.coords for one in alone]))
    assert "center" in [step["name"] for step in found.data.steps]
    with pytest.raises(ValueError, match=r"--layout body"):
        gather(sets, sources, labelled=False)


def test_an_own_layout_enters_by_its_names() -> None:
    joints = ("MidHip", "L_Hip", "RightHip", "Nose", "antenna")
    data = pack(SkeletonLayout("mine", joints, (-1, 0, 0, 0, 3)))
    assert joints_left_out(data.layout) == ("antenna",)
    (seen,) = parts_seen(as_body(data)).unique(dim=0)
    assert {BODY.joints[place] for place in seen.nonzero()[:, 0]} == {
        "pelvis",
        "left_hip",
        "right_hip",
        "nose",
    }


class TestNoGuess:
    def test_a_number_of_joints_is_no_body(self) -> None:
        from fastamr.data.readers.array_files.motion import joint_counts, joints_of
        from fastamr.data.readers.common.layout_choice import joints_by_count, joints_by_name

        count = BODY.num_joints
        assert count not in joint_counts(None)
        with pytest.raises(ValueError, match="no known skeleton"):
            joints_by_count(count, 3, "f")
        assert joints_of(count, 3, "f", given=None, usual={}, parents=BODY.parents).layout.name == "own"
        # All of its names are it, a part of them is not.
        assert joints_by_name(BODY.joints, "f").layout is BODY
        assert joints_by_name(BODY.joints[:-4], "f").layout is not BODY
        assert joints_by_count(count, 3, "f", given="body").layout is BODY


def test_a_note_of_any_kind_is_no_trouble() -> None:
    """Files of others hold notes that only say something."""
    data = pack("ntu25")
    noted = dataclasses.replace(data, steps=({"name": "note", "text": "metres"},))
    assert source_layout(as_body(noted)) == get_layout("ntu25")
