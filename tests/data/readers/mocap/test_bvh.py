"""BVH: kinematics against rotations by hand, dialects of the hierarchy, and unsound files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastamr.data import PackedSkeletons, read
from fastamr.data.preprocessing.convert_layout import joint_map
from fastamr.skeleton import get_layout

from ..reading import clip_of, one_line

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

ARM = """HIERARCHY
ROOT Hips
{
  OFFSET 9 9 9
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Arm
  {
    OFFSET 1 0 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT Hand
    {
      OFFSET 0 2 0
      CHANNELS 3 Yrotation Xrotation Zrotation
      End Site
      {
        OFFSET 0 0.5 0
      }
    }
  }
}
MOTION
Frames: 3
Frame Time: 0.04
0 1 0 0 0 0 0 0 0 0 0 0
5 1 0 90 0 0 0 0 0 0 0 0
0 0 0 90 0 0 0 90 0 30 40 50
"""

# A character as animation software writes it: names after bones, a character's name before a colon.
CHARACTER = {
    "Hips": ("", 0, 90, 0),
    "Spine": ("Hips", 0, 10, 0),
    "Spine1": ("Spine", 0, 15, 0),
    "Spine2": ("Spine1", 0, 15, 0),
    "Neck": ("Spine2", 0, 15, 0),
    "Head": ("Neck", 0, 10, 0),
    **{
        f"{side}{bone}": (parent if parent in ("Hips", "Spine2") else f"{side}{parent}", *at)
        for side, sign in (("Left", 1), ("Right", -1))
        for bone, parent, at in (
            ("Shoulder", "Spine2", (sign * 5, 10, 0)),
            ("Arm", "Shoulder", (sign * 12, 0, 0)),
            ("ForeArm", "Arm", (sign * 28, 0, 0)),
            ("Hand", "ForeArm", (sign * 25, 0, 0)),
            ("UpLeg", "Hips", (sign * 10, -5, 0)),
            ("Leg", "UpLeg", (0, -40, 0)),
            ("Foot", "Leg", (0, -40, 0)),
            ("ToeBase", "Foot", (0, -5, 12)),
        )
    },
}  # fmt: skip


def hierarchy(tree: dict[str, tuple[str, float, float, float]], prefix: str = "", brace: str = "\n{") -> str:
    """The text of a tree of ``name: (parent, x, y, z)``."""

    def joint(name: str, key: str) -> str:
        _, x, y, z = tree[name]
        children = [child for child, entry in tree.items() if entry[0] == name]
        channels = "6 Xposition Yposition Zposition Zrotation Yrotation Xrotation"
        channels = channels if key == "ROOT" else "3 Zrotation Yrotation Xrotation"
        inside = (
            "".join(joint(child, "JOINT") for child in children) or f"End Site{brace}\nOFFSET 0 1 0\n}}\n"
        )
        return f"{key} {prefix}{name}{brace}\nOFFSET {x} {y} {z}\nCHANNELS {channels}\n{inside}}}\n"

    return "HIERARCHY\n" + joint(next(iter(tree)), "ROOT")


def still(tree: dict[str, tuple[str, float, float, float]], frames: int = 2, **text: str) -> str:
    row = " ".join(["0 90 0"] + ["0 0 0"] * len(tree))
    motion = "\n".join([row] * frames)
    return f"{hierarchy(tree, **text)}MOTION\nFrames: {frames}\nFrame Time: 0.008333\n{motion}\n"


def read_text(tmp_path: Path, text: str, **options: str) -> tuple[PackedSkeletons, list[str]]:
    path = tmp_path / "take 1.bvh"
    path.write_text(text, encoding="utf-8")
    notes: list[str] = []
    return read(path, say=notes.append, **options), notes  # type: ignore[arg-type]


class TestKinematics:
    def test_by_hand(self, tmp_path: Path) -> None:
        data, notes = read_text(tmp_path, ARM)
        (body,) = clip_of(data, "take 1")
        assert data.layout.joints == ("Hips", "Arm", "Hand")
        assert data.layout.parents == (-1, 0, 1)
        assert data.fps.tolist() == pytest.approx([25])
        np.testing.assert_allclose(body[0], [[0, 1, 0], [1, 1, 0], [1, 3, 0]], atol=1e-6)
        # The root turned by 90 degrees about z: x becomes y, y becomes -x.
        np.testing.assert_allclose(body[1], [[5, 1, 0], [5, 2, 0], [3, 2, 0]], atol=1e-6)
        # And the arm about x: its y becomes z, which the root's turn leaves.
        np.testing.assert_allclose(body[2], [[0, 0, 0], [0, 1, 0], [0, 1, 2]], atol=1e-6)
        assert any("no unit" in note for note in notes)
        assert any("layout of their own" in note for note in notes)

    def test_order_of_the_channels_is_that_of_the_rotations(self, tmp_path: Path) -> None:
        angles = {"X": 25.0, "Y": -70.0, "Z": 40.0}

        def turn(axis: str) -> np.ndarray:
            one, two = [place for place in range(3) if "XYZ"[place] != axis]
            cosine, sine = np.cos(np.radians(angles[axis])), np.sin(np.radians(angles[axis]))
            matrix = np.eye(3)
            matrix[one, one] = matrix[two, two] = cosine
            sign = -1 if axis == "Y" else 1
            matrix[one, two], matrix[two, one] = -sign * sine, sign * sine
            return matrix

        for order in ("XYZ", "ZXY", "YZX", "ZYX"):
            channels = " ".join(f"{axis}rotation" for axis in order)
            text = ARM.replace("CHANNELS 3 Zrotation Xrotation Yrotation", f"CHANNELS 3 {channels}", 1)
            head, _, _ = text.partition("Frames:")
            values = " ".join(str(angles[axis]) for axis in order)
            data, _ = read_text(tmp_path, f"{head}Frames: 1\nFrame Time: 0.04\n0 0 0 0 0 0 {values} 0 0 0\n")
            whole = turn(order[0]) @ turn(order[1]) @ turn(order[2])
            np.testing.assert_allclose(data.coords[0, 2], [1, 0, 0] + whole @ [0, 2, 0], atol=1e-5)

    def test_positions_of_joints_replace_offsets(self, tmp_path: Path) -> None:
        text = ARM.replace(
            "CHANNELS 3 Yrotation Xrotation Zrotation", "CHANNELS 3 Xposition Yposition Zposition"
        )
        text = text.replace("90 0 30 40 50", "90 0 0 5 0")
        data, _ = read_text(tmp_path, text)
        np.testing.assert_allclose(data.coords[2, 2], [0, 1, 5], atol=1e-6)


class TestSkeletons:
    def test_animation_software(self, tmp_path: Path) -> None:
        """Names after bones convert to other layouts: an arm begins at the shoulder."""
        data, _ = read_text(tmp_path, still(CHARACTER, prefix="mixamorig:", brace=" {"))
        assert sorted(data.layout.joints) == sorted(CHARACTER)
        assert data.layout.hips is not None
        assert [data.layout.joints[joint] for joint in data.layout.hips] == ["LeftUpLeg", "RightUpLeg"]
        mapped = joint_map(data.layout, "smpl22")
        assert mapped.copied["left_shoulder"] == "LeftArm"
        assert mapped.copied["left_wrist"] == "LeftHand"
        assert mapped.copied["right_knee"] == "RightLeg"
        assert mapped.copied["right_collar"] == "RightShoulder"
        assert mapped.copied["spine1"] == "Spine"
        assert mapped.lossless

    def test_3ds_max_names_have_spaces(self, tmp_path: Path) -> None:
        words = {
            "UpLeg": "Thigh",
            "Leg": "Calf",
            "Shoulder": "Clavicle",
            "Arm": "UpperArm",
            "ForeArm": "Forearm",
        }

        def name(joint: str) -> str:
            for side in ("Left", "Right"):
                if joint.startswith(side):
                    bone = joint.removeprefix(side)
                    return f"Bip01 {side[0]} {words.get(bone, bone)}"
            return f"Bip01 {joint}" if joint else ""

        tree = {name(joint): (name(parent), *at) for joint, (parent, *at) in CHARACTER.items()}
        data, _ = read_text(tmp_path, still(tree))  # type: ignore[arg-type]
        mapped = joint_map(data.layout, "smpl22")
        assert mapped.copied["left_hip"] == "Bip01 L Thigh"
        assert mapped.copied["right_elbow"] == "Bip01 R Forearm"

    def test_built_in_below_a_root_of_its_own(self, tmp_path: Path) -> None:
        layout = get_layout("bandai21")
        tree = {"joint_Root": ("", 0.0, 0.0, 0.0)}
        for joint, parent in zip(layout.joints, layout.parents, strict=True):
            tree[joint] = ("joint_Root" if parent < 0 else layout.joints[parent], 1.0, 2.0, 3.0)
        data, notes = read_text(tmp_path, still(tree))
        assert data.layout is layout
        assert any("joint_Root" in note for note in notes)
        # The hips lie 1, 2, 3 from the root, which the motion puts at 0, 90, 0.
        np.testing.assert_allclose(data.coords[0, layout.root], [1, 92, 3])

    def test_chosen_layout(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="name of layout 'kinect20'"):
            read_text(
                tmp_path, ARM.replace("Hand", "b").replace("Hips", "a").replace("Arm", "c"), layout="kinect20"
            )


class TestDefects:
    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            ("HIERARCHY", "HELLO", ["line 1", "HIERARCHY"]),
            ("ROOT Hips", "ROOT", ["line 2", "without a name"]),
            ("    OFFSET 1 0 0", "    OFFSET 1 0", ["line 8", "2 OFFSET, expected 3"]),
            ("    OFFSET 1 0 0\n", "", ["lacks its OFFSET"]),
            ("CHANNELS 3 Yrotation", "CHANNELS 3 Wrotation", ["line 13", "Wrotation", "Xposition"]),
            ("CHANNELS 3 Yrotation", "CHANNELS 4 Yrotation", ["line 13", "their number"]),
            ("Frames: 3", "Frames: 4", ["Frames says 4", "3 lines"]),
            ("Frames: 3", "Frames: 0", ["no motion"]),
            ("Frames: 3", "Frames: many", ["Frames: N"]),
            ("Frame Time: 0.04", "Frame Time: fast", ["no number"]),
            ("5 1 0 90", "5 1 0 nan", ["line 25", "not finite"]),
            ("5 1 0 90", "5 1 90", ["line 25", "11 channels, expected 12"]),
            ("MOTION", "", ["expected ROOT"]),
        ],
    )
    def test_named_with_their_line(self, tmp_path: Path, old: str, new: str, words: list[str]) -> None:
        with pytest.raises(ValueError, match=r"take 1\.bvh") as error:
            read_text(tmp_path, ARM.replace(old, new, 1))
        one_line(error, *words)

    def test_statements_on_one_line(self, tmp_path: Path) -> None:
        text = ARM.replace(
            "End Site\n      {\n        OFFSET 0 0.5 0\n      }", "End Site { OFFSET 0 0.5 0 }"
        )
        text = text.replace("JOINT Hand\n    {\n      OFFSET 0 2 0\n", "JOINT Hand { OFFSET 0 2 0 ")
        assert text.count("\n") == ARM.count("\n") - 6
        expected, found = read_text(tmp_path, ARM)[0], read_text(tmp_path, text)[0]
        np.testing.assert_array_equal(found.coords, expected.coords)

    @pytest.mark.parametrize(
        ("old", "new"),
        [("Frame Time: 0.04", "Frame Time:\t0,04"), ("Frame Time: 0.04", "Frame Time:0.04"), ("Frames: 3", "Frames:3"),
         ("OFFSET 0 2 0", "OFFSET 0,0 2,000 0")],
    )  # fmt: skip
    def test_decimal_commas_and_no_blank_behind_a_colon(self, tmp_path: Path, old: str, new: str) -> None:
        expected, found = read_text(tmp_path, ARM)[0], read_text(tmp_path, ARM.replace(old, new))[0]
        np.testing.assert_array_equal(found.coords, expected.coords)
        assert found.fps.tolist() == [25]

    def test_two_skeletons(self, tmp_path: Path) -> None:
        root = ARM[ARM.index("ROOT") : ARM.index("MOTION")]
        with pytest.raises(ValueError, match="a second ROOT; save each"):
            read_text(tmp_path, ARM.replace("MOTION", f"{root}MOTION"))

    @FUZZ
    @given(st.data())
    def test_random_damage(self, tmp_path: Path, data: st.DataObject) -> None:
        """A file with changed, lost or doubled lines is read or refused in one line, and nothing else."""
        lines = ARM.splitlines()
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(lines) - 1))
            lines[place : place + 1] = data.draw(
                st.sampled_from([[], [lines[place]] * 2, ["x"], ["}"], ["0 0"]])
            )
        message = ""
        try:
            read_text(tmp_path, "\n".join(lines))
        except ValueError as error:
            message = str(error)
        assert "\n" not in message
