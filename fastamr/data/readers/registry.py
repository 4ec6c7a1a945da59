"""Converting foreign files to the packed format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...errors import check_name
from ...files import check_writable, make_folder
from ...skeleton import SkeletonLayout
from ..packed.dataset import PackedSkeletons, Summary
from ..preprocessing.apply import parse_steps, preprocess
from ..preprocessing.geometry import Step
from ..preprocessing.presets import preset_steps
from . import coco_json, csv, npz_ctrgcn, npz_packed, nw_ucla_json, pyskl
from .common.json_text import load_json
from .common.npz import member_names

_NPZ = (npz_packed, npz_ctrgcn)
_DTYPES = ("float32", "float16")
_KINDS = ".npz, .pkl (PYSKL), .json (COCO key points, AlphaPose, a clip of NW-UCLA), .csv"


def import_file(
    path: str | Path,
    out: str | Path,
    *,
    steps: Iterable[str | Mapping[str, Any] | Step] = (),
    preset: str | None = None,
    dtype: str = "float32",
    layout: str | SkeletonLayout | None = None,
    min_confidence: float | None = None,
) -> Summary:
    """Convert a file to the packed format; see :func:`read_file` for the kinds of files.

    Args:
        path: the file.
        out: the packed file to write, by custom ``*.safetensors``; folders above it are made.
        steps: pre-processing to apply, see :func:`~fastamr.data.preprocessing.apply.parse_steps`.
        preset: a recipe whose steps are applied before, see :data:`~fastamr.data.preprocessing.presets.PRESETS`.
        dtype: ``"float32"``, or ``"float16"`` for centred data.
        layout: the skeleton of a file that does not tell it.
        min_confidence: joints below it are marked as not seen; None = those of confidence 0.

    Returns:
        The summary of what was written; it prints as one line per fact.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: ``out`` cannot be written.
        ValueError: an unknown kind of file, step, preset or dtype, or unsound data (which clip, which frame).
    """
    path, steps = Path(path), (*parse_steps(preset_steps(preset)), *parse_steps(steps))
    check_name("dtype", dtype, _DTYPES)
    check_writable(out)
    data = preprocess(read_file(path, layout=layout, min_confidence=min_confidence), steps)
    if dtype == "float16":
        data = data.half()
    data.save(make_folder(out))
    return data.summary()


def read_file(
    path: str | Path,
    *,
    layout: str | SkeletonLayout | None = None,
    min_confidence: float | None = None,
) -> PackedSkeletons:
    """Read a foreign file into memory. Its kind is told from its ending, and from what it holds.

    Args:
        path: ``.npz`` of the layout of :mod:`~fastamr.data.readers.npz_packed` or of MAMP and CTR-GCN; ``.pkl`` of
            PYSKL; ``.json`` with COCO-style key points, or a clip of NW-UCLA; ``.csv`` or ``.tsv``.
        layout: the skeleton of a file that does not tell it; None guesses from the joints' names or number.
        min_confidence: joints below it are marked as not seen; None = those of confidence 0.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no reader knows the file, it is damaged, or an option does not apply to its kind.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(
            f"{path} is a folder; read a data set's raw files with: fastamr prepare KIND {path} OUT"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} to import")
    ending = path.suffix.lower()
    options: dict[str, Any] = {"layout": layout, "min_confidence": min_confidence or 0.0}
    if ending in (".pkl", ".pickle"):
        return pyskl.read(path, **options)
    if ending in (".csv", ".tsv"):
        return csv.read(path, **options)
    if ending == ".json":
        document = load_json(path)
        if coco_json.matches(document):
            return coco_json.from_document(document, path, **options)
    given = {"layout": layout, "min_confidence": min_confidence}
    for name, value in given.items():
        if value is not None and ending in (".npz", ".json"):
            raise ValueError(f"{name} is {value!r}, but {path} tells it itself; leave {name} out")
    if ending == ".npz":
        return _read_npz(path)
    if ending == ".json" and nw_ucla_json.matches(document):
        return nw_ucla_json.from_document(document, path)
    if ending == ".json":
        raise ValueError(f"{path} holds neither 'annotations' nor a list of key points nor 'skeletons'")
    raise ValueError(
        f"{path} ends in {ending or 'nothing'!r}, expected {_KINDS}; rename the file if it is of one"
    )


def _read_npz(path: Path) -> PackedSkeletons:
    keys = member_names(path)
    for reader in _NPZ:
        if reader.matches(keys):
            return reader.read(path)
    kinds = " or ".join(", ".join(reader.REQUIRED) for reader in _NPZ)
    raise ValueError(f"{path} holds the arrays {', '.join(sorted(keys)) or 'none'}; expected {kinds}")
