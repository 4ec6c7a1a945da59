"""PKU-MMD I and II: untrimmed streams of the Kinect v2, labels, and lists of the protocols.

``SKELETONS/0002-L.txt`` has a line of 150 numbers a frame: two bodies of 25 joints in x y z, zeros for an absent one.
``LABELS/0002-L.txt`` has a line ``action,start,end,confidence`` for each clip. ``cross-subject.txt`` and
``cross-view.txt`` (``cross_subject_v2.txt``, ``cross_view_v2.txt`` of phase II) name the streams for training and
for testing. The part of a name after the dash is the camera: L, M or R.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from ...packed.dataset import PackedSkeletons, Split
from ...packed.packing import text_codes
from ..common.reader import Damage
from ..common.sources import DamagedFile, Entry, Listing
from ..common.text_numbers import as_float32, read_numbers
from .pku_protocols import ACTIONS, SplitList, read_split_list, split_list_name
from .raw import Found, RawClip, RawSet, Task, without_copies

JOINTS, BODIES, CHANNELS = 25, 2, 3
VIEWS = ("L", "M", "R")
KEEP = ("clips", "streams", "both")
_STREAM = re.compile(r"([A-Za-z0-9]+)-([LMR])")
_ENDING = ".txt"
_LABEL_NUMBERS = 4
_PEEK_BYTES = 256


@dataclass(frozen=True)
class PkuReader:
    """Reads PKU-MMD.

    Args:
        phase: 1 or 2, which lists of the protocols to take where both are there.
        keep: ``"clips"``, the labelled pieces; ``"streams"``, whole, with a label for each frame, for detection and
            pre-training; or ``"both"``.

    A clip is named after its stream and its place in the label file (``0002-L_0``) and consists of the frames from
    ``start`` up to, but without, ``end``, counted from 0 (choice: as MAMP's ``pku_gendata.py`` cuts them). The same
    frames of a stream have its class in ``frame_labels``, the others -1; those of a stream without sound labels -2.
    """

    phase: int = 1
    keep: str = "clips"

    suffixes: ClassVar[tuple[str, ...]] = (_ENDING,)
    layout: ClassVar[str] = "ntu25"
    fps: ClassVar[float] = 30.0
    column_names: ClassVar[dict[str, tuple[str, ...]]] = {"view": VIEWS}

    def __post_init__(self) -> None:
        if self.phase not in (1, 2):
            raise ValueError(f"phase is {self.phase}, expected 1 or 2")
        if self.keep not in KEEP:
            raise ValueError(f"keep is {self.keep!r}, expected one of {', '.join(map(repr, KEEP))}")

    @property
    def label_names(self) -> tuple[str, ...]:
        """The 51 classes; phase II uses 41 of them under the same numbers."""
        return ACTIONS

    @property
    def notes(self) -> tuple[dict[str, Any], ...]:
        """What the streams became."""
        return ({"name": "note", "about": "streams", "keep": self.keep},)

    def find(self, listing: Listing) -> Found:
        """Say which streams to read, each with its labels, and read the lists of the protocols."""
        found = Found([], lambda data: data)
        skeletons, labels, lists = self._sort(listing, found)
        taken = {entry.base: entry for entry in without_copies(labels, found.left_out)}
        for entry in without_copies(skeletons, found.left_out):
            label = taken.pop(entry.base, None)
            if label is None and self.keep == "clips":
                found.left_out[str(entry)] = "no label file has the same name"
            else:
                entries = (entry,) if label is None else (entry, label)
                found.tasks.append(Task(entry.base[: -len(_ENDING)], entries))
        found.left_out |= {str(entry): "no skeleton file has the same name" for entry in taken.values()}
        for protocol in ("xsub", "xview"):
            if protocol not in lists:
                found.notes.append(
                    f"no split {protocol}: put {split_list_name(protocol, self.phase)} into the folder to have it"
                )
        found.finish = _Finish(lists)
        return found

    def read(self, task: Task) -> list[RawClip]:
        """Read a stream and cut it into clips."""
        stream = parse(task.entries[0].read())
        view = VIEWS.index(task.name[-1])
        rows: list[tuple[int, int, int, float]] | None = None
        note = "without labels: no label file has the same name"
        if len(task.entries) > 1:
            try:
                rows = parse_labels(task.entries[1].read())
            except DamagedFile as error:
                damage = DamagedFile(error.reason, error.line, str(task.entries[1]))
                if self.keep != "streams":
                    raise damage from None
                note = f"without labels: {Damage(str(task.entries[1]), error.reason, error.line)}"
        clips = []
        if self.keep != "clips":
            columns = {"view": view, "start": 0, "confidence": -1.0}
            known = "" if rows is not None else note
            clips.append(
                RawClip(task.name, stream, -1, columns, note=known, frame_labels=_frame_labels(stream, rows))
            )
        if self.keep != "streams":
            clips += self._cut(task, stream, view, rows or [])
        return clips

    def _cut(
        self, task: Task, stream: np.ndarray, view: int, rows: list[tuple[int, int, int, float]]
    ) -> list[RawClip]:
        clips = []
        for place, (action, start, end, confidence) in enumerate(rows):
            bad = note = ""
            if not 0 <= start < min(end, len(stream)):
                bad = f"its label names the frames {start} to {end} of a stream of {len(stream)}"
            elif end > len(stream):
                note = f"ends with the stream, after {len(stream)} frames; its label names {end}"
            columns = {"view": view, "start": start, "confidence": confidence}
            piece = stream[:0] if bad else stream[start:end]
            labels = None if self.keep == "clips" else np.full(len(piece), action - 1)
            clips.append(RawClip(f"{task.name}_{place}", piece, action - 1, columns, None, note, bad, labels))
        return clips

    def _sort(self, listing: Listing, found: Found) -> tuple[list[Entry], list[Entry], dict[str, SplitList]]:
        """Tell streams, labels and lists apart."""
        skeletons: list[Entry] = []
        labels: list[Entry] = []
        lists: dict[str, list[Entry]] = {"xsub": [], "xview": []}
        for entry in listing.entries:
            name = entry.base[: -len(_ENDING)]
            for protocol, entries in lists.items():
                if entry.base.lower().replace("_", "-") in _list_names(protocol):
                    entries.append(entry)
                    break
            else:
                if _STREAM.fullmatch(name) is None:
                    found.left_out[str(entry)] = "its name is not of the form STREAM-L.txt (or M, R)"
                    continue
                try:
                    (labels if _is_label(entry) else skeletons).append(entry)
                except DamagedFile as error:
                    found.damaged.append(Damage(str(entry), error.reason, error.line))
        return (
            skeletons,
            labels,
            {
                protocol: read_split_list(_of_phase(entries, protocol, self.phase))
                for protocol, entries in lists.items()
                if entries
            },
        )


_TEXT = (
    "a folder with the skeleton files, the label files and {}, in any folders below it, or in zip archives"
)
SETS = (
    RawSet("pku1", PkuReader, 1, _TEXT.format("cross-subject.txt, cross-view.txt")),
    RawSet("pku2", PkuReader, 2, _TEXT.format("cross_subject_v2.txt, cross_view_v2.txt")),
)


@dataclass(frozen=True)
class _Finish:
    """Adds the column ``video`` (the stream without its camera) and the splits."""

    lists: dict[str, SplitList]

    def __call__(self, data: PackedSkeletons) -> PackedSkeletons:
        streams = [name.partition("_")[0] for name in data.names]
        video, names = text_codes(np.array([stream.rpartition("-")[0] for stream in streams]))
        splits = {
            protocol: Split(
                torch.tensor([stream in split.train for stream in streams]),
                torch.tensor([stream in split.test for stream in streams]),
            )
            for protocol, split in self.lists.items()
        }
        return dataclasses.replace(
            data,
            columns={**data.columns, "video": video},
            column_names={**data.column_names, "video": names},
            splits=splits,
        )


def parse(content: bytes) -> np.ndarray:
    """Read the text of a skeleton file.

    Returns:
        ``(T, 2, 25, 3)`` float32, metres.

    Raises:
        DamagedFile: the text is not such a file, with the line.
    """
    width = BODIES * JOINTS * CHANNELS
    text = read_numbers(content)
    wrong = text.counts != width
    if wrong.any():
        place = int(wrong.argmax())
        raise DamagedFile(f"has {text.counts[place]} numbers, expected {width}", int(text.lines[place]))
    coords = as_float32(text.values).reshape(-1, width)
    finite = np.isfinite(coords).all(axis=1)
    if not finite.all():
        raise DamagedFile("holds a coordinate that is not finite", int(text.lines[finite.argmin()]))
    return coords.reshape(-1, BODIES, JOINTS, CHANNELS)


def parse_labels(content: bytes) -> list[tuple[int, int, int, float]]:
    """Read the text of a label file.

    Returns:
        Action (from 1), first frame, end and confidence of each clip.

    Raises:
        DamagedFile: the text is not such a file, with the line.
    """
    text = read_numbers(content.replace(b",", b" "))
    rows = []
    for count, first, line in zip(
        text.counts.tolist(), text.first.tolist(), text.lines.tolist(), strict=True
    ):
        if count != _LABEL_NUMBERS:
            raise DamagedFile(f"has {count} numbers, expected action,start,end,confidence", line)
        action, start, end, confidence = text.values[first : first + _LABEL_NUMBERS].tolist()
        if not all(value.is_integer() for value in (action, start, end)):
            raise DamagedFile("action, start and end are not whole numbers", line)
        if not 1 <= action <= len(ACTIONS):
            raise DamagedFile(f"action is {action:g}, expected 1 to {len(ACTIONS)}", line)
        rows.append((int(action), int(start), int(end), confidence))
    return rows


def _frame_labels(stream: np.ndarray, rows: list[tuple[int, int, int, float]] | None) -> np.ndarray:
    """Return the class of each frame of a stream ``(T,)``; of overlapping labels the later line counts (choice)."""
    labels = np.full(len(stream), -2 if rows is None else -1)
    for action, start, end, _ in rows or []:
        if 0 <= start < min(end, len(stream)):
            labels[start:end] = action - 1
    return labels


def _is_label(entry: Entry) -> bool:
    """Tell a label file by its commas, and an empty file by its place."""
    head = entry.read(_PEEK_BYTES)
    place = entry.container.rpartition("/")[2] + "/" + entry.name if entry.archived else entry.name
    return b"," in head if head.strip() else "label" in place.lower()


def _list_names(protocol: str) -> tuple[str, ...]:
    return tuple(split_list_name(protocol, phase).replace("_", "-") for phase in (1, 2))


def _of_phase(entries: list[Entry], protocol: str, phase: int) -> Entry:
    """Return the list of a phase, or the only one that is there."""
    wanted = split_list_name(protocol, phase).replace("_", "-")
    return next((entry for entry in entries if entry.base.lower().replace("_", "-") == wanted), entries[0])
