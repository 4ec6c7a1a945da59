from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastamr import cli
from fastamr.data import PackedSkeletons, Split, apply_missing, concatenate, preprocess, read
from fastamr.data.preprocessing.convert_layout import RULES, convert, joint_map
from fastamr.layouts import PARTS, TREES
from fastamr.layouts.body import parts_of
from fastamr.skeleton import LAYOUTS, SkeletonLayout, get_layout

NAMES = list(LAYOUTS)
BODIES = [name for name in NAMES if name != "hand21"]
KINECT_OF_NTU = {
    "hip_center": "base_of_spine",
    "spine": "middle_of_spine",
    "shoulder_center": "spine",
    "head": "head",
    **{
        f"{part}_{side}": f"{side}_{part}"
        for side in ("left", "right")
        for part in ("shoulder", "elbow", "wrist", "hand", "hip", "knee", "ankle", "foot")
    },
}


def pack(layout: str, frames: int = 3, channels: int = 3, **fields: Any) -> PackedSkeletons:
    joints = get_layout(layout).num_joints
    clips = [
        np.random.default_rng(seed).uniform(-1, 1, size=(frames, 1 + seed, joints, channels))
        for seed in (0, 1)
    ]
    return PackedSkeletons.from_clips(clips, layout=layout, **fields)


def joint(data: PackedSkeletons, name: str) -> np.ndarray:
    return data.coords[:, data.layout.index(name)].numpy()


class TestParts:
    @pytest.mark.parametrize("name", NAMES)
    def test_every_joint_is_a_part_of_its_own(self, name: str) -> None:
        parts = parts_of(get_layout(name))
        assert list(parts) == list(get_layout(name).joints)
        assert len(set(parts.values())) == len(parts)
        for left, right in get_layout(name).pairs:
            one, other = (parts[get_layout(name).joints[place]] for place in (left, right))
            assert (one.split("_")[0], other.split("_")[0]) == ("left", "right")
            assert one.replace("left", "right") == other

    def test_parts_are_known_to_the_rules_or_to_another_layout(self) -> None:
        """A misspelt part would be one that nothing else knows."""
        known = [part for name in NAMES for part in parts_of(get_layout(name)).values()]
        ruled = {name.replace("{side}", side) for name in RULES for side in ("left", "right")}
        lonely = {part for part in known if known.count(part) == 1} - ruled
        # The points of a hand alone, which is neither the left nor the right one of a body.
        assert lonely == set(parts_of(get_layout("hand21")).values())

    def test_tables_name_existing_joints(self) -> None:
        assert set(PARTS) == set(TREES) == set(LAYOUTS)
        for name, text in PARTS.items():
            for entry in text.split():
                assert entry.split("=")[0] in get_layout(name).joints

    def test_rules_are_affine_and_name_parts(self) -> None:
        for part, alternatives in RULES.items():
            for rule in alternatives:
                assert sum(rule.values()) == pytest.approx(1), part
                assert part not in rule

    def test_other_spellings_of_a_layout_of_one_s_own(self) -> None:
        joints = ["Pelvis", "LeftHip", "RIGHT_HIP", "hip_knee", "knee left", "HeadTop"]
        layout = SkeletonLayout("mine", tuple(joints), (-1, 0, 0, 0, 1, 0))
        parts = ["pelvis", "left_hip", "right_hip", "hip_knee", "left_knee", "head_top"]
        assert list(parts_of(layout).values()) == parts


class TestJointMap:
    def test_kinect_v2_to_v1_is_a_choice_of_joints(self) -> None:
        plan = joint_map("ntu25", "kinect20")
        assert plan.lossless
        assert plan.copied == KINECT_OF_NTU

    def test_the_other_way(self) -> None:
        plan = joint_map("kinect20", "ntu25")
        assert plan.copied == {new: old for old, new in KINECT_OF_NTU.items()}
        assert plan.interpolated == {
            "neck": {"shoulder_center": 0.7, "head": 0.3},
            "left_hand_tip": {"hand_left": 2.0, "wrist_left": -1.0},
            "right_hand_tip": {"hand_right": 2.0, "wrist_right": -1.0},
        }
        assert plan.missing == ("left_thumb", "right_thumb")
        assert "not seen      left_thumb" in str(plan)
        assert "interpolated  neck = +0.7 shoulder_center +0.3 head" in str(plan)

    @pytest.mark.parametrize(
        ("source", "target"),
        [("openpose25", "openpose18"), ("openpose18", "coco17"), ("ntu25", "h36m17"), ("smpl22", "bandai21"),
         ("hdm31", "ntu25"), ("hdm31", "kinect20"), ("kinect20", "sbu15")],
    )  # fmt: skip
    def test_lossless_pairs(self, source: str, target: str) -> None:
        assert joint_map(source, target).lossless

    @pytest.mark.parametrize("source", BODIES)
    @pytest.mark.parametrize("target", BODIES)
    def test_all_pairs(self, source: str, target: str) -> None:
        plan = joint_map(source, target)
        joints = [*plan.copied, *plan.interpolated, *plan.missing]
        assert sorted(joints) == sorted(get_layout(target).joints)
        parts, others = parts_of(get_layout(source)), parts_of(get_layout(target))
        assert all(parts[old] == others[new] for new, old in plan.copied.items())
        for name, weights in plan.interpolated.items():
            assert sum(weights.values()) == pytest.approx(1), name
            assert set(weights) <= set(get_layout(source).joints)
            # A collar lies half-way to the point between both shoulders.
            if others[name].startswith(("left", "right")) and "collar" not in others[name]:
                other = "right" if others[name].startswith("left") else "left"
                assert not any(parts[old].startswith(other) for old in weights), name
        hips, shoulders = get_layout(target).hips, get_layout(target).shoulders
        assert hips is not None
        assert shoulders is not None
        assert all(get_layout(target).joints[place] in plan.copied for place in hips)
        # Collars of bandai21 and smpl22 count as shoulders of the tree; they lie between.
        assert all(get_layout(target).joints[place] not in plan.missing for place in shoulders)

    def test_nothing_in_common(self) -> None:
        odd = SkeletonLayout("odd", ("a", "b"), (-1, 0))
        with pytest.raises(ValueError, match="layouts 'odd' and 'ntu25' have no joint in common"):
            joint_map(odd, "ntu25")

    @pytest.mark.parametrize("body", BODIES)
    def test_a_hand_is_no_body(self, body: str) -> None:
        for pair in (("hand21", body), (body, "hand21")):
            with pytest.raises(ValueError, match="have no joint in common; a hand is no body"):
                joint_map(*pair)

    @pytest.mark.parametrize(
        ("source", "target", "joint", "weights"),
        [
            ("mpii16", "ntu25", "head", {"head_top": 0.5, "upper_neck": 0.5}),
            ("crowdpose14", "coco17", "nose", {"top_head": 0.5, "neck": 0.5}),
            ("coco_wholebody133", "ntu25", "left_hand_tip", {"left_middle_finger4": 1}),
            ("coco_wholebody133", "ntu25", "left_thumb", {"left_thumb4": 1}),
            ("mediapipe33", "ntu25", "right_hand",
             {"right_wrist": 0.4, "right_index": 0.3, "right_pinky": 0.3}),
            ("mediapipe33", "ntu25", "left_foot", {"left_foot_index": 1}),
            ("jhmdb15", "ntu25", "spine", {"left_shoulder": 0.5, "right_shoulder": 0.5}),
            ("ntu25", "halpe26", "head", {"head": 1.5, "neck": -0.5}),
            ("azure32", "ntu25", "spine", {"shoulder_left": 0.5, "shoulder_right": 0.5}),
        ],
    )  # fmt: skip
    def test_interpolations_of_the_new_layouts(
        self, source: str, target: str, joint: str, weights: dict[str, float]
    ) -> None:
        assert joint_map(source, target).interpolated[joint] == pytest.approx(weights)

    @pytest.mark.parametrize("source", BODIES)
    def test_coco_finds_arms_and_legs_in_every_body(self, source: str) -> None:
        plan = joint_map(source, "coco17")
        limbs = [f"{side}_{part}" for side in ("left", "right") for part in ("elbow", "hip", "knee", "ankle")]
        assert set(limbs) <= set(plan.copied) | set(plan.interpolated)


class TestConvert:
    def test_copied_joints_keep_their_bits(self) -> None:
        data = pack("ntu25", labels=[1, 0], names=["a", "b"], fps=30.0)
        small = convert(data, "kinect20", missing="refuse")
        assert small.layout is get_layout("kinect20")
        assert small.valid is None
        for new, old in KINECT_OF_NTU.items():
            np.testing.assert_array_equal(joint(small, new), joint(data, old))
        assert (small.names, small.labels.tolist(), small.fps.tolist()) == (["a", "b"], [1, 0], [30, 30])
        assert small.offsets.tolist() == data.offsets.tolist()
        assert convert(data.half(), "kinect20").coords.dtype == torch.float16
        assert convert(data.half(), "smpl22").coords.dtype == torch.float32

    def test_there_and_back(self) -> None:
        data = pack("kinect20")
        assert torch.equal(convert(convert(data, "ntu25"), "kinect20").coords, data.coords)

    def test_interpolated_joints(self) -> None:
        """Against the rules written out by hand."""
        data = pack("coco17", channels=2)
        big = convert(data, "ntu25")
        side = {name: joint(data, f"left_{name}") for name in ("elbow", "wrist")}
        hips = (joint(data, "left_hip") + joint(data, "right_hip")) / 2
        shoulders = (joint(data, "left_shoulder") + joint(data, "right_shoulder")) / 2
        head = (joint(data, "left_ear") + joint(data, "right_ear")) / 2
        expected = {
            "base_of_spine": hips,
            "spine": shoulders,
            "middle_of_spine": (hips + shoulders) / 2,
            "head": head,
            "neck": 0.7 * shoulders + 0.3 * head,
            "left_hand": side["wrist"] + 0.31 * (side["wrist"] - side["elbow"]),
            "left_hand_tip": side["wrist"] + 0.62 * (side["wrist"] - side["elbow"]),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(joint(big, name), value, atol=1e-5, err_msg=name)
        assert big.valid is not None
        unseen = {big.layout.joints[place] for place in range(25) if not big.valid[:, place].any()}
        assert unseen == {"left_foot", "right_foot", "left_thumb", "right_thumb"}
        assert (big.coords[~big.valid] == 0).all()
        assert big.valid.all(0).logical_not().sum() == 4

    def test_visibility_follows(self) -> None:
        data = pack("coco17")
        valid = torch.ones(data.num_frames, 17, dtype=torch.bool)
        valid[0, data.layout.index("left_hip")] = False
        valid[1, data.layout.index("left_ear")] = False
        data.valid = valid
        data.coords[~valid] = 0
        new = convert(data, "kinect20")
        assert new.valid is not None
        index = new.layout.index
        assert new.valid[0, [index("hip_left"), index("hip_center"), index("spine")]].tolist() == [False] * 3
        assert new.valid[1, [index("hip_left"), index("head")]].tolist() == [True, False]
        assert new.valid[2, index("hip_center")]
        assert (new.coords[~new.valid] == 0).all()

    def test_empty_frames_stay_empty(self) -> None:
        data = pack("kinect20")
        data.coords[1] = 0
        assert (convert(data, "ntu25").coords[1] == 0).all()

    def test_masking_and_refusing(self) -> None:
        data = pack("kinect20")
        masked = convert(data, "ntu25", missing="mask")
        assert masked.valid is not None
        unseen = {masked.layout.joints[place] for place in range(25) if not masked.valid[0, place]}
        assert unseen == {"neck", "left_thumb", "right_thumb", "left_hand_tip", "right_hand_tip"}
        message = r"layout 'kinect20' lacks 5 of the 25 joints of 'ntu25': neck, left_hand_tip, .*left_thumb"
        with pytest.raises(ValueError, match=message):
            convert(data, "ntu25", missing="refuse")
        with pytest.raises(ValueError, match=r"unknown missing 'masc'.*'mask'"):
            convert(data, "ntu25", missing="masc")
        with pytest.raises(ValueError, match=r"unknown layout 'kinect'.*'kinect20'"):
            convert(data, "kinect")

    def test_the_command_says_that_masked_joints_are_not_seen(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pack("kinect20").save(tmp_path / "in.safetensors")
        words = [
            "convert",
            str(tmp_path / "in.safetensors"),
            str(tmp_path / "out.safetensors"),
            "--layout",
            "ntu25",
        ]
        assert cli.main([*words, "--missing", "mask"]) == 0
        told = capsys.readouterr().out
        assert "interpolated  " not in told
        assert "not seen      neck" in told
        assert cli.main(words) == 0
        assert "interpolated  neck = " in capsys.readouterr().out

    def test_the_same_layout_changes_nothing(self) -> None:
        data = pack("kinect20")
        assert convert(data, "kinect20", missing="refuse").fingerprint() == data.fingerprint()

    def test_as_a_step_it_is_recorded_and_applied_once(self) -> None:
        data = preprocess(pack("kinect20"), ["convert:layout=ntu25", "center"])
        step, note, center = data.steps
        assert step == {"name": "convert", "layout": "ntu25", "missing": "interpolate"}
        assert note["name"] == "note"
        assert note["source"] == "kinect20"
        assert set(note["interpolated"]) == {"neck", "left_hand_tip", "right_hand_tip"}
        assert note["masked"] == ["left_thumb", "right_thumb"]
        assert center["name"] == "center"
        assert apply_missing(data, ["convert:layout=ntu25", "center"]) is data
        masked = preprocess(pack("kinect20"), ["convert:layout=ntu25,missing=mask"])
        assert masked.steps[1]["interpolated"] == []
        assert len(masked.steps[1]["masked"]) == 5
        same = preprocess(pack("kinect20"), ["convert:layout=kinect20"])
        assert [entry["name"] for entry in same.steps] == ["convert"]
        with pytest.raises(ValueError, match="unknown layout 'ntu52'"):
            preprocess(pack("kinect20"), ["convert:layout=ntu52"])

    def test_sets_of_different_layouts_train_together(self) -> None:
        """Their steps are the same; the notes, which tell the layouts that they had, are all kept."""
        steps = ["convert:layout=kinect20", "center"]
        both = concatenate([preprocess(pack(name), steps) for name in ("ntu25", "smpl22", "ntu25")])
        assert [step["name"] for step in both.steps] == ["convert", "center", "note", "note"]
        assert [note["source"] for note in both.steps[2:]] == ["ntu25", "smpl22"]
        assert apply_missing(both, steps) is both
        other = concatenate([preprocess(pack("ntu25"), steps), pack("kinect20")])
        assert [step["name"] for step in other.steps] == ["concatenate"]

    def test_the_header_survives_the_file(self, tmp_path: Path) -> None:
        mask = torch.tensor([True, False])
        data = preprocess(pack("coco17", splits={"official": Split(mask, ~mask)}), ["convert:layout=ntu25"])
        data.save(tmp_path / "x.safetensors")
        again = PackedSkeletons.load(tmp_path / "x.safetensors")
        assert again.fingerprint() == data.fingerprint()
        assert again.steps == data.steps

    @pytest.mark.parametrize(
        ("folder", "target"),
        [("nw_ucla", "ntu25"), ("sbu_interaction", "kinect20"), ("hdm05_11class", "ntu25")],
    )
    def test_real_bodies_keep_human_proportions(self, shared_data: Path, folder: str, target: str) -> None:
        """Interpolated joints lie within the body: every bone is shorter than the trunk and a leg together."""
        data = read(shared_data / folder / f"{folder}.npz").select(range(0, 280, 7))
        new = convert(data, target)
        seen = new.valid if new.valid is not None else torch.ones(new.coords.shape[:2], dtype=torch.bool)
        hip, knee, ankle = (new.coords[:, new.layout.index(name)] for name in leg_of(target))
        leg = (hip - knee).norm(dim=1) + (knee - ankle).norm(dim=1)
        for child, parent in new.layout.edges:
            both = seen[:, child] & seen[:, parent]
            length = (new.coords[:, child] - new.coords[:, parent]).norm(dim=1)
            share = (length / leg)[both].median()
            assert not share > 0.8, (new.layout.joints[child], float(share))


def leg_of(target: str) -> tuple[str, str, str]:
    if target == "kinect20":
        return "hip_left", "knee_left", "ankle_left"
    return "left_hip", "left_knee", "left_ankle"
