"""What the tests of pose tools share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastamr.data import PackedSkeletons, read


def read_all(path: Path, **options: Any) -> tuple[PackedSkeletons, str]:
    """Read, and return the notes, too."""
    notes: list[str] = []
    data = read(path, say=notes.append, **options)
    return data, "\n".join(notes)
