"""A layout of one's own, from a file, anywhere that a layout's name is accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import fastamr
from fastamr import cli
from fastamr.data import PackedSkeletons, preprocess, read
from fastamr.skeleton import SkeletonLayout, get_layout

MINE: dict[str, Any] = {
    "name": "mine",
    "joints": ["hip", "chest", "head", "left_hip", "right_hip", "left_shoulder", "right_shoulder"],
    "parents": [None, "hip", "chest", "hip", "hip", "chest", "chest"],
}
LAYOUT = SkeletonLayout.from_joints("mine", MINE["joints"], (-1, 0, 1, 0, 0, 1, 1))


def written(folder: Path, fields: Any, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(json.dumps(fields) if path.suffix == ".json" else yaml.safe_dump(fields))
    return str(path)


class TestFile:
    @pytest.mark.parametrize("name", ["mine.yaml", "mine.yml", "mine.json", "MINE.YAML"])
    def test_names_of_parents(self, tmp_path: Path, name: str) -> None:
        layout = get_layout(written(tmp_path, MINE, name))
        assert layout == LAYOUT
        assert (layout.hips, layout.spine, len(layout.pairs)) == ((3, 4), (0, 1), 2)

    def test_indices_of_parents(self, tmp_path: Path) -> None:
        assert get_layout(written(tmp_path, {**MINE, "parents": [-1, 0, 1, 0, 0, 1, 1]})) == LAYOUT

    def test_what_the_names_do_not_tell(self, tmp_path: Path) -> None:
        fields = {
            "name": "abc", "joints": ["a", "b", "c", "d"], "parents": [None, 0, 0, "a"],
            "pairs": [["b", "c"]], "hips": [1, "c"], "spine": ["a", "d"],
        }  # fmt: skip
        assert get_layout(written(tmp_path, fields)) == SkeletonLayout(
            "abc", tuple("abcd"), (-1, 0, 0, 0), ((1, 2),), (1, 2), (0, 3)
        )

    def test_the_file_of_a_built_in_layout_is_that_layout(self, tmp_path: Path) -> None:
        coco = get_layout("coco17")
        fields = {"name": "my_coco", "joints": list(coco.joints), "parents": list(coco.parents)}
        assert get_layout(written(tmp_path, fields)) is not None
        assert get_layout(written(tmp_path, fields)) == coco

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"parents": None}, "field 'parents' has None, expected 7, one for each joint, for example"),
            ({"parents": [None, "hip"]}, "field 'parents' has 2 entries, expected 7"),
            ({"parents": [None, "hipp", *["hip"] * 5]}, "field 'parents': unknown joint 'hipp'.*did you mean 'hip'"),
            ({"parents": [None, 7, *["hip"] * 5]}, "field 'parents' holds 7, expected names of joints, or indices fr"),
            ({"parents": [1, 0, 0, 0, 0, 0, 0]}, "parents form a cycle"),
            ({"joints": []}, r"field 'joints' holds \[\], expected a list of names"),
            ({"joints": "hip"}, "field 'joints' holds 'hip', expected a list of names"),
            ({"joints": [1, 2, 3, 4, 5, 6, 7]}, "field 'joints' holds 1, expected names, in quotes where"),
            ({"joints": ["hip", "hip", *"abcde"]}, "field 'joints' holds 'hip' more than once"),
            ({"name": ""}, "field 'name' holds '', expected a word"),
            ({"name": "ntu25"}, "field 'name' is 'ntu25', which is a built-in layout of other joints"),
            ({"hips": ["left_hip"]}, r"field 'hips' holds \['left_hip'\], expected two joints"),
            ({"spine": ["hip", "hip"]}, "spine holds .*expected two different joint indices"),
            ({"pairs": "left"}, "field 'pairs' holds 'left', expected a list of pairs"),
            ({"pairs": [["left_hip", "right_hop"]]}, "field 'pairs': unknown joint 'right_hop'"),
            ({"bones": []}, "unknown field 'bones': expected one of"),
        ],
    )  # fmt: skip
    def test_unsound_files(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message) as error:
            get_layout(written(tmp_path, {**MINE, **change}))
        assert str(error.value).startswith(f"layout file {tmp_path / 'mine.yaml'}: ")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("field", ["name", "joints", "parents"])
    def test_a_missing_field(self, tmp_path: Path, field: str) -> None:
        with pytest.raises(ValueError, match=f"mine.yaml: field '{field}' is missing, for example"):
            get_layout(written(tmp_path, {key: value for key, value in MINE.items() if key != field}))

    @pytest.mark.parametrize(("name", "text"), [("a.yaml", "a: ["), ("a.json", "{"), ("a.yaml", "\x00")])
    def test_no_yaml(self, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"{name}: no sound YAML or JSON"):
            get_layout(str(tmp_path / name))

    def test_another_thing_than_fields(self, tmp_path: Path) -> None:
        with pytest.raises(
            ValueError, match=r"mine.yaml: it holds \[1, 2\], expected name, joints and parents"
        ):
            get_layout(written(tmp_path, [1, 2]))

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(
            FileNotFoundError, match="there is no such file; fastamr layouts lists the built-in names"
        ):
            get_layout(str(tmp_path / "none.yaml"))

    def test_an_unknown_name_tells_the_way_on(self) -> None:
        with pytest.raises(
            ValueError, match=r"unknown layout 'mediapip'.*'mediapipe33'\? A .*NAME\.yaml.*fastamr layouts"
        ):
            get_layout("mediapip")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of the joints of :data:`MINE` by name, three frames."""
    rows = [
        f"{frame},{name},{place + frame},{-place}"
        for frame in range(3)
        for place, name in enumerate(MINE["joints"])
    ]
    path = tmp_path / "clip.csv"
    path.write_text("frame,joint,x,y\n" + "\n".join(rows) + "\n")
    return path


class TestUse:
    def test_read_and_import(self, tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
        mine, out = written(tmp_path, MINE), str(tmp_path / "out.safetensors")
        assert read(table, layout=mine).layout == LAYOUT
        assert cli.main(["import", str(table), out, "--layout", mine]) == 0
        (tmp_path / "mine.yaml").unlink()  # the packed file needs it no more
        data = PackedSkeletons.load(out)
        assert data.layout == LAYOUT
        assert data.coords[1, :, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]
        assert cli.main(["check", out]) == 0
        capsys.readouterr()
        assert cli.main(["import", str(table), out, "--layout", mine]) == 2
        assert "there is no such file" in capsys.readouterr().err

    def test_convert(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The header holds the layout itself, so that the step can be repeated without the file."""
        points = np.random.default_rng(0).normal(size=(4, 1, 25, 3))
        PackedSkeletons.from_clips([points], layout="ntu25").save(tmp_path / "ntu.safetensors")
        mine, out = written(tmp_path, MINE), str(tmp_path / "mine.safetensors")
        assert cli.main(["convert", str(tmp_path / "ntu.safetensors"), out, "--layout", mine]) == 0
        assert "ntu25 -> mine" in capsys.readouterr().out
        data = PackedSkeletons.load(out)
        assert data.layout == LAYOUT
        np.testing.assert_allclose(data.coords[:, 0], points[:, 0, 0], atol=1e-6)
        assert data.steps[0]["layout"]["joints"] == MINE["joints"]
        Path(mine).unlink()
        again = preprocess(PackedSkeletons.load(tmp_path / "ntu.safetensors"), [data.steps[0]])
        assert again.fingerprint() == data.fingerprint()

    def test_a_model_keeps_the_layout_of_a_file(self, tmp_path: Path) -> None:
        mine = written(tmp_path, MINE)
        small = {
            "width": 16,
            "depth": 1,
            "heads": 2,
            "decoder_width": 16,
            "decoder_depth": 1,
            "decoder_heads": 2,
        }
        model = fastamr.SkeletonMAEModel(layout=mine, frames=8, **small)
        Path(mine).unlink()
        assert model.layout == LAYOUT
        again = type(model.config).from_dict(json.loads(json.dumps(model.config.to_dict())))
        assert get_layout(again.layout) == LAYOUT


class TestCommand:
    def test_the_list(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["layouts"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[1:26]] == list(fastamr.skeleton.LAYOUTS)
        assert lines[11].split() == ["mediapipe33", "33", "3-D,", "2-D", "MediaPipe", "Pose", "(BlazePose)"]

    def test_one_layout(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert cli.main(["layouts", "jhmdb15"]) == 0
        text = capsys.readouterr().out
        assert "jhmdb15: 15 joints, 2-D; JHMDB\nhips   left_hip and right_hip\ntrunk  belly to neck" in text
        assert "    7  right_elbow     right_shoulder\n" in text
        assert "1 belly\n|- 0 neck\n|  |- 2 face\n|  |- 3 right_shoulder\n|  |  `- 7 right_elbow\n" in text
        assert cli.main(["layouts", written(tmp_path, MINE)]) == 0
        assert "mine: 7 joints; a layout of your own" in capsys.readouterr().out

    def test_pictures(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        assert cli.main(["layouts", "hand21", "--out", str(tmp_path / "a" / "hand.png")]) == 0
        assert (tmp_path / "a" / "hand.png").stat().st_size > 5000
        odd = {"name": "odd", "joints": ["a", "b", "left_knee"], "parents": [None, "a", "b"]}
        assert cli.main(["layouts", written(tmp_path, odd), "--out", str(tmp_path / "odd.svg")]) == 0
        capsys.readouterr()
        assert cli.main(["layouts", "hand21", "--out", str(tmp_path / "hand.txt")]) == 2
        assert "png" in capsys.readouterr().err

    @pytest.mark.slow
    def test_a_picture_of_each(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        assert cli.main(["layouts", "--out", str(tmp_path / "all")]) == 0
        assert {path.stem for path in (tmp_path / "all").iterdir()} == set(fastamr.skeleton.LAYOUTS)

    def test_unknown(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["layouts", "azure"]) == 2
        assert "did you mean 'azure32'?" in capsys.readouterr().err


def test_every_layout_has_users_and_a_pose() -> None:
    from fastamr.layouts.about import USERS
    from fastamr.visualization.layout_picture import standing_pose

    assert list(USERS) == list(fastamr.skeleton.LAYOUTS)
    for name, layout in fastamr.skeleton.LAYOUTS.items():
        pose = standing_pose(layout)
        assert pose.shape == (layout.num_joints, 2)
        assert len(np.unique(pose.round(4), axis=0)) == layout.num_joints, name
        for left, right in layout.pairs:
            np.testing.assert_allclose(pose[left], pose[right] * (-1, 1), atol=1e-6)
        if layout.hips is not None:
            assert pose[layout.hips[0], 0] > 0
        bones = np.array([np.linalg.norm(pose[child] - pose[parent]) for child, parent in layout.edges])
        assert bones.max() < 0.85, name
