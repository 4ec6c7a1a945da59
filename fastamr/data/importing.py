"""Converting foreign files to the packed format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import check_name
from .packed import PackedSkeletons, Summary
from .preprocess import parse_steps, preprocess
from .readers import npz_ctrgcn, npz_packed
from .readers.npz import member_names
from .steps import Step

_READERS = (npz_packed, npz_ctrgcn)
_DTYPES = ("float32", "float16")


def import_file(
    path: str | Path,
    out: str | Path,
    *,
    steps: Iterable[str | Mapping[str, Any] | Step] = (),
    dtype: str = "float32",
) -> Summary:
    """Convert a file to the packed format; its kind is told from the arrays it holds.

    Args:
        path: an npz archive: the layout of :mod:`~fastamr.data.readers.npz_packed`, or that of MAMP and CTR-GCN.
        out: the packed file to write, by custom ``*.safetensors``.
        steps: pre-processing to apply, see :func:`~fastamr.data.preprocess.parse_steps`.
        dtype: ``"float32"``, or ``"float16"`` for centred data.

    Returns:
        The summary of what was written; it prints as one line per fact.

    Raises:
        FileNotFoundError: there is no such file, or no folder to write into.
        ValueError: an unknown kind of file, step or dtype, or unsound data (which clip, which frame).
    """
    path, steps = Path(path), parse_steps(steps)
    check_name("dtype", dtype, _DTYPES)
    if not Path(out).parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {out}: folder {Path(out).parent} does not exist; create it first"
        )
    data = preprocess(read_file(path), steps)
    if dtype == "float16":
        data = data.half()
    data.save(out)
    return data.summary()


def read_file(path: str | Path) -> PackedSkeletons:
    """Read a foreign file into memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no reader knows the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} to import")
    keys = member_names(path)
    for reader in _READERS:
        if reader.matches(keys):
            return reader.read(path)
    kinds = " or ".join(", ".join(reader.REQUIRED) for reader in _READERS)
    raise ValueError(f"{path} holds the arrays {', '.join(sorted(keys)) or 'none'}; expected {kinds}")
