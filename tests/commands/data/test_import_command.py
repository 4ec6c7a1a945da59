"""``fastamr import`` and ``fastamr convert`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastamr import cli
from fastamr.data import import_file, load
from fastamr.skeleton import get_layout

from ...data.readers import writers_generic as write


@pytest.fixture
def table(tmp_path: Path) -> Path:
    coords = np.random.default_rng(0).normal(size=(4, 1, 25, 3))
    write.write_csv(
        tmp_path / "move.csv",
        write.csv_rows("a", coords, get_layout("ntu25").joints, confidence=0.6),
        ["frame", "joint", "x", "y", "z", "confidence"],
    )
    return tmp_path / "move.csv"


@pytest.fixture
def packed(table: Path) -> Path:
    import_file(table, table.with_suffix(".safetensors"))
    return table.with_suffix(".safetensors")


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


class TestImport:
    def test_makes_missing_folders(
        self, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "new" / "er" / "out.safetensors"
        assert run("import", tmp_path / "none.csv", out) == 1
        assert not out.parent.parent.exists()
        assert run("import", table, out) == 0
        assert load(out).num_clips == 1
        capsys.readouterr()
        assert run("import", table, table / "out.safetensors") == 1
        assert f"cannot be written, {table} is a file: name another folder" in capsys.readouterr().err

    def test_preset_steps_and_dtype(self, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = table.with_name("out.safetensors")
        options = (
            "--preset",
            "mamp",
            "--preprocess",
            "center:frame=every",
            "scale:factor=0.1",
            "--dtype",
            "float16",
        )
        assert run("import", table, out, *options) == 0
        data = load(out)
        names = [step["name"] for step in data.steps]
        assert names == ["note", "close_gaps", "center", "center", "scale"]
        assert str(data.coords.dtype) == "torch.float16"
        shown = capsys.readouterr().out
        assert "close_gaps" in shown
        assert "middle_of_spine" in shown

    def test_layout_and_confidence(self, table: Path) -> None:
        out = table.with_name("out.safetensors")
        assert run("import", table, out, "--layout", "ntu25", "--min-confidence", "0.6") == 0
        assert run("import", table, out, "--min-confidence", "0.7") == 1

    def test_every_kind_of_file(self, tmp_path: Path, table: Path) -> None:
        points = np.random.default_rng(0).uniform(1, 9, size=(1, 3, 17, 2)).astype(np.float32)
        write.write_pyskl(tmp_path / "a.pkl", [write.pyskl_annotation("v", points, 0)], {"train": ["v"]})
        write.write_pyskl(tmp_path / "a.pickle", [write.pyskl_annotation("v", points, 0)], None)
        write.write_alphapose(
            tmp_path / "b.json", [(f"{frame}.jpg", points[0, frame], None) for frame in range(3)]
        )
        write.write_nw_ucla(tmp_path, {"a01_s01_e00_v01": np.ones((2, 20, 3))})
        (tmp_path / "c.tsv").write_text(table.read_text(encoding="utf-8").replace(",", "\t"))
        layouts = {
            "a.pkl": "coco17",
            "a.pickle": "coco17",
            "b.json": "coco17",
            "a01_s01_e00_v01.json": "kinect20",
        }
        for name, layout in (layouts | {"move.csv": "ntu25", "c.tsv": "ntu25"}).items():
            assert run("import", tmp_path / name, tmp_path / "out.safetensors") == 0, name
            assert load(tmp_path / "out.safetensors").layout.name == layout

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--preset", "mump"], "--preset: unknown preset 'mump'"),
            (["--layout", "ntu52"], "--layout: unknown layout 'ntu52'"),
            (["--preprocess", "centre"], "did you mean 'center'"),
            (["--dtype", "float61"], "--dtype: unknown dtype 'float61'"),
            (["--min-confidence", "much"], "--min-confidence must be float, got 'much'"),
            (["--pres", "mamp"], "unknown option --pres; did you mean --preset?"),
        ],
    )
    def test_usage_errors(
        self, table: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("import", table, table.with_name("out.safetensors"), *options) == 2
        assert message in capsys.readouterr().err
        assert not table.with_name("out.safetensors").exists()

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            (
                "x.txt",
                "1 2 3",
                "x.txt does not hold lines of a class, a box and key points",
            ),
            ("x", "1 2 3", "x ends in 'nothing'"),
            ("x.json", "{}", "nor 'annotations' nor a list of key points"),
            ("x.json", '{"annotations": [}', "x.json, line 1: no JSON, or truncated"),
            ("x.csv", "frame,joint,x,y\n0,nose,1,z\n", "x.csv, line 2: y is 'z'"),
            ("x.pkl", "cos\nsystem\n(S'true'\ntR.", "x.pkl, byte 0: the pickle names 'os' 'system'"),
            ("x.npz", "PK", "x.npz is no npz archive"),
        ],
    )
    def test_damage_is_told_in_one_line(
        self, tmp_path: Path, name: str, content: str, message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / name).write_text(content)
        assert run("import", tmp_path / name, tmp_path / "out.safetensors") == 1
        told = capsys.readouterr().err
        assert message in told
        assert told.startswith("error: ")
        assert told.count("\n") == 1
        assert not (tmp_path / "out.safetensors").exists()

    def test_a_folder_and_options_that_do_not_apply(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"is a folder; .* fastamr prepare"):
            import_file(tmp_path, tmp_path / "out.safetensors")
        write.write_nw_ucla(tmp_path, {"a01_s01_e00_v01": np.ones((2, 20, 3))})
        with pytest.raises(ValueError, match=r"layout is 'ntu25', but it is read from .*"):
            import_file(tmp_path / "a01_s01_e00_v01.json", tmp_path / "out.safetensors", layout="ntu25")
        with pytest.raises(ValueError, match=r"min_confidence is 0\.5, but"):
            import_file(tmp_path / "a01_s01_e00_v01.json", tmp_path / "out.safetensors", min_confidence=0.5)


class TestConvert:
    def test_layout_then_steps(self, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = packed.with_name("kinect.safetensors")
        assert (
            run("convert", packed, out, "--layout", "kinect20", "--preprocess", "center", "align_body") == 0
        )
        data = load(out)
        assert data.layout.name == "kinect20"
        assert [step["name"] for step in data.steps] == ["note", "convert", "note", "center", "align_body"]
        assert data.coords[0, 0].abs().max() == 0
        assert "copied        20 joints" in capsys.readouterr().out

    def test_a_file_is_not_converted_in_its_place(
        self, packed: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = packed.read_bytes()
        assert run("convert", packed, packed, "--preprocess", "center") == 1
        assert "is one of the files that are read" in capsys.readouterr().err
        assert packed.read_bytes() == before

    def test_presets_and_float16_alone(self, packed: Path) -> None:
        out = packed.with_name("out.safetensors")
        assert run("convert", packed, out, "--preset", "mamp") == 0
        out = out.with_name("new") / "er" / out.name  # the folders are made
        assert run("convert", packed, out, "--preprocess", "fit_box") == 0
        half = out.with_name("half.safetensors")
        assert run("convert", out, half, "--dtype", "float16") == 0
        assert str(load(half).coords.dtype) == "torch.float16"

    def test_usage_errors(self, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = packed.with_name("out.safetensors")
        for options, message in (
            ([], "nothing to do: give --layout"),
            (["--layout", "kinect"], "unknown layout 'kinect'"),
            (["--missing", "guess"], "unknown missing 'guess'"),
            (["--preprocess", "resample:fps=0"], "--preprocess: fps of step 'resample' is 0"),
        ):
            assert run("convert", packed, out, *options) == 2
            assert message in capsys.readouterr().err
        assert not out.exists()

    def test_errors_in_one_line(self, packed: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = packed.with_name("out.safetensors")
        for source, target, options, message in (
            (packed.with_name("no.safetensors"), out, ["--layout", "coco17"], "no packed data file"),
            (table, out, ["--layout", "coco17"], "is not a packed data file"),
            (packed, table / "x" / "y", ["--layout", "coco17"], "is a file: name another folder"),
            (packed, out, ["--layout", "coco17", "--missing", "refuse"], "lacks 5 of the 17 joints of 'coco17': nose"),
            (packed, out, ["--layout", "coco17", "--preset", "mamp"], "unknown joint of layout 'coco17'"),
        ):  # fmt: skip
            assert run("convert", source, target, *options) == 1
            told = capsys.readouterr().err
            assert message in told
            assert told.count("\n") == 1
        assert not out.exists()

    def test_a_model_s_layout_for_another_data_set(self, tmp_path: Path) -> None:
        """2-D key points of a video become the joints of NW-UCLA, y up, at the rate and size of metres."""
        pose = np.random.default_rng(0).uniform(100, 400, (17, 2))
        write.write_alphapose(tmp_path / "a.json", [(f"{frame}.jpg", pose + frame, 1) for frame in range(30)])
        steps = ["flip", "center", "scale:unit=torso,factor=0.5", "resample:fps=10,source=30"]
        source, out = tmp_path / "a.safetensors", tmp_path / "k.safetensors"
        assert run("import", tmp_path / "a.json", source) == 0
        assert run("convert", source, out, "--layout", "kinect20", "--preprocess", *steps) == 0
        data = load(tmp_path / "k.safetensors")
        assert (data.layout.name, data.num_frames, data.coords.shape[2]) == ("kinect20", 10, 2)
        trunk = data.coords[:, 2] - data.coords[:, 0]
        np.testing.assert_allclose(trunk.norm(dim=1), 0.5, rtol=1e-4)
        middle = (pose[[5, 6]].mean(0) - pose[[11, 12]].mean(0)) * [1, -1]
        np.testing.assert_allclose(trunk[0], middle / np.linalg.norm(middle) / 2, atol=1e-4)


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    for command, options in (
        ("import", ("--layout", "--min-confidence", "--preset", "--preprocess", "--dtype")),
        ("convert", ("--layout", "--missing", "--preset", "--preprocess", "--dtype")),
    ):
        assert run(command, "--help") == 0
        shown = capsys.readouterr().out
        assert all(option in shown for option in options)
        assert "mamp" in shown
        assert "kinect20" in shown


def test_json_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Telling the kind of a large file must not cost a second reading."""
    write.write_alphapose(tmp_path / "a.json", [("0.jpg", np.ones((17, 2)), None)])
    calls = []
    parse = json.loads
    monkeypatch.setattr(json, "loads", lambda text: calls.append(str(text)) or parse(text))
    import_file(tmp_path / "a.json", tmp_path / "out.safetensors")
    assert sum("keypoints" in text for text in calls) == 1
