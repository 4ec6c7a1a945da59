"""The record of ``fastamr tune`` as ``auto`` reads it: what is near, what is refused, what is ignored with a line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr import ops
from fastamr.info import report
from fastamr.native import cache
from fastamr.ops.common import tuned
from fastamr.ops.common.backends import Problem, choose, explain
from fastamr.ops.common.record import (
    FORMAT,
    Measured,
    Record,
    ShapeClass,
    Tile,
    Tried,
    find_record,
    machine_key,
    read_record,
    record_name,
)


def norm(rows: int, width: int = 32, dtype: str = "float32") -> ShapeClass:
    return ShapeClass("row_norm", dtype, (), (("rows", rows), ("width", width)))


def call(rows: int, width: int = 32, dtype: torch.dtype = torch.float32) -> Problem:
    return Problem("cpu", dtype, sizes={"rows": rows, "width": width})


def made(*classes: Measured, **key: str) -> Record:
    return Record(machine_key("cpu") | key, classes, "now")


FEW = Measured(norm(100), "torch", {"torch": Tried(ms=1.0), "cpp": Tried(ms=2.0)})
MANY = Measured(norm(350), "reference", {"reference": Tried(ms=1.0), "torch": Tried(ms=2.0)})
WRONG = Measured(norm(100), "torch", {"torch": Tried(ms=1.0), "cpp": Tried(failed="wrong: off by 3")})


TILE = Tile("linear_gelu", "(256, 1024, 29)", (("BLOCK_ROWS", 128), ("BLOCK_WIDTH", 64)), 8, 3)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A cache of the test's own, and nothing remembered."""
    monkeypatch.delenv("FASTAMR_TUNING")
    monkeypatch.setenv("FASTAMR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir(mode=0o700)
    tuned.forget()
    yield
    tuned.forget()


def in_cache(record: Record) -> Path:
    path = cache.writable() / record_name("cpu", record.key)
    record.save(path)
    return path


def test_the_nearest_class_decides() -> None:
    with tuned.using("cpu", made(FEW, MANY)):
        for rows, name in (
            (100, "torch"),
            (130, "torch"),
            (60, "torch"),
            (260, "reference"),
            (699, "reference"),
        ):
            assert choose("row_norm", call(rows)) == name
        built_in = choose("row_norm", call(5000))
        # Too far, another width, another dtype, or sizes that nobody told: nothing was measured.
        for other in (
            call(49),
            call(701),
            call(100, 65),
            call(100, dtype=torch.float64),
            replace(call(100), sizes={}),
        ):
            assert choose("row_norm", other) == built_in
            assert explain("row_norm", other).source == "built in"
    assert choose("row_norm", call(100)) == built_in


def test_what_failed_is_taken_nowhere() -> None:
    with tuned.using("cpu", made(WRONG)):
        for problem in (call(100), call(5000), replace(call(1), sizes={})):
            assert choose("row_norm", problem) == "torch"
        assert choose("row_norm", call(100), "cpp") == "cpp"  # who names it has it
    every = {name: Tried(failed="crashed") for name in ops.availability("cpu")["row_norm"]}
    with (
        tuned.using("cpu", made(Measured(norm(100), None, every))),
        pytest.raises(
            RuntimeError, match="failed the check of fastamr tune; run it again, or set FASTAMR_TUNING=off"
        ),
    ):
        choose("row_norm", call(100))


def test_a_back_end_that_cannot_run_the_call_gives_way() -> None:
    shape = ShapeClass("visible_attention", "float32", (), (("size", 16),))
    problem = Problem("cpu", torch.float32, sizes={"size": 16})
    built_in = choose("visible_attention", problem)
    for name in ("cuda", "of_another_version"):
        with tuned.using("cpu", made(Measured(shape, name, {name: Tried(ms=1.0)}))):
            assert choose("visible_attention", problem) == built_in


def test_a_compiled_call_passes_over_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with tuned.using("cpu", made(WRONG)):
        assert choose("row_norm", call(100)) == "torch"


def test_a_record_in_the_cache_is_read_once() -> None:
    path = in_cache(made(FEW))
    assert find_record("cpu", machine_key("cpu")) == path
    assert choose("row_norm", call(100)) == "torch"
    path.unlink()
    assert choose("row_norm", call(100)) == "torch"
    assert path not in cache.files()


def test_cache_lists_and_clears_records() -> None:
    path = in_cache(made(FEW))
    assert path in cache.files()
    cache.clear()
    assert not path.exists()


@pytest.mark.parametrize(
    "part", ["device", "capability", "threads", "products", "FASTAMR_CPU", "torch", "fastamr", "sources"]
)
def test_a_record_of_another_machine_is_ignored_with_one_line(
    part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "record.json"
    made(FEW, **{part: "another"}).save(path)
    monkeypatch.setenv("FASTAMR_TUNING", str(path))
    for _ in range(3):
        assert choose("row_norm", call(100)) != "torch"
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{part} 'another', here" in line
    assert "fastamr tune" in line
    assert tuned.tuning("cpu").why_none in line


def test_records_of_other_devices_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made(FEW, kind="cuda").save(tmp_path / "record.json")
    monkeypatch.setenv("FASTAMR_TUNING", str(tmp_path / "record.json"))
    assert choose("row_norm", call(100)) != "torch"
    assert capsys.readouterr().err == ""


def spoilt(change: Callable[[dict[str, Any]], Any]) -> str:
    values = made(FEW, WRONG).to_json()
    other = change(values)
    return json.dumps(values if other is None else other)


def into(place: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        values["classes"][0][place] = value

    return change


HOSTILE = {
    "nothing": "",
    "cut short": spoilt(lambda values: None)[:200],
    "pickle": "\x80\x04cos\nsystem\n(S'true'\ntR.",
    "a list": "[]",
    "null": "null",
    "deep": "[" * 100_000,
    "another format": spoilt(lambda values: values | {"format": "fastamr tuning record, version 99"}),
    "no classes": spoilt(lambda values: values | {"classes": None}),
    "many classes": spoilt(lambda values: values | {"classes": values["classes"] * 9_000}),
    "no key": spoilt(lambda values: values | {"key": [1]}),
    "numbers in the key": spoilt(lambda values: values | {"key": {"torch": 2}}),
    "a class that is none": spoilt(lambda values: values | {"classes": [3]}),
    "op": spoilt(into("op", "__import__('os')")),
    "op of words": spoilt(into("op", ["row_norm"])),
    "dtype": spoilt(into("dtype", "object")),
    "dtype of none": spoilt(into("dtype", {})),
    "features": spoilt(into("features", "abc")),
    "feature": spoilt(into("features", [1])),
    "sizes": spoilt(into("sizes", [["rows", 1]])),
    "size": spoilt(into("sizes", {"rows": -1})),
    "size of words": spoilt(into("sizes", {"rows": "1"})),
    "huge size": spoilt(into("sizes", {"rows": 10**400})),
    "truth": spoilt(into("sizes", {"rows": True})),
    "tried": spoilt(into("tried", [])),
    "tried of one": spoilt(into("tried", {"torch": 1.0})),
    "time": spoilt(into("tried", {"torch": {"ms": "fast"}})),
    "no time": spoilt(into("tried", {"torch": {"ms": float("nan")}})),
    "reason": spoilt(into("tried", {"torch": {"failed": 3}})),
    "taken without a check": spoilt(into("backend", "cpp\x1b[31m")),
    "taken though it failed": spoilt(lambda values: values["classes"][1].update(backend="cpp")),
    "tiles": spoilt(lambda values: values | {"tiles": {}}),
    "tile": spoilt(lambda values: values | {"tiles": [1]}),
    "tile of words": spoilt(lambda values: values | {"tiles": [{"kernel": 1, "shape": "", "blocks": {}}]}),
    "blocks": spoilt(lambda values: values | {"tiles": [{"kernel": "a", "shape": "", "blocks": [1]}]}),
    "no block": spoilt(
        lambda values: values | {"tiles": [{"kernel": "a", "shape": "", "blocks": {"B": "1"}}]}
    ),
    "changed by hand": spoilt(into("backend", "cpp")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_record_is_refused_where_named_and_ignored_in_the_cache(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "record.json"
    path.write_text(HOSTILE[name], encoding="utf-8")
    monkeypatch.setenv("FASTAMR_TUNING", str(path))
    with pytest.raises(
        ValueError, match=r"FASTAMR_TUNING=.* cannot be used: .*name a file that fastamr tune wrote"
    ) as error:
        choose("row_norm", call(100))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000

    monkeypatch.delenv("FASTAMR_TUNING")
    tuned.forget()
    path.rename(cache.writable() / record_name("cpu", machine_key("cpu")))
    assert choose("row_norm", call(100)) is not None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fastamr: the tuning record is not used: ")
    assert "\x1b" not in line


def test_info_goes_on_without_a_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("[]", encoding="utf-8")
    monkeypatch.setenv("FASTAMR_TUNING", str(tmp_path / "record.json"))
    assert "record.json cannot be used" in report()


def test_what_is_no_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing.json", "pipe", "."):
        monkeypatch.setenv("FASTAMR_TUNING", str(tmp_path / name))
        tuned.forget()
        with pytest.raises(ValueError, match="cannot be used"):
            choose("row_norm", call(100))


def test_a_record_reads_as_it_was_written(tmp_path: Path) -> None:
    record = replace(made(FEW, MANY, WRONG), tiles=(TILE,))
    record.save(tmp_path / "record.json")
    assert read_record(tmp_path / "record.json") == record
    assert json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))["format"] == FORMAT


def test_the_digest_is_that_of_the_choices() -> None:
    slower = replace(FEW, tried={"torch": Tried(ms=9.0), "cpp": Tried(ms=10.0)})
    assert made(FEW, MANY).digest == made(MANY, slower).digest
    different = (
        replace(made(FEW), tiles=(TILE,)),
        made(FEW),
        made(FEW, WRONG),
        made(replace(FEW, backend="cpp")),
        made(FEW, torch="1"),
        made(),
    )
    assert len({each.digest for each in different}) == len(different)


def test_a_later_record_replaces_classes_of_the_same_shape() -> None:
    merged = made(FEW, MANY).merged(made(WRONG))
    assert merged.classes == (WRONG, MANY)
    assert made(FEW, torch="older").merged(made(MANY)).classes == (MANY,)
