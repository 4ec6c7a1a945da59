"""NW-UCLA (Northwestern-UCLA Multiview Action 3D) as the JSON files that CTR-GCN and its successors use.

One file a clip, named after action, subject, repetition and view (``a01_s01_e00_v01.json``):
``{"file_name": ..., "skeletons": (T, 20, 3), "label": ...}``, metres, Kinect v1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...packed.dataset import PackedSkeletons, Split
from ..common.json_text import field, load_json, numbers, parse_json
from ..common.reader import Damage, Reader, Reading, Source
from ..common.sources import DamagedFile, Listing, list_files

LAYOUT = "kinect20"
ACTIONS = {
    1: "pick up with one hand",
    2: "pick up with two hands",
    3: "drop trash",
    4: "walk around",
    5: "sit down",
    6: "stand up",
    8: "donning",
    9: "doffing",
    11: "throw",
    12: "carry",
}
"""The actions by their number in a file's name; their order is the order of the classes."""

TEST_VIEW = 3
_NAME = re.compile(r"a(\d\d)_s(\d\d)_e(\d\d)_v(\d\d)")


def sniff(source: Source) -> bool:
    """Tell whether a JSON document is a clip of this kind, or a folder has a file that is named as they are."""
    if source.is_folder:
        return any(_NAME.fullmatch(entry.base[: -len(".json")]) for entry in source.parsed(_list).entries)
    document = source.parsed(load_json)
    return isinstance(document, Mapping) and "skeletons" in document


def read(source: Source) -> Reading:
    """Read all clips.

    The split ``official`` trains on views 1 and 2 and tests on view 3 (Wang et al., CVPR 2014, as CTR-GCN uses it);
    ``subject``, ``view`` and ``rep`` become columns. The frame rate is not published.

    Args:
        source: a folder with the files (or with zip archives of them), such a zip archive, or one file, whose name
            comes from the file's, or else from ``file_name``.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: no file can be read (the first of them, and why).
    """
    path = source.path
    if path.is_file() and not source.is_folder:
        return Reading(_read_clip(source.parsed(load_json), path))
    listing = _list(path)
    clips: list[np.ndarray] = []
    numbers_of: list[tuple[int, int, int, int]] = []
    names: list[str] = []
    damaged = [Damage(file, reason) for file, reason in listing.refused.items()]
    for entry in listing.entries:
        name = entry.base[: -len(".json")]
        try:
            codes = name_codes(name)
            if name in names:
                raise ValueError(f"{entry}: a second file of this name")
            clips.append(_clip(parse_json(entry.read(), str(entry)), str(entry)))
        except (DamagedFile, ValueError) as error:
            damaged.append(Damage(str(entry), str(error).removeprefix(str(entry)).lstrip(":, ")))
            continue
        names.append(name)
        numbers_of.append(codes)
    if not clips:
        reason = f"; the first is {damaged[0]}" if damaged else ""
        raise ValueError(f"{path}: no clip of NW-UCLA (a01_s01_e00_v01.json, ...) can be read{reason}")
    data = _pack(clips, names, numbers_of)
    data.dropped |= {damage.file: damage.reason for damage in damaged}
    return Reading(data, len(listing.entries) + len(listing.refused), damaged)


READER = Reader(
    "nw-ucla", (".json",), read, sniff, title="a clip of NW-UCLA", holds=("'skeletons'",), takes_folder=True
)


def _list(path: Path) -> Listing:
    return list_files(path, [".json"])


def _read_clip(document: Any, path: Path) -> PackedSkeletons:
    clip = _clip(document, str(path))
    given = str(document.get("file_name", ""))
    name = path.stem if _NAME.fullmatch(path.stem) or not _NAME.fullmatch(given) else given
    return _pack([clip], [name], [name_codes(name)])


def name_codes(name: str) -> tuple[int, int, int, int]:
    """Return the class (from 0), subject, repetition and view of a clip's name.

    Raises:
        ValueError: the name does not follow the pattern, or its action does not exist.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"name {name!r} does not follow a01_s01_e00_v01")
    action, subject, repetition, view = map(int, found.groups())
    if action not in ACTIONS:
        raise ValueError(f"name {name!r} has action {action}, expected one of {', '.join(map(str, ACTIONS))}")
    return list(ACTIONS).index(action), subject, repetition, view


def _clip(document: Any, where: str) -> np.ndarray:
    """Return ``(T, 1, 20, 3)``."""
    skeletons = field(document, "skeletons", where)
    if isinstance(skeletons, list) and not skeletons:
        raise ValueError(f"{where}: no frames")
    coords = numbers(skeletons, f"{where}, skeletons", (None, 20, 3))
    if not np.isfinite(coords).all():
        frame, joint, _ = (int(axis[0]) for axis in np.nonzero(~np.isfinite(coords)))
        raise ValueError(f"{where}, frame {frame}, joint {joint}: coordinates are not finite")
    return coords[:, None]


def _pack(
    clips: list[np.ndarray], names: list[str], codes: list[tuple[int, int, int, int]]
) -> PackedSkeletons:
    labels, subjects, repetitions, views = np.array(codes).T
    test = torch.from_numpy(views == TEST_VIEW)
    return PackedSkeletons.from_clips(
        clips,
        layout=LAYOUT,
        labels=labels,
        label_names=list(ACTIONS.values()),
        names=names,
        columns={"subject": subjects, "view": views, "rep": repetitions},
        splits={"official": Split(~test, test)},
    )
