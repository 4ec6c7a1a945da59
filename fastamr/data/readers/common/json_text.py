"""Reading JSON: errors name the file and the line, and a hostile text costs no more than its size."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Lines(list[Any]):
    """The documents of a text that has one a line (``.jsonl``)."""


def load_json(path: Path) -> Any:
    """Return the content of a JSON file; :class:`Lines` where every line is a document of its own.

    Raises:
        ValueError: the file is empty, truncated, no JSON, or not in UTF-8 (at which line or byte).
    """
    return parse_json(path.read_bytes(), str(path))


def parse_json(content: bytes, where: str) -> Any:
    """Return what a JSON text holds; ``where`` names it in errors.

    Raises:
        ValueError: as :func:`load_json`.
    """
    if not content.strip():
        raise ValueError(f"{where} is empty; fetch the file again")
    try:
        text = content.decode("utf-8-sig")
        return _records(_unwrapped(_parse(text)))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}, line {error.lineno}: no JSON, or truncated ({error.msg}); fetch the file again"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}, byte {error.start}: not in UTF-8; save it in UTF-8") from None
    except RecursionError:
        raise ValueError(f"{where}: brackets are nested too deeply for motion data") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _records(document: Any) -> Any:
    """Return the rows of a table that pandas wrote by columns, or in parts, as objects; other documents as they are."""
    if not isinstance(document, dict):
        return document
    if document.keys() == {"columns", "index", "data"}:
        columns, rows = document["columns"], document["data"]
        if isinstance(columns, list) and isinstance(rows, list):
            are_rows = all(isinstance(row, list) and len(row) == len(columns) for row in rows)
            if are_rows and all(isinstance(name, str) for name in columns):
                return [dict(zip(columns, row, strict=True)) for row in rows]
        return document
    columns = list(document.values())
    if len(columns) < 2 or not all(isinstance(column, dict) for column in columns):
        return document
    numbers_of_rows = list(map(str, range(len(columns[0]))))
    if not numbers_of_rows or not all(list(column) == numbers_of_rows for column in columns):
        return document
    # Frames by number that hold points by number look alike: theirs are numbers on the outside, too.
    if any(name.isdigit() for name in document):
        return document
    return [{name: column[row] for name, column in document.items()} for row in numbers_of_rows]


def _unwrapped(document: Any) -> Any:
    """Return a document whose text, or whose entries, are JSON written as strings, as ``to_json`` returns it."""
    if isinstance(document, str) and document.lstrip()[:1] in ("[", "{"):
        return json.loads(document)
    if isinstance(document, list):
        if document and all(
            isinstance(entry, str) and entry.lstrip()[:1] in ("[", "{") for entry in document
        ):
            parsed = (json.loads(entry) for entry in document)
            return Lines(parsed) if isinstance(document, Lines) else list(parsed)
    elif isinstance(document, dict) and document:
        values = document.values()
        if all(isinstance(entry, str) and entry.lstrip()[:1] in ("[", "{") for entry in values):
            return {key: json.loads(entry) for key, entry in document.items()}
    return document


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        # Only a text whose first line is a whole object or list has one a line.
        if error.msg != "Extra data" or "\n" not in text[: error.pos]:
            raise
    documents, place = Lines(), 0
    for line in text.splitlines(keepends=True):
        if line.strip():
            try:
                documents.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise json.JSONDecodeError(error.msg, text, place + error.pos) from None
        place += len(line)
    return documents


def numbers(value: Any, where: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return nested lists of numbers as float32.

    Args:
        value: the lists.
        where: names them in errors.
        shape: the expected shape, None where any size will do.

    Raises:
        ValueError: lists of unequal length, something that is no number, or another shape.
    """
    expected = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{where}: lists of unequal length, expected {expected}") from None
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{where}: holds something that is no number, expected numbers {expected}")
    fits = array.ndim == len(shape) and all(
        size in (None, found) for size, found in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{where}: shape {array.shape}, expected {expected}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def field(entry: Any, name: str, where: str) -> Any:
    """Return a field of a JSON object.

    Raises:
        ValueError: the entry is no object, or lacks the field.
    """
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}: a {type(entry).__name__}, expected an object with {name!r}")
    if name not in entry:
        raise ValueError(f"{where}: {name!r} is missing")
    return entry[name]


def real(value: Any) -> float | None:
    """Return a number as a finite float; None where it is none, or too large."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def whole(value: Any, where: str, what: str) -> int:
    """Return a number as a whole one; ``what`` names it in errors.

    Raises:
        ValueError: it is no number, or not a whole one.
    """
    number = float(value) if isinstance(value, (int, float)) and abs(value) < 1 << 53 else math.nan
    if isinstance(value, bool) or not number.is_integer():
        raise ValueError(f"{where}: {what} is {str(value)[:60]!r}, expected a whole number")
    return int(number)
