"""Opening and reading data, whatever it is given as."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from ..documents import printable
from ..errors import check_name
from ..files import make_folder
from ..progress import say as print_line
from ..skeleton import SkeletonLayout
from .labelling.labels import label_clips, means_folders
from .packed.concatenate import concatenate
from .packed.dataset import PackedSkeletons, Summary
from .packed.file import check_packed_target
from .preprocessing.apply import parse_steps, preprocess
from .preprocessing.geometry import Step
from .preprocessing.presets import preset_steps
from .readers.folders import is_folder_of_files, read_files
from .readers.own import SYNTHETIC
from .readers.registry import read_source

__all__ = ["SYNTHETIC", "Source", "concatenate", "import_file", "load", "read", "read_file"]

Source: TypeAlias = str | Path | PackedSkeletons
"""What :func:`load` opens: a packed file, a data set, or the word ``"synthetic"``."""

_DTYPES = ("float32", "float16")


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
    return read_source(source, kind=SYNTHETIC if source == SYNTHETIC else "packed").data


def read(
    source: str | Path | Sequence[str | Path],
    *,
    kind: str | None = None,
    layout: str | SkeletonLayout | None = None,
    min_confidence: float | None = None,
    fps: float | None = None,
    track: bool | None = None,
    markers: str | Path | None = None,
    say: Callable[[str], None] | None = None,
) -> PackedSkeletons:
    """Read files or folders of any kind that a reader knows (see :mod:`~fastamr.data.readers`).

    Args:
        source: a packed file, which is memory-mapped; a foreign file or folder; the word ``"synthetic"``; or a list of
            files and folders. Several files, and a folder that is no format of its own, become one data set, see
            :func:`~fastamr.data.readers.folders.read_files`.
        kind: its kind, one of :func:`~fastamr.data.readers.registry.kinds`; None tells it from the ending, and from
            what the source holds.
        layout: the skeleton of a file that does not name it; None guesses from the joints' names or number.
        min_confidence: joints below it are marked as not seen; None = those of confidence 0.
        fps: frames a second of clips that do not tell; None = unknown.
        track: link people from frame to frame where the source tells no tracks (None = True); False refuses it.
        markers: the YAML file that says which joints the markers of a C3D file make up.
        say: takes each line that a person should know of how the source was understood; None = standard error.

    Returns:
        The clips on the CPU; ``dropped`` lists what was left out, and why.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no reader knows the source, it is damaged, or an option does not apply to its kind or is out of
            range.
    """
    options = {"layout": layout, "min_confidence": min_confidence, "track": track, "markers": markers}
    return _read(source, kind=kind, fps=fps, say=say, without=(), **options)


def _read(
    source: str | Path | Sequence[str | Path],
    *,
    kind: str | None = None,
    fps: float | None = None,
    say: Callable[[str], None] | None = None,
    without: Iterable[str | Path],
    **options: Any,
) -> PackedSkeletons:
    """Read what :func:`read` reads; files that are to be passed over are named by ``without``."""
    if fps is not None and not 0 < fps < float("inf"):
        raise ValueError(f"fps={fps} must be a positive number of frames per second")
    paths = [source] if isinstance(source, (str, Path)) else list(source)
    if not paths:
        raise ValueError("source is an empty list, expected at least one file or folder")
    if len(paths) > 1 or is_folder_of_files(paths[0], kind):
        reading = read_files(paths, kind=kind, without=without, **options)
    else:
        reading = read_source(paths[0], kind=kind, **options)
    data = reading.data
    for note in reading.notes:
        (say or print_line)(printable(f"note: {note}"))
    return data if fps is None else dataclasses.replace(data, fps=torch.where(data.fps > 0, data.fps, fps))


read_file = read
"""The former name of :func:`read`."""


def import_file(
    path: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    steps: Iterable[str | Mapping[str, Any] | Step] = (),
    preset: str | None = None,
    dtype: str = "float32",
    labels: str | Path | None = None,
    **options: Any,
) -> Summary:
    """Convert files or folders to the packed format; see :func:`read` for what is read.

    Args:
        path: the file or folder, or a list of them; ``out`` is not read where it lies in one.
        out: the packed file to write, by custom ``*.safetensors``; folders above it are made.
        steps: pre-processing to apply, see :func:`~fastamr.data.preprocessing.apply.parse_steps`.
        preset: a recipe whose steps are applied before, see :data:`~fastamr.data.preprocessing.presets.PRESETS`.
        dtype: ``"float32"``, or ``"float16"`` for centred data.
        labels: where the clips' classes are, see :func:`label_clips`; None = what the files say.
        options: how it is read, see :func:`read`.

    Returns:
        The summary of what was written; it prints as one line per fact.

    Raises:
        FileNotFoundError: there is no such file.
        FileExistsError: ``out`` is one of the files that are read, or holds something else than packed data.
        OSError: ``out`` cannot be written.
        ValueError: an unknown kind of file, step, preset or dtype, or unsound data (which clip, which frame).
    """
    parsed = (*parse_steps(preset_steps(preset)), *parse_steps(steps))
    check_name("dtype", dtype, _DTYPES)
    sources = [path] if isinstance(path, (str, Path)) else list(path)
    check_packed_target(out, *sources, labels, options.get("markers"))
    table = [] if labels is None or means_folders(labels) else [labels]
    data = _read(path, without=[out, *table], **options)
    if labels is not None:
        data = label_clips(data, labels, say=options.get("say"))
    data = preprocess(data, parsed)
    if dtype == "float16":
        data = data.half()
    data.save(make_folder(out))
    return data.summary()
