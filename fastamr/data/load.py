"""Opening a data set, whatever it is given as."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from .packed.concatenate import concatenate
from .packed.dataset import PackedSkeletons
from .readers.registry import import_file, read_file

__all__ = ["SYNTHETIC", "Source", "concatenate", "import_file", "load", "read_file"]

SYNTHETIC = "synthetic"
"""The word that stands for generated motion instead of a file."""

Source: TypeAlias = str | Path | PackedSkeletons
"""What :func:`load` opens: a packed file, a data set, or the word ``"synthetic"``."""


def load(source: Source | Sequence[Source]) -> PackedSkeletons:
    """Open a data set.

    Args:
        source: a packed file, a data set (returned as it is), the word ``"synthetic"`` for generated motion with
            its defaults, or a list of these, which :func:`concatenate` joins.

    Returns:
        The data set on the CPU; a single file is memory-mapped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is not packed data, the list is empty, or the sets do not fit together.
    """
    if isinstance(source, PackedSkeletons):
        return source
    if not isinstance(source, (str, Path)):
        return concatenate([load(item) for item in source])
    if source == SYNTHETIC:
        from .synthetic.dataset import synthetic_actions

        return synthetic_actions()
    path = Path(source)
    if not path.exists() and difflib.get_close_matches(str(source), [SYNTHETIC], cutoff=0.7):
        raise FileNotFoundError(f"no data file {path}; did you mean {SYNTHETIC!r}?")
    return PackedSkeletons.load(path)
