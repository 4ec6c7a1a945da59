"""The list of formats: a new one is read by every command, and which one a source is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fastamr import cli
from fastamr.data import PackedSkeletons, load, read
from fastamr.data.prepare import prepare
from fastamr.data.readers import Reader, Reading, Source, register_reader
from fastamr.data.readers.common.reader import Damage
from fastamr.data.readers.registry import READERS, endings, kinds, read_source


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    before = list(READERS)
    yield
    READERS[:] = before


@pytest.fixture
def toy() -> None:
    """A format: a frame a line, x y z of the 25 joints of the Kinect."""

    def read_toy(source: Source) -> Reading:
        coords = np.loadtxt(source.path, ndmin=2).reshape(-1, 1, 25, 3)
        return Reading(PackedSkeletons.from_clips([coords], layout="ntu25", fps=10, names=[source.path.stem]))

    register_reader(Reader("toy", (".toy",), read_toy, title="a toy"))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    np.savetxt(tmp_path / "jump.toy", np.random.default_rng(0).normal(size=(12, 75)))
    return tmp_path / "jump.toy"


def write_alphapose(path: Path, joints: int, score: float) -> Path:
    points = np.c_[np.random.default_rng(0).uniform(1, 99, (joints, 2)), np.full(joints, score)]
    entries = [
        {"image_id": f"{frame}.jpg", "keypoints": (points + frame).ravel().tolist()} for frame in range(9)
    ]
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


@pytest.mark.usefixtures("toy")
class TestANewFormat:
    def test_import(self, clip: Path, tmp_path: Path) -> None:
        assert run("import", clip, tmp_path / "out.safetensors", "--steps", "center") == 0
        data = load(tmp_path / "out.safetensors")
        assert (data.names, data.num_frames, data.steps[0]["name"]) == (["jump"], 12, "center")

    def test_prepare(self, clip: Path, tmp_path: Path) -> None:
        assert run("prepare", "toy", clip, tmp_path / "out.safetensors", "--no-progress") == 0
        assert load(tmp_path / "out.safetensors").names == ["jump"]
        assert json.loads((tmp_path / "out.report.json").read_text())["files"] == 1

    def test_check(self, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("check", clip, "--json", "-") == 0
        assert json.loads(capsys.readouterr().out)["data"]["clips"] == 1

    def test_show(self, clip: Path, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        assert run("show", clip, "--out", tmp_path / "clip.png") == 0
        assert (tmp_path / "clip.png").read_bytes().startswith(b"\x89PNG")

    def test_predict(self, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        from fastamr.models import ActionClassifier, build_model

        encoder = build_model("skeleton_mae", frames=8, width=8, depth=1, heads=1, decoder_width=8, decoder_depth=1,
                              decoder_heads=1)  # fmt: skip
        ActionClassifier(encoder, 3, hidden=0).save_pretrained(tmp_path / "model")
        assert run("predict", "--model", tmp_path / "model", clip) == 0
        assert capsys.readouterr().out.startswith("jump  0.00-1.20 s  class ")

    def test_help_and_errors_name_it(self, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert kinds()["toy"] == ".toy (a toy)"
        assert ".toy (a toy)" in endings()
        assert run("prepare", "--help-all") == 0
        assert "  toy         .toy (a toy)\n" in capsys.readouterr().out
        assert run("import", "--help") == 0
        assert ".toy (a toy)" in " ".join(capsys.readouterr().out.split())
        assert run("import", clip.rename(clip.with_suffix(".tiy")), clip) == 1
        assert "ends in '.tiy', expected .toy (a toy), .npz" in capsys.readouterr().err

    def test_an_option_that_it_does_not_take(self, clip: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"layout is 'ntu25', but it is read from .*; omit --layout"):
            read(clip, layout="ntu25")
        with pytest.raises(ValueError, match="kind 'toy' has none"):
            prepare("toy", clip, tmp_path / "out", options={"layout": "ntu25"})


class TestForeignFiles:
    """Files that only ``fastamr import`` took before."""

    @pytest.mark.parametrize("command", ["check", "show", "import", "prepare"])
    def test_options_of_a_reader(
        self, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """25 joints in the plane are taken for OpenPose's unless they are said to be the Kinect's."""
        poses = write_alphapose(tmp_path / "poses.json", 25, 0.4)
        out = tmp_path / ("out.png" if command == "show" else "out.safetensors")
        arguments = {
            "check": ["check", poses, "--json", tmp_path / "report.json"],
            "show": ["show", poses, "--out", out],
            "import": ["import", poses, out],
            "prepare": ["prepare", "coco", poses, out, "--no-progress"],
        }[command]
        if command == "show":
            pytest.importorskip("matplotlib")
        assert run(*arguments, "--layout", "ntu25", "--min-confidence", 0.3) == 0
        if command == "check":
            assert json.loads((tmp_path / "report.json").read_text())["data"]["layout"] == "ntu25"
        elif command != "show":
            assert load(out).layout.name == "ntu25"
        assert run(*arguments, "--layout", "coco17") == 1
        assert "25 joints, but layout 'coco17' has 17" in capsys.readouterr().err

    def test_packed_data_and_the_word_synthetic_are_formats_too(self, tmp_path: Path) -> None:
        small = read("synthetic").select(range(3))
        small.save(tmp_path / "odd.name")
        assert read(tmp_path / "odd.name").fingerprint() == small.fingerprint()
        assert run("import", tmp_path / "odd.name", tmp_path / "out.safetensors") == 0
        assert load(tmp_path / "out.safetensors").fingerprint() == small.fingerprint()
        with pytest.raises(ValueError, match="omit --min-confidence"):
            read("synthetic", min_confidence=0.5)

    def test_what_is_not_there(self, tmp_path: Path) -> None:
        for name in ("none", "none.csv", "none.pkl", "none.skeleton", "none.json"):
            with pytest.raises(FileNotFoundError, match=f"no file .*{name} to import"):
                read(tmp_path / name)
        with pytest.raises(FileNotFoundError, match=r"no packed data file .*fastamr import"):
            read(tmp_path / "none.safetensors")
        with pytest.raises(FileNotFoundError, match="did you mean 'synthetic'"):
            read("syntetic")
        with pytest.raises(ValueError, match=r"unknown kind 'pyskal'.*did you mean 'pyskl'"):
            read(tmp_path / "none.pkl", kind="pyskal")

    def test_frame_rates_of_clips_that_do_not_tell(self, tmp_path: Path) -> None:
        poses = write_alphapose(tmp_path / "poses.json", 17, 1)
        assert read(poses).fps.isnan().all()
        assert read(poses, fps=12).fps.tolist() == [12]
        with pytest.raises(ValueError, match=r"fps=0 must be a positive number"):
            read(poses, fps=0)


class TestChoice:
    @staticmethod
    def reader(name: str, **settings: object) -> Reader:
        def read_one(source: Source) -> Reading:
            return Reading(PackedSkeletons.from_clips([np.ones((2, 1, 25, 3))], layout="ntu25", names=[name]))

        return Reader(**({"name": name, "suffixes": (".toy",), "read": read_one} | settings))  # type: ignore[arg-type]

    def test_the_first_that_knows_the_content(self, tmp_path: Path) -> None:
        (tmp_path / "a.toy").write_text("first")
        (tmp_path / "b.TOY").write_text("second")
        register_reader(self.reader("second"))
        looks: list[Path] = []
        register_reader(self.reader("between", sniff=lambda source: bool(looks.append(source.path))))
        register_reader(self.reader("first", sniff=lambda source: source.head().startswith(b"first")))
        assert read(tmp_path / "a.toy").names == ["first"]
        assert looks == []
        assert read(tmp_path / "b.TOY").names == ["second"]
        assert read(tmp_path / "b.TOY", kind="first").names == ["first"]

    def test_nobody_knows_the_content(self, tmp_path: Path) -> None:
        (tmp_path / "a.toy").write_text("?")

        def look(source: Source) -> bool:
            source.seen = repr(source.head().decode())
            return False

        register_reader(self.reader("one", sniff=lambda source: False, title="a toy"))
        with pytest.raises(ValueError, match=r"a\.toy does not hold a toy$"):
            read(tmp_path / "a.toy")
        register_reader(self.reader("other", sniff=lambda source: False, holds=("'x'", "'y'")))
        with pytest.raises(ValueError, match=r"a\.toy holds neither 'x' nor 'y' nor a toy$"):
            read(tmp_path / "a.toy")
        register_reader(self.reader("third", sniff=look, holds=("'z'",)))
        with pytest.raises(ValueError, match=r"a\.toy holds '\?'; expected 'z' or 'x' or 'y' or a toy$"):
            read(tmp_path / "a.toy")

    def test_content_is_parsed_once_for_all_that_look(self, tmp_path: Path) -> None:
        (tmp_path / "a.toy").write_text("text")
        calls = []

        def parse(path: Path) -> str:
            calls.append(path)
            return path.read_text(encoding="utf-8")

        register_reader(self.reader("last", sniff=lambda source: source.parsed(parse) == "text"))
        register_reader(self.reader("first", sniff=lambda source: source.parsed(parse) == "other"))
        assert read(tmp_path / "a.toy").names == ["last"]
        assert len(calls) == 1

    def test_a_folder_with_damaged_files(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """What a reader leaves out reaches the report, the exit code and --strict, whatever its name."""
        (tmp_path / "toys").mkdir()

        def read_folder(source: Source) -> Reading:
            data = PackedSkeletons.from_clips([np.ones((2, 1, 25, 3))], layout="ntu25")
            damaged = [Damage(f"{source.path}/b.toy", "is bent", 3)]
            data.dropped |= {damaged[0].file: "is bent"}
            return Reading(data, 2, damaged)

        register_reader(
            self.reader(
                "toys", read=read_folder, takes_folder=True, sniff=lambda source: "toys" in source.path.name
            )
        )
        out = tmp_path / "out.safetensors"
        assert run("prepare", "toys", tmp_path / "toys", out, "--no-progress") == 3
        assert f"left out: {tmp_path}/toys/b.toy, line 3: is bent\n" in capsys.readouterr().err
        report = json.loads((tmp_path / "out.report.json").read_text())
        assert (report["files"], len(report["damaged"]), report["dropped"]) == (2, 1, {})
        out.unlink()
        assert run("prepare", "toys", tmp_path / "toys", out, "--no-progress", "--strict") == 1
        assert "b.toy, line 3: is bent; repair the file, or leave out --strict" in capsys.readouterr().err
        assert not out.exists()
        assert run("import", tmp_path / "toys", out) == 0
        out.unlink()
        assert read(tmp_path).names == ["toys"], "a folder within a folder is a file of its own kind"

    def test_a_zip_archive_that_nobody_knows(self, tmp_path: Path) -> None:
        import zipfile

        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("x.txt", "1")
        with pytest.raises(
            ValueError, match=r"a\.zip; no reader knows its 1 file \(1 \.txt\): x\.txt; expected \.npz"
        ):
            read(tmp_path / "a.zip")

    def test_suffixes_are_longer_than_an_ending_where_that_helps(self, tmp_path: Path) -> None:
        (tmp_path / "a_points.toy").write_text("")
        register_reader(self.reader("toy"))
        register_reader(self.reader("points", suffixes=("_points.toy",)))
        assert read(tmp_path / "a_points.toy").names == ["points"]
        assert read((tmp_path / "a_points.toy").rename(tmp_path / "points.toy")).names == ["toy"]

    def test_a_data_set_of_raw_files_is_not_read_in_one_go(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=f"fastamr prepare KIND {tmp_path} OUT"):
            read_source(tmp_path, kind="ntu60")


def test_a_folder_of_nw_ucla_is_imported_too(tmp_path: Path) -> None:
    for name in ("a01_s01_e00_v01", "a02_s01_e00_v03"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"skeletons": np.ones((2, 20, 3)).tolist()}))
    assert read(tmp_path).names == ["a01_s01_e00_v01", "a02_s01_e00_v03"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\0\xff" * 40,
        b"1 2 3 4\n",
        b"0\n",
        b"x\ty\n",
        b"[]",
        b"[1]",
        b"{}",
        b"null",
        b"PK\x03\x04",
        b"\x80\x04.",
    ],
)
@pytest.mark.parametrize(
    ("kind", "suffix"),
    [(reader.name, suffix) for reader in READERS if isinstance(reader, Reader) for suffix in reader.suffixes],
)
def test_no_reader_takes_or_chokes_on_another_file(
    tmp_path: Path, kind: str, suffix: str, content: bytes
) -> None:
    """Whatever a file holds, the error is one line that names it, by its ending as by its kind."""
    path = tmp_path / f"some{suffix}"
    path.write_bytes(content)
    for known in (None, kind):
        with pytest.raises(ValueError, match=f"some{suffix}") as error:
            read(path, kind=known)
        assert "\n" not in str(error.value)
