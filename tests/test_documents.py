"""Texts of settings: what they hold, what they may cost, and how text from files is shown."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastamr.documents import (
    MAX_NESTING,
    MAX_YAML_BYTES,
    load_json_text,
    load_yaml,
    parse_json_text,
    parse_yaml,
    printable,
    printable_lines,
)
from fastamr.errors import naming, shortened

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{one}: &{one} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, one in zip("abcdefg", "bcdefgh", strict=True)
)


def test_plain_values() -> None:
    found = {"a": 0.001, "b": [1, "x", None], "c": {"d": 2}, "e": {"d": 2}}
    assert parse_yaml("a: 1e-3\nb: [1, x, null]\nc: &c {d: 2}\ne: *c\n", "x") == found
    assert parse_yaml("", "x") is None
    assert parse_json_text('{"a": [1]}', "x") == {"a": [1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "more than 20000 values, with its aliases written out"),
        ("a: &a [*a]", "an alias stands for a value that holds it"),
        ("[" * 5000, f"nested more than {MAX_NESTING} deep"),
        ("{? " * 3000, f"nested more than {MAX_NESTING} deep"),
        (f"{'9' * 30}: 1", "a key of 30 digits"),
        ("a: " + "9" * 5000, "no YAML"),
        ("2001-99-99: x", "no YAML"),
        ("[1]: 2", "no YAML"),
        ("!!python/object/apply:os.system [ls]", "no YAML"),
        ("a: '", "no YAML"),
        ("a: \x07", "no YAML"),
        ("x" * (MAX_YAML_BYTES + 1), "more than the 1048576 that settings may have"),
        ("{" + ",".join(f"a{key}: 0" for key in range(60_000)) + "}", "more than 20000 values"),
        ("- x\n" * 200_000, "more than 20000 values"),
    ],
)
def test_hostile_yaml_is_refused_at_once(text: str, message: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match=message) as error:
        parse_yaml(text, "some.yaml")
    assert "some.yaml" in str(error.value)
    assert len(str(error.value)) < 500
    assert time.process_time() - start < 2


@pytest.mark.parametrize("text", ["[" * 100_000, "{", b"\xff\xfe", "9" * 5000, '{"a": tru}'])
def test_hostile_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"some\.json"):
        parse_json_text(text, "some.json")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: \xff")
    for load in (load_yaml, load_json_text):
        with pytest.raises(ValueError, match=r"a\.yaml, byte 3: not in UTF-8"):
            load(path)
        with pytest.raises(FileNotFoundError):
            load(tmp_path / "no.yaml")
    path.write_bytes(b"\xef\xbb\xbfa: \xc3\xa4")
    assert load_yaml(path) == {"a": "ä"}


@given(st.text())
def test_shown_text_moves_nothing_and_can_be_encoded(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert not any(sign in shown for sign in "\x1b\x07\n\r\x9b\u202e\u2028")
    assert printable_lines(text).count("\n") == text.count("\n")
    assert json.loads(json.dumps(text)) == text


def test_what_is_harmless_stays() -> None:
    assert printable("Händeschütteln 抱擁 <b> 5 %") == "Händeschütteln 抱擁 <b> 5 %"
    assert printable("a\x1b[31mb\nc\udcff") == r"a\x1b[31mb\x0ac\udcff"


def test_errors_name_the_file() -> None:
    for error in (
        KeyError("x"),
        OverflowError("big"),
        MemoryError(),
        RecursionError(),
        ZeroDivisionError("by zero"),
    ):
        with (
            pytest.raises(ValueError, match=r"^some\.file .*fetch or write the file again") as found,
            naming("some.file"),
        ):
            raise error
        assert found.value.__cause__ is error
    with pytest.raises(ValueError, match=r"^some\.file: 5 is no name$"), naming("some.file"):
        raise ValueError("5 is no name")
    with pytest.raises(ValueError, match=r"^in some\.file$"), naming("some.file"):
        raise ValueError("in some.file")
    with pytest.raises(PermissionError), naming("some.file"):
        raise PermissionError


def test_values_are_shown_short() -> None:
    nested: list[object] = ["x" * 10_000]
    for _ in range(50):
        nested = [nested] * 9
    assert len(shortened(nested)) == 200
    assert shortened("abc") == "'abc'"
