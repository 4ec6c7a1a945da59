"""Writers of tables in the dialects of people and tools, for tests only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def write_rows(
    path: Path,
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
    separator: str = ",",
    encoding: str = "utf-8",
) -> Path:
    """A line of names, then rows."""
    lines = [separator.join(header), *(separator.join(map(str, row)) for row in rows)]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return path


def write_wide(
    path: Path,
    coords: np.ndarray,
    name: Callable[[int, str], str],
    before: dict[str, Callable[[int], Any]] | None = None,
    score: str = "",
    **how: Any,
) -> Path:
    """A row a frame of one body ``(T, V, C)``; ``name`` makes a column's name of joint and axis."""
    before = {"frame": lambda frame: frame} if before is None else before
    axes = ["x", "y", "z"][: coords.shape[2]]
    header = [*before]
    for joint in range(coords.shape[1]):
        header += [name(joint, axis) for axis in [*axes, *([score] if score else [])]]
    rows = []
    for frame, pose in enumerate(coords):
        row = [make(frame) for make in before.values()]
        for point in pose:
            row += [f"{value:.4f}" for value in point] + ["0.9"] * bool(score)
        rows.append(row)
    return write_rows(path, header, rows, **how)


def write_dlc(path: Path, bodies: dict[str, np.ndarray], joints: Sequence[str]) -> Path:
    """The lines of names of DeepLabCut; one body without a name, or several ``(T, V, 2)``."""
    columns = [
        (body, joint, value) for body in bodies for joint in joints for value in ("x", "y", "likelihood")
    ]
    lines = [["scorer", *["net"] * len(columns)]]
    lines += [["individuals", *(column[0] for column in columns)]] if "" not in bodies else []
    lines += [
        ["bodyparts", *(column[1] for column in columns)],
        ["coords", *(column[2] for column in columns)],
    ]
    frames = len(next(iter(bodies.values())))
    for frame in range(frames):
        cells = [np.c_[points[frame], np.full(len(joints), 0.9)].ravel() for points in bodies.values()]
        lines.append([str(frame), *(f"{value:.4f}" for value in np.concatenate(cells))])
    return write_rows(path, lines[0], lines[1:])
