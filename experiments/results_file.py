"""The JSON lines file that experiments/results.py grows."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_results(path: Path) -> list[dict[str, Any]]:
    """The finished runs; a line that a crash cut short is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{path}: skipped a damaged line ({line[:40]!r}...)", file=sys.stderr)
    return records


def append_result(path: Path, record: Mapping[str, Any]) -> None:
    """Add one line in a single write, on the disk before it returns; what stood there is not touched."""
    with open(path, "ab+") as file:
        torn = file.tell() > 0 and _last_byte(file) != b"\n"
        file.write((("\n" if torn else "") + json.dumps(record) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)
