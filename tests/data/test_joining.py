"""Several data sets used together: all of each is used, or a line names what is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastamr.data import PackedSkeletons, Split, concatenate
from fastamr.data.joining import choose_split, gather, open_sets, settle
from fastamr.data.packed.joint_order import in_order_of, joint_order
from fastamr.skeleton import SkeletonLayout

LAYOUT = SkeletonLayout(
    "cross4", ("root", "chest", "hip_left", "hip_right"), (-1, 0, 0, 0), ((2, 3),), (2, 3), (0, 1)
)
TRAIN = torch.tensor([True, True, False, False])
NAMES = ("sit", "walk")


def make(seed: int = 0, *, clips: int = 4, **fields: Any) -> PackedSkeletons:
    rng = np.random.default_rng(seed)
    pose = np.array([[0, 1, 3], [0, 1.5, 3], [0.2, 1, 3], [-0.2, 1, 3]])
    arrays = [(pose + 0.01 * rng.standard_normal((5, 1, 4, 3))).astype(np.float32) for _ in range(clips)]
    defaults: dict[str, Any] = {
        "layout": LAYOUT,
        "labels": [place % 2 for place in range(clips)],
        "label_names": NAMES,
        "names": [f"s{seed}_{place}" for place in range(clips)],
    }
    return PackedSkeletons.from_clips(arrays, **(defaults | fields))


def halves(name: str = "official") -> dict[str, Split]:
    return {name: Split(TRAIN, ~TRAIN)}


class TestSplit:
    def test_a_set_without_it_is_trained_on_whole_and_said(self) -> None:
        found = gather([make(splits=halves()), make(1)], ["a", "b"], split="official")
        split = found.data.split("official")
        assert split.train.tolist() == [True, True, False, False, True, True, True, True]
        assert split.test.tolist() == [False, False, True, True, False, False, False, False]
        assert found.notes == ("b has no split 'official': all its 4 clips are training clips, none tests",)
        assert found.warnings == ()

    def test_its_other_splits_and_its_unlabelled_clips_are_named(self) -> None:
        other = make(1, labels=[0, -1, 1, -1], splits=halves("mine"))
        (note,) = gather([make(splits=halves()), other], ["a", "b"], split="official").notes
        assert "(it has 'mine')" in note
        assert "2 of them have no label and are left out" in note
        (note,) = gather([make(splits=halves()), other], ["a", "b"], split="official", labelled=False).notes
        assert "label" not in note

    def test_a_set_that_is_in_no_half_is_warned_of(self) -> None:
        none = torch.zeros(4, dtype=torch.bool)
        sets = [make(splits=halves()), make(1, splits={"official": Split(none, none)})]
        found = gather(sets, ["a", "b"], split="official")
        assert found.warnings == ("b: all its 4 clips are left out, none is in a half of split 'official'",)

    def test_case_does_not_matter(self) -> None:
        sets = [make(splits=halves("xsub")), make(1, splits=halves("XSub"))]
        split = choose_split("Xsub", sets)
        assert split == "xsub"
        found = gather(sets, ["a", "b"], split=split)
        assert list(found.data.splits) == ["xsub"]
        assert found.data.split("XSUB").train.tolist() == [True, True, False, False] * 2
        assert found.notes == ()

    def test_two_that_differ_in_case_alone_need_the_exact_name(self) -> None:
        data = make(splits=halves("a") | {"A": Split(~TRAIN, TRAIN)})
        assert data.split("A").test.tolist() == TRAIN.tolist()
        with pytest.raises(ValueError, match="unknown split 'b'"):
            data.split("b")

    def test_none_has_it(self) -> None:
        with pytest.raises(ValueError, match="unknown split 'official': expected one of 'mine', 'xsub'"):
            choose_split("official", [make(splits=halves("xsub")), make(1, splits=halves("mine"))])
        with pytest.raises(ValueError, match="no split; make one with fastamr split DATA --by random"):
            choose_split("official", [make(), make(1)])

    def test_without_a_split_the_data_is_what_it_was(self) -> None:
        sets = [make(splits=halves()), make(1)]
        assert gather(sets, ["a", "b"]).data.fingerprint() == concatenate(sets).fingerprint()
        one = gather(sets[:1], ["a"], split="official").data
        assert one is sets[0]


class TestClasses:
    def test_names_beside_numbers_are_refused(self) -> None:
        sets = [make(), make(1, label_names=(), labels=[0, 1, -1, 1])]
        for order in (sets, sets[::-1]):
            with pytest.raises(ValueError, match=r"2 classes .sit, walk.*--labels.*--label-numbers") as error:
                concatenate(order)
            assert "labels 3 of its 4 clips by number (0 to 1) and names no class" in str(error.value)

    def test_sources_are_named(self) -> None:
        with pytest.raises(ValueError, match=r"^own.safetensors labels .*, a.safetensors names"):
            gather([make(), make(1, label_names=())], ["a.safetensors", "own.safetensors"])

    def test_numbers_on_request(self) -> None:
        both = concatenate([make(), make(1, label_names=(), labels=[1, 0, -1, 1])], unnamed="numbers")
        assert both.label_names == NAMES
        assert both.labels.tolist() == [0, 1, 0, 1, 1, 0, -1, 1]
        with pytest.raises(ValueError, match=r"set 1 has a class 2, set 0 names 2 classes"):
            concatenate([make(), make(1, label_names=(), labels=[1, 0, -1, 2])], unnamed="numbers")

    def test_unlabelled_sets_and_pretraining_need_no_names(self) -> None:
        unlabelled = make(1, label_names=(), labels=[-1] * 4)
        assert concatenate([make(), unlabelled]).labels.tolist() == [0, 1, 0, 1, -1, -1, -1, -1]
        found = gather([make(), make(1, label_names=())], ["a", "b"], unnamed="unknown", labelled=False)
        assert found.data.labels.tolist() == [0, 1, 0, 1, -1, -1, -1, -1]
        assert found.notes == (
            "4 labels are not used: numbers without names, beside sets that name their classes",
        )

    def test_frame_labels_are_refused_and_taken_alike(self) -> None:
        streams = {"labels": [-1] * 4, "frame_labels": [[0, 1, -1, -2, 1]] * 4}
        sets = [make(**streams), make(1, label_names=(), **streams)]
        with pytest.raises(ValueError, match="set 1 labels 0 of its 4 clips by number"):
            concatenate(sets)
        both = concatenate(sets, unnamed="numbers")
        assert both.frame_labels is not None
        assert both.frame_labels.tolist() == [0, 1, -1, -2, 1] * 8

    def test_joined_by_name_and_said(self) -> None:
        found = gather([make(), make(1, label_names=("walk", "Sit"))], ["a", "b"])
        assert found.data.labels.tolist() == [0, 1, 0, 1, 1, 2, 1, 2]
        assert found.notes == (
            "classes are joined by name: a names 2, b names 2, 1 of them in all, 3 together",
            "classes that differ in case alone stay apart: 'sit' and 'Sit'",
        )

    def test_an_unknown_option(self) -> None:
        with pytest.raises(ValueError, match="unknown unnamed 'guess'"):
            concatenate([make()], unnamed="guess")

    def test_a_column_of_numbers_beside_one_of_texts_is_kept(self) -> None:
        sets = [make(columns={"subject": ["P1", "P2"] * 2}), make(1, columns={"subject": [7, -1, 3, 7]})]
        both = concatenate(sets)
        names = both.column_names["subject"]
        known = [names[code] if code >= 0 else None for code in both.columns["subject"].tolist()]
        assert known == ["P1", "P2", "P1", "P2", "7", None, "3", "7"]


class TestJoints:
    @given(order=st.permutations(range(4)), upper=st.booleans())
    @settings(max_examples=20, deadline=None)
    def test_any_order_of_named_joints_is_the_same_data(self, order: list[int], upper: bool) -> None:
        sets = [make(), make(1)]
        other = shuffled(sets[1], order, upper)
        both = gather([sets[0], other], ["a", "b"]).data
        assert torch.equal(both.coords, concatenate(sets).coords)
        assert both.layout == LAYOUT

    def test_it_is_said_and_masks_follow(self) -> None:
        seen = torch.rand(20, 4) < 0.5
        data = dataclasses.replace(make(1), valid=seen)
        settled = settle([make(), shuffled(data, [3, 1, 0, 2])], ["a", "b"])
        assert settled.notes == ["b: its joints were put into the order of a"]
        assert torch.equal(settled.sets[1].valid, seen)
        settled = settle([make()], ["a"], layout=shuffled(data, [3, 1, 0, 2]).layout)
        assert settled.notes == ["a: its joints were put into the order of the model"]

    def test_other_bones_are_not_the_same_joints(self) -> None:
        chain = SkeletonLayout("chain", LAYOUT.joints, (-1, 0, 1, 2))
        assert joint_order(chain, LAYOUT) is None
        assert in_order_of(dataclasses.replace(make(), layout=chain), LAYOUT) is None
        bare = SkeletonLayout("bare", LAYOUT.joints, (-1, -1, -1, -1))
        assert joint_order(bare, LAYOUT) == [0, 1, 2, 3]

    def test_what_does_not_fit_names_the_way_on(self) -> None:
        chain = dataclasses.replace(make(1), layout=SkeletonLayout("chain", LAYOUT.joints, (-1, 0, 1, 2)))
        with pytest.raises(
            ValueError, match=r"^a and b: layouts 'cross4'.*fastamr convert IN OUT --layout cross4"
        ):
            gather([make(), chain], ["a", "b"])
        flat = dataclasses.replace(make(1), coords=make(1).coords[..., :2])
        with pytest.raises(ValueError, match=r"^a and b: 3 and 2 channels.*import both with the same"):
            gather([make(), flat], ["a", "b"])


def shuffled(data: PackedSkeletons, order: list[int], upper: bool = False) -> PackedSkeletons:
    """The same clips with the joints in another order."""
    parents = [-1 if LAYOUT.parents[joint] < 0 else order.index(LAYOUT.parents[joint]) for joint in order]
    joints = [LAYOUT.joints[joint].upper() if upper else LAYOUT.joints[joint] for joint in order]
    valid = None if data.valid is None else data.valid[:, order]
    return dataclasses.replace(
        data,
        coords=data.coords[:, order],
        valid=valid,
        layout=SkeletonLayout("other", tuple(joints), tuple(parents)),
    )


class TestTwice:
    def test_the_same_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        make().save(path)
        sources = [str(path), str(tmp_path / "." / "a.safetensors")]
        found = gather(open_sets(sources), sources)
        assert found.warnings == (f"{path} is given twice: each of its clips counts twice",)

    def test_names_in_both_with_and_without_the_same_coordinates(self) -> None:
        one, two = make(splits=halves()), make(1, names=["s0_2", "x", "y", "s0_0"])
        found = gather([one, two], ["a", "b"])
        assert found.notes == ("a and b both have 2 clips of one name (s0_0, s0_2), with other coordinates",)
        copies = one.select([2, 3])
        (text,) = gather([one, dataclasses.replace(copies, splits={})], ["a", "b"], split="official").warnings
        assert "2 clips of one name (s0_2, s0_3), with the same coordinates" in text
        assert "2 of them train in one and test in the other" in text


class TestUnits:
    def test_each_set_is_compared(self) -> None:
        large = dataclasses.replace(make(1), coords=1000 * make(1).coords)
        (text,) = gather([make(), large], ["a", "b"]).warnings
        assert text.startswith("b: the median trunk is 5")
        assert "scale:factor=0.001" in text
        assert gather([make(), large], ["a", "b"], ["scale:unit=torso"]).warnings == ()

    def test_image_coordinates_are_compared_with_one_another(self) -> None:
        flat = [dataclasses.replace(make(seed), coords=make(seed).coords[..., :2]) for seed in (0, 1)]
        pixels = dataclasses.replace(flat[1], coords=400 * flat[1].coords)
        (text,) = gather([flat[0], pixels], ["a", "b"]).warnings
        assert "b and a are not of one unit" in text
        assert "scale:factor=0.0025" in text

    def test_the_size_is_that_after_the_steps(self) -> None:
        large = dataclasses.replace(make(), coords=1000 * make().coords)
        found = gather([large], ["a"], ["center", "scale:factor=0.001"])
        assert found.body_size == pytest.approx(0.5, rel=0.05)
        assert found.warnings == ()
        assert gather([large], ["a"], ["scale:unit=torso"]).body_size is None


def test_a_foreign_file_names_the_import(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    path.write_text("frame,joint,x,y\n0,0,1,1\n")
    with pytest.raises(ValueError, match="fastamr import"):
        open_sets([str(path)])
