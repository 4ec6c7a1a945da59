"""How two evaluations of one encoder differ: their settings, in a few words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ..protocols.config import PARTS, EvaluateConfig

# Shown elsewhere in a table, or without influence on the values.
_NOT_SHOWN = ("checkpoint", "fuse", "data", "split", "out", "batch_size", "device", "cache")


def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of an evaluation as text, those that were left out at their defaults.

    Args:
        config: ``config`` of a report, as it was read from JSON; the settings of its parts become ``PART.NAME``.
    """
    values = {
        name: value
        for name, value in (_defaults(EvaluateConfig) | dict(config)).items()
        if name not in (*_NOT_SHOWN, *PARTS)
    }
    for part, kind in PARTS.items():
        given = _defaults(kind) | dict(config.get(part, {}))
        values |= {f"{part}.{name}": value for name, value in given.items()}
    return {name: _text(value) for name, value in values.items()}


def differences(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Return for each evaluation the settings in which they differ, as ``bodies=field, seeds=0 1``.

    Args:
        settings: of evaluations that stand in a table under one name; all of them have the same keys, or lack some.
    """
    names = dict.fromkeys(name for one in settings for name in one)
    differing = [name for name in names if len({one.get(name) for one in settings}) > 1]
    return [", ".join(f"{name}={one.get(name, '-')}" for name in differing) for one in settings]


def _defaults(kind: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in dataclasses.fields(kind):
        if item.default is not dataclasses.MISSING:
            found[item.name] = item.default
        elif item.default_factory is not dataclasses.MISSING:
            found[item.name] = item.default_factory()
    return found


def _text(value: Any) -> str:
    """A value as on the command line."""
    if isinstance(value, list | tuple):
        return " ".join(map(_text, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
