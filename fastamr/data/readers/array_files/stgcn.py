"""The arrays of ST-GCN, 2s-AGCN and their successors: ``train_data_joint.npy`` with ``train_label.pkl``.

``(N, C, T, V, M)``, padded with zeros; the pickle holds ``(names, labels)`` and is read by :mod:`..common.unpickle`,
which runs nothing. The halves lie side by side: the file of one brings that of the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....skeleton import SkeletonLayout
from ...packed.dataset import PackedSkeletons
from ..common.arrays import class_column, class_labels, trim_padding
from ..common.json_text import load_json
from ..common.ntu_protocols import ACTIONS, ClipName
from ..common.poses import reading_note
from ..common.reader import Reader, Reading, Source
from ..common.unpickle import unpickle
from .halves import OFFICIAL, half_of, join_halves
from .motion import Motion, channels_of, finish, joints_of
from .npy import open_array

_DATA = re.compile(r"(?i)(.*?)_?data(_joint)?")
_DERIVED = re.compile(
    r"(?i)(?:^|.*_)(bone|motion|velocity|vel|acc|angle|joint_bone|bone_motion|joint_motion)"
)
_LABEL = re.compile(r"(?i)(.*?)_?labels?")
_LABEL_ENDINGS = (".pkl", ".pickle", ".npy", ".json")
_PROTOCOLS = ("xsub", "xview", "xset", "xsetup", "cs", "cv", "csub", "cview", "cset")
_USUAL = {3: {25: "ntu25"}, 2: {18: "openpose18", 17: "coco17"}}
_BLOCK_BYTES = 1 << 26


@dataclass
class _Part:
    """One array with its labels."""

    key: str
    data: Path
    motion: Motion
    labels: np.ndarray
    names: list[str] = field(default_factory=list)


def sniff_array(source: Source) -> bool:
    """Say whether a ``.npy`` file is an array of this kind, or a stream that was derived from one."""
    path = source.path
    if source.is_folder:
        return path.is_dir() and bool(_arrays(path))
    if _DERIVED.fullmatch(path.stem) and "data" in path.stem.lower():
        return True
    return _DATA.fullmatch(path.stem) is not None and source.parsed(open_array).ndim == 5


def sniff_labels(source: Source) -> bool:
    """Say whether a pickle holds names and labels ``(names, labels)``."""
    content = source.parsed(unpickle)
    source.seen = f"a {type(content).__name__}"
    return _data_of_labels(source.path) != [] and _pair(content) is not None


def read(
    source: Source, *, layout: str | SkeletonLayout | None = None, min_confidence: float = 0.0
) -> Reading:
    """Read an array of this kind, and its other half beside it.

    Frames of zeros at the end go. ``train_`` and ``val_`` (or ``test_``) arrays of one folder are the halves of one
    split, which has the name of a folder ``xsub``, ``xview``, ``xset``, ..., else ``official``. Labels come from
    ``train_label.pkl``, ``.npy`` or ``.json``; with names of NTU RGB+D the classes, columns and 30 frames a second,
    too.

    Args:
        source: a ``.npy`` file, its pickle of labels, or the folder of both.
        layout: the skeleton; None means ntu25 (25 joints in 3-D), openpose18 (18 with a confidence) or the number.
        min_confidence: joints of a lower confidence, or of 0, are marked as not seen.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a derived stream (bones, motion), labels that do not fit, or as :func:`.motion.joints_of`.
    """
    path = source.path
    files = _files(path)
    given = {name: _read_part(file, layout, min_confidence) for name, file in files.items()}
    parts = list(given.values())
    if len({(part.motion.layout, part.motion.clips[0].shape[3]) for part in parts}) > 1:
        raise ValueError(
            f"{path}: {', '.join(file.name for file in files.values())} have joints of different skeletons"
        )
    first = parts[0]
    notes = list(dict.fromkeys(note for part in parts for note in part.motion.notes))
    notes += ["read together: " + ", ".join(part.data.name for part in parts)] * (len(parts) > 1)
    notes += [
        f"{part.data.name}: no labels beside it, its classes are unknown" for part in parts if not part.names
    ]
    names = [name for part in parts for name in _names(part)]
    codes = [ClipName.parse(name.partition(".")[0]) for name in names]
    kinds = {
        part.labels.dtype.kind
        for part in parts
        if (part.labels.dtype.kind != "i" or (part.labels >= 0).any())
    }
    if len(kinds) > 1:
        raise ValueError(
            f"{path}: the labels of one half are text, those of the other are not; give both in one form"
        )
    is_ntu = all(codes) and first.motion.layout.name == "ntu25"
    column = np.concatenate([part.labels for part in parts])
    labels, classes = class_labels(column, f"{path}, labels", ())
    if is_ntu and all(
        code is not None and code.action - 1 == label for code, label in zip(codes, labels, strict=True)
    ):
        classes = ACTIONS[:60] if labels.max() < 60 else ACTIONS
    splits, said = _splits(parts, path)
    scored = first.motion.scored
    data = PackedSkeletons.from_clips(
        [clip for part in parts for clip in part.motion.clips],
        layout=first.motion.layout,
        labels=labels,
        label_names=classes,
        fps=30.0 if is_ntu else None,
        names=names,
        columns=_columns(codes),
        splits=splits,
        valid=None if all(part.motion.valid is None for part in parts) else _valid(parts),
    )
    if scored:
        data.steps = reading_note(min_confidence)
    return Reading(data, len(files), notes=notes + said)


READERS = [
    Reader(
        "st-gcn", (".npy",), read, sniff_array, title="ST-GCN", holds=("(N, C, T, V, M)",), takes_folder=True
    ),
    Reader("st-gcn", (".pkl", ".pickle"), read, sniff_labels, title="ST-GCN", holds=("(names, labels)",)),
]


def _arrays(folder: Path) -> dict[str, Path]:
    """Return the arrays of joints in a folder by what stands before ``_data`` in their names."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        match = _DATA.fullmatch(file.stem) if file.suffix.lower() == ".npy" and file.is_file() else None
        if match is not None:
            found.setdefault(match[1], file)
    return found


def _data_of_labels(path: Path) -> list[Path]:
    match = _LABEL.fullmatch(path.stem)
    return [] if match is None else [file for key, file in _arrays(path.parent).items() if key == match[1]]


def _files(path: Path) -> dict[str, Path]:
    """Return the arrays that belong together, by what stands before ``_data`` in their names."""
    if path.is_dir():
        return _arrays(path)
    if path.suffix.lower() != ".npy":
        chosen = _data_of_labels(path)[0]
    elif _DATA.fullmatch(path.stem) is None:
        joint = re.sub(r"(?i)_data_.*", "_data_joint.npy", path.stem)
        raise ValueError(
            f"{path} is a stream derived from the joints (bones or motion), no positions; give {joint}: the package "
            "makes such streams itself"
        )
    else:
        chosen = path
    match = _DATA.fullmatch(chosen.stem)
    assert match is not None
    named = half_of(match[1])
    if named is None:
        return {match[1]: chosen}
    beside = {
        key: file for key, file in _arrays(chosen.parent).items() if (half_of(key) or ("",))[0] == named[0]
    }
    return beside | {match[1]: chosen}


def _read_part(path: Path, layout: str | SkeletonLayout | None, min_confidence: float) -> _Part:
    match = _DATA.fullmatch(path.stem)
    assert match is not None
    array = open_array(path)
    if array.ndim != 5 or array.shape[1] not in (2, 3) or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{path} has shape {array.shape} of {array.dtype}, expected numbers (clips, 2 or 3 coordinates, frames, "
            "joints, bodies)"
        )
    count, size, _, joints, _ = array.shape
    clips: list[np.ndarray] = []
    step = max(1, _BLOCK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, count, step):
        # The file is mapped: a block is in memory at a time, and only its frames without padding stay.
        clips += trim_padding(np.asarray(array[start : start + step]).transpose(0, 2, 4, 3, 1))
    filled = [clip for clip in clips if len(clip)]
    if not filled:
        raise ValueError(f"{path}: every value is 0; the data set is empty")
    # ST-GCN writes Kinetics as x, y moved to the middle of the image, and the confidence.
    channels = channels_of(filled, str(path), third_is_score=joints == 18 and size == 3)
    skeleton = joints_of(joints, channels.coords, str(path), given=layout, usual=_USUAL)
    motion = finish(clips, None, skeleton, channels, min_confidence)
    names, labels = _labels_of(path, match[1], count)
    return _Part(match[1], path, motion, labels, names)


def _labels_of(path: Path, key: str, count: int) -> tuple[list[str], np.ndarray]:
    """Return the names and classes of the clips of an array from the file of labels beside it."""
    for file in sorted(path.parent.iterdir()):
        match = _LABEL.fullmatch(file.stem) if file.suffix.lower() in _LABEL_ENDINGS else None
        if match is None or match[1] != key:
            continue
        content: Any = {".npy": open_array, ".json": load_json}.get(file.suffix.lower(), unpickle)(file)
        pair = _pair(content)
        if pair is None and isinstance(content, (list, np.ndarray)) and len(content) == count:
            pair = ([], content)
        if pair is None:
            raise ValueError(f"{file} holds no (names, labels) of {count} clips; save a tuple of two lists")
        names, labels = pair
        if len(labels) != count or len(names) not in (0, count):
            raise ValueError(
                f"{file} names {len(names)} clips with {len(labels)} labels, but {path.name} has {count} clips; they "
                "do not belong together"
            )
        column = class_column(np.asarray(labels), count, str(file))
        return ([str(name) for name in names] or [f"{key}{place}" for place in range(count)]), column
    return [], np.full(count, -1, dtype=np.int64)


def _pair(content: Any) -> tuple[Any, Any] | None:
    """Return names and labels from ``(names, labels)``, or from a dictionary of both."""
    if isinstance(content, dict):
        found = [content.get(key) for key in ("names", "labels")]
        content = found if all(part is not None for part in found) else None
    if not isinstance(content, (tuple, list)) or len(content) != 2:
        return None
    names, labels = (part.tolist() if isinstance(part, np.ndarray) else part for part in content)
    sound = (
        isinstance(names, (list, tuple)) and isinstance(labels, (list, tuple)) and len(names) == len(labels)
    )
    is_named = sound and all(isinstance(name, str) for name in names)
    return (list(names), list(labels)) if is_named else None


def _names(part: _Part) -> list[str]:
    return part.names or [f"{part.key or 'clip'}{place}" for place in range(len(part.motion.clips))]


def _columns(codes: list[ClipName | None]) -> dict[str, list[float]]:
    if not all(codes):
        return {}
    rows = [code.columns() for code in codes if code is not None]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _valid(parts: list[_Part]) -> list[np.ndarray]:
    return [
        np.ones(clip.shape[:3], dtype=bool) if part.motion.valid is None else part.motion.valid[place]
        for part in parts
        for place, clip in enumerate(part.motion.clips)
    ]


def _splits(parts: list[_Part], path: Path) -> tuple[dict[str, Any], list[str]]:
    sizes = [len(part.motion.clips) for part in parts]
    owner = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor(sizes))
    halves = {part.key: owner == place for place, part in enumerate(parts) if half_of(part.key)}
    splits, notes = join_halves(halves)
    folder = (path if path.is_dir() else path.absolute().parent).name.lower()
    if folder in _PROTOCOLS and OFFICIAL in splits:
        splits[folder] = splits.pop(OFFICIAL)
        notes = [note.replace(repr(OFFICIAL), repr(folder)) for note in notes]
    return splits, notes
