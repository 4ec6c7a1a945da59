from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fastamr.data.prepare.prepare import prepare

from .ntu_folder import NAMES, contents, fill, load, zipped


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return fill(tmp_path / "raw", contents())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "ntu60.safetensors"


def good() -> bytes:
    return contents()[f"{NAMES[0]}.skeleton"]


DAMAGES: dict[str, tuple[Callable[[], bytes], int | None, str]] = {
    "truncated": (lambda: good()[: len(good()) // 2], 213, "expected 12 numbers, joint"),
    "frame count": (lambda: good().replace(b"15", b"14", 1), 394, "goes on after its 14 frames"),
    "claimed frames": (
        lambda: good().replace(b"15", b"1000000000", 1),
        421,
        "ends in frame 15 of 1000000000",
    ),
    "not a number": (lambda: good().replace(b"277.419", b"two", 1), 5, "'two' is not a number"),
    "NaN": (
        lambda: good().replace(b"\r\n25\r\n", b"\r\n25\r\nnan 0 0 0 0 0 0 0 0 0 0 2\r\n", 1),
        30,
        "has 12",
    ),
    "encoding": (lambda: good().decode().encode("utf-16"), 1, "is UTF-16"),
    "empty": (lambda: b"", None, "is empty"),
}


class TestDamage:
    @pytest.mark.parametrize("kind", DAMAGES)
    def test_costs_that_file_only_and_is_told(self, raw: Path, out: Path, kind: str) -> None:
        make, line, reason = DAMAGES[kind]
        bad = raw / "S001C001P001R001A002.skeleton"
        bad.write_bytes(make())
        report = prepare("ntu60", raw, out)
        assert load(out).names == NAMES
        (damage,) = report.damaged
        assert damage.file == str(bad)
        assert reason in damage.reason
        assert damage.line == line
        told = json.loads(out.with_name("ntu60.report.json").read_text())
        assert told["damaged"] == [{"file": str(bad), "reason": damage.reason, "line": line}]
        assert (told["kind"], told["files"], told["summary"]["clips"]) == ("ntu60", 6, 5)
        assert told["summary"]["splits"] == {
            "xsub": {"train": 3, "test": 2},
            "xview": {"train": 3, "test": 2},
        }

    @pytest.mark.parametrize("kind", DAMAGES)
    def test_strict_stops(self, raw: Path, out: Path, kind: str) -> None:
        (raw / "S001C001P001R001A002.skeleton").write_bytes(DAMAGES[kind][0]())
        for _ in range(2):  # also when the damage is known from before
            with pytest.raises(ValueError, match=r"S001C001P001R001A002.skeleton.*leave out --strict"):
                prepare("ntu60", raw, out, strict=True)
        assert not out.exists()
        assert len(prepare("ntu60", raw, out).damaged) == 1

    def test_windows_line_ends_are_no_damage(self, raw: Path, out: Path) -> None:
        assert b"\r\n" in good()
        assert prepare("ntu60", raw, out).damaged == []

    def test_names_and_archives(self, tmp_path: Path, out: Path) -> None:
        path = zipped(
            tmp_path / "z.zip",
            contents() | {"S1C1.skeleton": good(), "../../S001C001P001R001A003.skeleton": good()},
        )
        report = prepare("ntu60", path, out)
        assert load(out).names == NAMES
        assert sorted(damage.reason for damage in report.damaged) == [
            "its name is not of the form SsssCcccPpppRrrrAaaa.skeleton",
            "its name leads out of the archive",
        ]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["ntu60.report.json", out.name, "z.zip"]

    def test_a_file_that_may_not_be_read(self, raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (raw / f"{NAMES[2]}.skeleton").unlink()
        (raw / f"{NAMES[2]}.skeleton").symlink_to(raw / "nothing")
        report = prepare("ntu60", raw, out)
        assert [damage.reason for damage in report.damaged] == ["cannot be read (No such file or directory)"]
        assert load(out).num_clips == 4

    def test_nothing_left(self, tmp_path: Path, out: Path) -> None:
        raw = fill(tmp_path / "raw", {f"{name}.skeleton": b"" for name in NAMES})
        with pytest.raises(
            ValueError, match=r"none of the 5 files gave a clip; the first: .*A001.skeleton: is empty"
        ):
            prepare("ntu60", raw, out)
        assert not out.exists()
