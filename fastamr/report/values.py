"""Values of files that anybody may have written: each is what it should be, or the error says what it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import shortened

LARGEST = 1e15
"""No time, size or count of a report is larger (choice)."""


def mapping(value: object, what: str) -> dict[str, Any]:
    """Return a mapping with texts as names.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{what} is {shortened(value)}, expected names with values")
    return value


def listing(value: object, what: str) -> list[Any]:
    """Return a list.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, list):
        raise ValueError(f"{what} is {shortened(value)}, expected a list")
    return value


def text(value: object, what: str) -> str:
    """Return a text.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str):
        raise ValueError(f"{what} is {shortened(value)}, expected a text")
    return value


def number(value: object, what: str) -> float:
    """Return a finite number of at most :data:`LARGEST`, either sign.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        raise ValueError(f"{what} is {shortened(value)}, expected a number of at most {LARGEST:g}")
    return float(value)


def positive(value: object, what: str) -> float:
    """Return a number above 0.

    Raises:
        ValueError: it is none.
    """
    found = number(value, what)
    if found <= 0:
        raise ValueError(f"{what} is {found:g}, expected more than 0")
    return found


def maybe(value: object) -> float | None:
    """Return a number, or None for what is none: a value that a page leaves out where it is not known."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) <= LARGEST else None  # NaN is not


def plain(value: object) -> str:
    """Return a value of JSON or YAML as it is typed, lists with spaces; long ones are cut."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else str(value)
    if isinstance(value, list):
        return _cut(" ".join(map(plain, value[:100]))) or "none"
    if isinstance(value, dict):
        return _cut(", ".join(f"{name}={plain(one)}" for name, one in list(value.items())[:100])) or "none"
    return _cut(str(value)) if not isinstance(value, int) or abs(value) < 10**30 else shortened(value)


def flat(values: Mapping[str, Any], part: str = "") -> dict[str, str]:
    """Return settings as texts, those of a part as ``PART.NAME``."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{part}{name}.")
        else:
            found[f"{part}{name}"] = plain(value)
    return found


def _cut(words: str, most: int = 200) -> str:
    return words if len(words) <= most else f"{words[: most - 3]}..."
