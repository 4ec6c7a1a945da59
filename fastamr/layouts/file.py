"""A skeleton layout of one's own, from a YAML or JSON file."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..documents import load_json_text, load_yaml
from ..errors import unknown_name

ENDINGS = (".yaml", ".yml", ".json")
"""How the name of a layout's file ends."""

_FIELDS = ("name", "joints", "parents", "pairs", "hips", "spine")


def is_layout_file(name: str) -> bool:
    """Say whether a layout's name is the path of a file."""
    return name.lower().endswith(ENDINGS)


def read_layout_file(path: str | Path) -> dict[str, Any]:
    """Read the fields of a layout: joints and parents as indices, the others where they are given.

    The file holds ``name``, ``joints`` (names in the order of the coordinates) and ``parents`` (for each joint the name
    or the index of its parent, counted from 0, ``null`` or ``-1`` for the root); ``pairs`` (left, right), ``hips``
    (left, right) and ``spine`` (lower, upper) are optional and hold names or indices.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no YAML or JSON, or a field is missing, unknown or wrong (which, and an example).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"layout {str(path)!r}: there is no such file; fastamr layouts lists the built-in names"
        )
    fields = _parsed(path)
    if not isinstance(fields, dict):
        raise _wrong(path, "", fields, "name, joints and parents")
    for field in fields:
        if field not in _FIELDS:
            raise ValueError(f"layout file {path}: {unknown_name('field', field, _FIELDS)}")
    for field in _FIELDS[:3]:
        if field not in fields:
            raise ValueError(f"layout file {path}: field {field!r} is missing, {_example()}")
    if not isinstance(fields["name"], str) or not fields["name"].strip():
        raise _wrong(path, "name", fields["name"], "a word")
    joints = _joints(path, fields["joints"])
    index = _index(path, joints)
    parents = fields["parents"]
    if not isinstance(parents, list) or len(parents) != len(joints):
        count = f"{len(parents)} entries" if isinstance(parents, list) else reprlib.repr(parents)[:60]
        raise ValueError(
            f"layout file {path}: field 'parents' has {count}, expected {len(joints)}, one for each joint, {_example()}"
        )
    found: dict[str, Any] = {"name": fields["name"].strip(), "joints": joints}
    found["parents"] = [-1 if parent in (None, -1) else index(parent, "parents") for parent in parents]
    for field in ("hips", "spine"):
        if fields.get(field) is not None:
            found[field] = _pair(path, field, fields[field], index)
    if fields.get("pairs") is not None:
        if not isinstance(fields["pairs"], list):
            raise _wrong(path, "pairs", fields["pairs"], "a list of pairs [left, right]")
        found["pairs"] = [_pair(path, "pairs", pair, index) for pair in fields["pairs"]]
    return found


def _parsed(path: Path) -> Any:
    try:
        return load_json_text(path) if path.suffix.lower() == ".json" else load_yaml(path)
    except ValueError as error:
        raise ValueError(f"layout file {path}: no sound YAML or JSON: {error}") from None


def _joints(path: Path, joints: Any) -> list[str]:
    if not isinstance(joints, list) or not joints:
        raise _wrong(path, "joints", joints, "a list of names")
    for joint in joints:
        if not isinstance(joint, str) or not joint.strip():
            raise _wrong(path, "joints", joint, "names, in quotes where they are numbers")
    twice = sorted(joint for joint, count in Counter(joints).items() if count > 1)
    if twice:
        raise ValueError(
            f"layout file {path}: field 'joints' holds {twice[0]!r} more than once; name each joint once"
        )
    return joints


def _index(path: Path, joints: Sequence[str]) -> Callable[[Any, str], int]:
    places = {joint: place for place, joint in enumerate(joints)}

    def index(joint: Any, field: str) -> int:
        if isinstance(joint, str):
            if joint not in places:
                raise ValueError(
                    f"layout file {path}: field {field!r}: {unknown_name('joint', joint, joints)}"
                )
            return places[joint]
        if isinstance(joint, bool) or not isinstance(joint, int) or not 0 <= joint < len(joints):
            raise _wrong(path, field, joint, f"names of joints, or indices from 0 to {len(joints) - 1}")
        return joint

    return index


def _pair(path: Path, field: str, pair: Any, index: Callable[[Any, str], int]) -> tuple[int, int]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise _wrong(path, field, pair, "two joints, as [left_hip, right_hip]")
    return index(pair[0], field), index(pair[1], field)


def _wrong(path: Path, field: str, value: Any, expected: str) -> ValueError:
    what = f"field {field!r} holds" if field else "it holds"
    return ValueError(
        f"layout file {path}: {what} {reprlib.repr(value)[:60]}, expected {expected}, {_example()}"
    )


def _example() -> str:
    return "for example 'name: mine', 'joints: [hip, chest, head]', 'parents: [null, hip, chest]'"
