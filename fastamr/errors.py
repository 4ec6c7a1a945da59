"""Error messages that name the argument, its value, what is expected and the next step."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """A wrong command, option or value on the command line."""


def unknown_name(what: str, value: object, known: Iterable[str]) -> ValueError:
    """Build the error for a name that is not in a list, with the nearest valid one.

    Args:
        what: the argument's name, for example ``"layout"``.
        value: what the caller passed.
        known: the valid names.

    Returns:
        A ``ValueError`` to raise.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"unknown {what} {value!r}: expected one of {', '.join(map(repr, names))}{hint}")


def check_name(what: str, value: object, known: Iterable[str]) -> None:
    """Raise :func:`unknown_name` unless ``value`` is one of ``known``."""
    known = tuple(known)
    if value not in known:
        raise unknown_name(what, value, known)
