"""Kinetics-Skeleton of ST-GCN: a JSON file a clip, folders of them, and the folders of its training and test half.

``{"data": [{"frame_index": 1, "skeleton": [{"pose": [x, y, ...], "score": [...]}]}], "label": "", "label_index": 5}``;
coordinates are shares of the image. ``kinetics_train`` and ``kinetics_val`` are the split ``official``; the files
``kinetics_train_label.json`` beside them name all classes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ....skeleton import SkeletonLayout
from ...packed.dataset import Split
from ..common.json_text import load_json, parse_json
from ..common.reader import Reader, Reading, Source
from ..common.sources import DamagedFile, Entry, list_files
from .frames import Form
from .people import Person, person_of
from .points import Points, array_of, points_of
from .tool import Session, Tool, list_frame_files, sample, unread_of

_HALF = re.compile(r"(?:^|[-_])(train|training|val|valid|validation|test|eval)$", re.IGNORECASE)
_NAMED = 1 << 30
_LABEL_FILE = re.compile(r"label.*\.json$", re.IGNORECASE)


def _is_person(entry: Any) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("pose"), list) and "score" in entry


def _person(entry: Any, kind: str, where: str) -> Person:
    points = points_of(entry["pose"], f"{where}, pose", stride=2)
    scores = array_of(entry["score"], f"{where}, score", (None,))
    return person_of(Points(points.values, scores), where, unread=unread_of(entry, ("pose", "score")))


TOOL = Tool(
    "kinetics-skeleton",
    "Kinetics-Skeleton of ST-GCN, a clip or a folder of clips",
    ("'data' with 'skeleton'",),
    Form(_is_person, lists=("data",), people=("skeleton",)),
    lambda entry: ["pose"] if _is_person(entry) and entry["pose"] else [],
    _person,
    usual={2: {18: "openpose18", 25: "openpose25", 17: "coco17"}},
    marks=lambda document: _is_clip(document),
    frame_files=False,
)


def _is_clip(document: Any) -> bool:
    data = document.get("data") if isinstance(document, Mapping) else None
    return (
        isinstance(data, list)
        and bool(data)
        and all(isinstance(entry, Mapping) for entry in data[:1])
        and ("skeleton" in data[0])
    )


def sniff(source: Source) -> bool:
    """Tell whether a document, or the first files of a folder, are clips of this kind."""
    if not source.is_folder:
        return TOOL.knows(source.parsed(load_json))
    return any(_is_clip(document) for document in source.parsed(_sample))


def read(
    source: Source,
    *,
    layout: str | SkeletonLayout | None = None,
    min_confidence: float = 0.0,
    track: bool = True,
) -> Reading:
    """Read a clip, or all clips of a folder or zip archive; a damaged file costs itself only.

    Args:
        source: a file, a folder of files, or one that holds a folder for training and one for test.
        layout: the skeleton; None = OpenPose's 18 joints.
        min_confidence: joints of a lower score, or of 0, are not seen.
        track: link people from frame to frame; the format has no tracks.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: nobody can be read, or several people of a frame without ``track``.
    """
    session, classes = Session(TOOL, str(source.path)), _Classes()
    halves: dict[str, str] = {}
    if not source.is_folder:
        document = source.parsed(load_json)
        session.add_document(document, str(source.path), source.path.stem, label=classes.add(document))
    else:
        _add_folder(session, classes, source.path, halves)
    labels, session.people.label_names = classes.compact(session.people.labels)
    session.people.labels = labels
    found = session.reading(layout=layout, min_confidence=min_confidence, track=track)
    if len(set(halves.values())) > 1:
        train, test = (
            torch.tensor([halves.get(name) == half for name in found.data.names])
            for half in ("train", "test")
        )
        found.data = dataclasses.replace(found.data, splits={"official": Split(train, test)})
    return found


READER = Reader(TOOL.name, (".json",), read, sniff, TOOL.title, TOOL.holds, takes_folder=True)


@dataclass
class _Classes:
    """The classes met so far: their names by index, or names without an index."""

    names: dict[int, str] = field(default_factory=dict)
    words: dict[str, int] = field(default_factory=dict)

    def add(self, entry: Any) -> int:
        """Return the class of an object with ``label`` and ``label_index``, -1 = none."""
        if not isinstance(entry, Mapping):
            return -1
        index, name = entry.get("label_index"), entry.get("label")
        if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < _NAMED:
            if isinstance(name, str):
                self.names[index] = name
            return index
        if not isinstance(name, str) or not name:
            return -1
        # Names without an index come behind all that may have one.
        return self.words.setdefault(name, _NAMED + len(self.words))

    def compact(self, labels: list[int]) -> tuple[list[int], list[str]]:
        """Return labels without gaps, and the names; labels stay as they are where no name is known."""
        if not self.names and not self.words:
            return labels, []
        names = self.names | {index: name for name, index in self.words.items()}
        names = {index: str(index) for index in labels if index >= 0} | names
        order = {index: place for place, index in enumerate(sorted(names))}
        return [order.get(index, -1) for index in labels], [names[index] for index in sorted(names)]


def _add_folder(session: Session, classes: _Classes, folder: Path, halves: dict[str, str]) -> None:
    """Add the clips of a folder; ``halves`` gets the half of each by its name."""
    entries, people = _entries(folder), session.people
    people.files = len(entries)
    told: dict[str, Any] = {}
    for entry in entries:
        name = entry.base.removesuffix(".json")
        try:
            document = parse_json(entry.read(), str(entry))
            if _LABEL_FILE.search(entry.base) and not _is_clip(document):
                told |= {key: value for key, value in dict(document).items() if isinstance(value, Mapping)}
                continue
            if not _is_clip(document) and not _is_empty(document):
                raise ValueError("no clip of this kind ('data' with 'skeleton')")
            if name in halves:
                raise ValueError("a second clip of this name")
            half = _HALF.search(Path(str(entry)).parent.name)
            halves[name] = "" if half is None else "train" if half[1].lower().startswith("train") else "test"
            session.add_document(document, str(entry), name, label=classes.add(document))
        except (DamagedFile, ValueError) as error:
            people.lose(str(entry), str(error))
    places = {name: place for place, name in enumerate(people.names)}
    for name, entry in told.items():
        label = classes.add(entry)
        if name in places and people.labels[places[name]] < 0:
            people.labels[places[name]] = label


def _is_empty(document: Any) -> bool:
    return isinstance(document, Mapping) and document.get("data") == []


def _entries(folder: Path) -> list[Entry]:
    """List the files of a folder, and of folders in it that are named as halves; label files last."""
    if not folder.is_dir():
        entries = list_files(folder, [".json"]).entries
    else:
        entries = list_frame_files(folder, (".json",)).entries
        for half in _halves(folder):
            entries += list_frame_files(half, (".json",)).entries
    return sorted(entries, key=lambda entry: bool(_LABEL_FILE.search(entry.base)))


def _halves(folder: Path) -> list[Path]:
    with os.scandir(folder) as found:
        return sorted(Path(item.path) for item in found if item.is_dir() and _HALF.search(item.name))


def _sample(folder: Path) -> list[Any]:
    documents = []
    for content in sample([entry for entry in _entries(folder) if not _LABEL_FILE.search(entry.base)]):
        with contextlib.suppress(ValueError):
            documents.append(parse_json(content, ""))
    return documents
