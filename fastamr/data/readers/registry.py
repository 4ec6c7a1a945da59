"""The one list of formats, and which of them a source is. A new format is a file beside these and a line here."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import check_name, naming
from ...files import check_plain
from . import own
from .array_files import mat, npy, npz_ctrgcn, npz_motion, npz_packed, pyskl, stgcn
from .common.reader import Reader, Reading, Source
from .json_files import coco, nw_ucla
from .mocap import bvh, c3d_markers
from .own import SYNTHETIC
from .pose_tools import azure, kinetics, mediapipe, mmpose, openpose, yolo, yolo_text
from .raw_sets import ntu, pku
from .raw_sets.raw import RawSet
from .tables import csv, msr_action3d

READERS: list[Reader | RawSet] = [
    *ntu.SETS,
    *pku.SETS,
    *own.READERS,
    npz_packed.READER,
    npz_ctrgcn.READER,
    npz_motion.READER,
    *stgcn.READERS,
    npy.READER,
    pyskl.READER,
    yolo_text.READER,
    kinetics.READER,
    openpose.READER,
    azure.READER,
    mmpose.READER,
    yolo.READER,
    mat.READER,
    nw_ucla.READER,
    mediapipe.READER,
    coco.READER,
    csv.READER,
    msr_action3d.READER,
    bvh.READER,
    c3d_markers.READER,
    ntu.READER,
]
"""Every format. Of those that a source may have, the first is asked first."""


def register_reader(reader: Reader | RawSet) -> None:
    """Add a format; it is asked before those that are there."""
    READERS.insert(0, reader)


def kinds() -> dict[str, str]:
    """Return every kind of data, and what each is made from, in words."""
    texts: dict[str, list[str]] = {}
    for reader in READERS:
        texts.setdefault(reader.name, []).append(reader.text)
    return {name: "; ".join(parts) for name, parts in texts.items()}


def of_kind(kind: str | None) -> list[Reader | RawSet]:
    """Return the formats of a kind; None = all.

    Raises:
        ValueError: there is no such kind (with the nearest name).
    """
    if kind is not None:
        check_name("kind", kind, kinds())
    return [reader for reader in READERS if kind in (None, reader.name)]


def endings() -> str:
    """Return the endings of all files that are read, with what they hold: ``.npz, .pkl (PYSKL), ...``."""
    titles: dict[str, list[str]] = {}
    for reader in READERS:
        if isinstance(reader, Reader) and reader.suffixes:
            titles.setdefault(reader.suffixes[0], []).extend(filter(None, [reader.title]))
    return ", ".join(
        f"{suffix} ({', '.join(names)})" if names else suffix for suffix, names in titles.items()
    )


class UnknownFormatError(ValueError):
    """No reader knows a source."""


def read_source(path: str | Path, *, kind: str | None = None, **options: Any) -> Reading:
    """Read a file or a folder in one go.

    Args:
        path: where it is, or the word ``"synthetic"``.
        kind: its kind, so that its ending need not tell; None finds it by the ending and by what the source holds.
        options: of the reader, by name; None = its default.

    Raises:
        FileNotFoundError: there is nothing.
        UnknownFormatError: no reader knows the source; it is a ``ValueError``.
        ValueError: it is damaged, or an option does not apply to its kind.
    """
    source, given = Source(path), {name: value for name, value in options.items() if value is not None}
    return read_with(find_reader(source, kind, given), source, given)


def find_reader(source: Source, kind: str | None = None, given: Mapping[str, Any] | None = None) -> Reader:
    """Return the reader of a file or a folder.

    Args:
        source: where it is.
        kind: see :func:`read_source`.
        given: options that it must take; those that no reader takes are refused before the source is looked into.

    Raises:
        FileNotFoundError: there is nothing.
        UnknownFormatError: no reader knows the source; it is a ``ValueError``.
        ValueError: it is damaged, or an option does not apply to its kind.
    """
    path, given = str(source.path), given or {}
    is_typo = path != SYNTHETIC and difflib.get_close_matches(path, [SYNTHETIC], cutoff=0.7)
    if is_typo and not source.path.exists():
        raise FileNotFoundError(f"no data file {path}; did you mean {SYNTHETIC!r}?")
    readers = [reader for reader in of_kind(kind) if isinstance(reader, Reader)]
    if kind is None:
        readers = [reader for reader in readers if reader.fits(source)]
        if all(reader.suffixes for reader in readers):
            source.check()
    _check_options(readers, given, source)
    check_plain(source.path)
    # Where there is no choice, a reader's own errors say more.
    is_told = kind is not None and len(readers) == 1
    with naming(source.path):
        found = next((reader for reader in readers if is_told or reader.sniff(source)), None)
    if found is None:
        raise _unknown(source, readers)
    _check_options([found], given, source)
    return found


def read_with(reader: Reader, source: Source, given: Mapping[str, Any]) -> Reading:
    """Read a source; errors name it.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with naming(source.path):
            return reader.read(source, **given)
    except ValueError as error:
        if str(source.path) in str(error):
            raise
        raise ValueError(f"{source.path}: {error}") from error


def _check_options(readers: Sequence[Reader], given: Mapping[str, Any], source: Source) -> None:
    """Refuse an option that none of some readers takes."""
    for name, value in given.items():
        if readers and not any(name in reader.options for reader in readers):
            raise ValueError(
                f"{name} is {value!r}, but it is read from {source.path}; omit --{name.replace('_', '-')}"
            )


def _unknown(source: Source, readers: Sequence[Reader]) -> UnknownFormatError:
    """Return the error for a source that is of no known kind, though its ending may fit some readers."""
    path = source.path
    if path.is_dir():
        return UnknownFormatError(
            f"{path} is a folder; read a data set's raw files with: fastamr prepare KIND {path} OUT"
        )
    if source.is_folder or not readers:
        return UnknownFormatError(
            f"{path} ends in {source.ending or 'nothing'!r}, expected {endings()}; rename the file if it is of one"
        )
    parts = [part for reader in readers for part in reader.holds or (reader.title or reader.name,)]
    if source.seen:
        return UnknownFormatError(f"{path} holds {source.seen}; expected {' or '.join(parts)}")
    if source.ending == ".txt":
        parts[-1] += (
            "; numbers of another tool become a table by a line of names, frame, joint, x, y[, z], as .csv"
        )
    verb = "holds neither" if len(parts) > 1 else "does not hold"
    return UnknownFormatError(f"{path} {verb} {' nor '.join(parts)}")
