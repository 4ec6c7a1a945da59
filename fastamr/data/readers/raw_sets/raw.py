"""What the readers of raw files have in common: their tasks, their clips, and what they say of a source."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from ...packed.dataset import PackedSkeletons
from ..common.reader import Damage
from ..common.sources import Entry, Listing


@dataclass(frozen=True)
class Task:
    """What is read in one go: a file, or a file with the one that belongs to it.

    Args:
        name: what it is called, for example the clip's name.
        entries: the files; damage is reported of the first one.
    """

    name: str
    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)


@dataclass
class RawClip:
    """A clip as a reader returns it.

    Args:
        name: its name.
        coords: ``(T, M, V, C)`` float32, metres, zeros where a body is absent.
        label: class index, -1 = unknown.
        columns: the clip's values; every clip of a reader has the same ones.
        valid: ``(T, M, V)`` bool, or None.
        note: something that was mended, or "".
        bad: why the clip must be dropped, or "".
        frame_labels: ``(T,)`` class of each frame, -1 = no action, -2 = unknown; None where the reader has none.
    """

    name: str
    coords: np.ndarray
    label: int
    columns: dict[str, float]
    valid: np.ndarray | None = None
    note: str = ""
    bad: str = ""
    frame_labels: np.ndarray | None = None


@dataclass
class Found:
    """What a reader found in a source.

    Args:
        tasks: what to read, in the order of the clips.
        finish: adds the splits, and columns that need all clips, to the joined data set.
        damaged: files that cannot even be assigned.
        left_out: file and reason of those that do not belong to the data set, or that were not asked for.
        dropped: clip and reason of those that are known to be bad.
        notes: what the user should know.
    """

    tasks: list[Task]
    finish: Callable[[PackedSkeletons], PackedSkeletons]
    damaged: list[Damage] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class RawReader(Protocol):
    """A reader of raw files; a frozen dataclass, because it is sent to worker processes and compared on a restart."""

    suffixes: ClassVar[tuple[str, ...]]
    layout: ClassVar[str]
    fps: ClassVar[float]
    column_names: ClassVar[dict[str, tuple[str, ...]]]

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes."""

    @property
    def notes(self) -> tuple[dict[str, Any], ...]:
        """What the header records of how the files were read, each with the name ``"note"``."""

    def find(self, listing: Listing) -> Found:
        """Say what to read in a source.

        Raises:
            ValueError: nothing in it is of this data set.
        """

    def read(self, task: Task) -> list[RawClip]:
        """Read a task.

        Raises:
            DamagedFile: a file cannot be used.
        """


@dataclass(frozen=True)
class RawSet:
    """A data set of many raw files, which ``fastamr prepare`` reads in parallel.

    Args:
        name: its kind.
        reader: the class of its reader, a frozen dataclass; its fields but the first are the options.
        variant: the reader's first argument.
        text: what it is made from, for help.
    """

    name: str
    reader: Callable[..., RawReader]
    variant: int
    text: str

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options that the reader takes."""
        return tuple(item.name for item in dataclasses.fields(self.reader))[1:]  # type: ignore[arg-type]


def without_copies(entries: Iterable[Entry], left_out: dict[str, str]) -> list[Entry]:
    """Return files, each base name once; the further ones are added to ``left_out``."""
    kept: dict[str, Entry] = {}
    for entry in entries:
        if entry.base in kept:
            left_out[str(entry)] = f"{kept[entry.base]} has the same name and was taken"
        else:
            kept[entry.base] = entry
    return list(kept.values())
