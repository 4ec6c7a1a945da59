"""The command line that asks for a configuration again, as reports keep it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any


def shell_command(command: str, settings: Mapping[str, Any]) -> str:
    """Return the words of ``fastamr COMMAND``, quoted for a shell.

    Args:
        command: its name.
        settings: by the names of the dataclass; mappings in it become ``--PART.NAME``, and None is left out.
    """
    return shlex.join(["fastamr", command, *_options("", settings)])


def _options(part: str, settings: Mapping[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        option = f"{part}{name}".replace("_", "-")
        if isinstance(value, Mapping):
            yield from _options(f"{part}{name}.", value)
        elif value is None and not part:
            continue  # left to the command
        elif isinstance(value, bool):
            yield f"--{option}" if value else f"--no-{option}"
        else:
            yield f"--{option}"
            yield from (_word(one) for one in (value if isinstance(value, (list, tuple)) else [value]))


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
