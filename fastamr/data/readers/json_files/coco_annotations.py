"""The annotations of COCO's JSON: key points, track ids, kinds of objects; what is not sound is left out and named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..common import json_text
from ..common.linking import id_text

_TRACK_KEYS = ("track_id", "idx", "person_id", "instance_id")
# Keys that are read, or that only count what is read.
_QUIET = {*_TRACK_KEYS, "keypoints", "image_id", "category_id", "id", "num_keypoints", "iscrowd", "area"}
_MOST = 3
_HIGHEST = 10.0
"""A visibility or confidence lies within 0 and this: AlphaPose's go to 6 (choice)."""
_STRANGE = 0.05
"""So many others in a file are allowed (choice)."""


@dataclass(frozen=True)
class Kind:
    """A category with key points.

    Args:
        key: its id.
        name: what it is.
        joints: the names of its key points.
        bones: pairs of places among the joints, from 0.
    """

    key: Any
    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Annotations:
    """The sound annotations.

    Args:
        rows: ``n`` places in the file.
        points: ``(n, J, 3)`` float32: x, y and a visibility or confidence.
        seen: ``(n, J)`` bool: coordinates are finite.
        images: the image of each.
        ids: its track ids, () = none.
        kind: what they are, or None.
        total: how many the file has.
        bad: what is wrong with the others.
        notes: what else a person must know.
    """

    rows: list[int]
    points: np.ndarray
    seen: np.ndarray
    images: list[str]
    ids: list[tuple[str, ...]]
    kind: Kind | None
    total: int
    bad: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    def within(self, images: Container[str], where: Callable[[int], str]) -> Annotations:
        """Return those whose image there is, with the note about all that were left out.

        Raises:
            ValueError: there is none.
        """
        keep = [row for row, image in enumerate(self.images) if image in images]
        bad = self.bad + [
            f"{where(self.rows[row])}: image_id {image[:60]!r} is not among the images"
            for row, image in enumerate(self.images)
            if image not in images
        ]
        if not keep:
            raise ValueError(bad[0])
        note = f"left out {len(bad)} of {self.total} annotations: {'; '.join(bad[:_MOST])}"
        return replace(
            self,
            rows=[self.rows[row] for row in keep],
            points=self.points[keep],
            seen=self.seen[keep],
            images=[self.images[row] for row in keep],
            ids=[self.ids[row] for row in keep],
            notes=self.notes + (note + "; ..." * (len(bad) > _MOST),) * bool(bad),
        )


def kinds_of(document: Mapping[str, Any], where: str) -> list[Kind]:
    """Return the categories that name key points.

    Raises:
        ValueError: a category is no object.
    """
    categories = document.get("categories")
    found = []
    for place, category in enumerate(categories if isinstance(categories, list) else []):
        if not isinstance(category, Mapping):
            raise ValueError(
                f"{where}: categories[{place}]: a {type(category).__name__}, expected an object with 'keypoints'"
            )
        names = category.get("keypoints")
        if isinstance(names, list) and names:
            joints = tuple(str(name) for name in names)
            bones = _bones(category.get("skeleton"), len(joints))
            found.append(
                Kind(category.get("id"), str(category.get("name", category.get("id"))), joints, bones)
            )
    return found


def _bones(edges: Any, count: int) -> tuple[tuple[int, int], ...]:
    """Return the bones of a category, counted from 0: COCO counts from 1, some tools from 0; () where they are none."""
    pairs = []
    for edge in edges if isinstance(edges, list) else []:
        if not (isinstance(edge, list) and len(edge) == 2 and all(type(end) is int for end in edge)):
            return ()
        pairs.append((edge[0], edge[1]))
    ends = [end for pair in pairs for end in pair]
    base = 0 if 0 in ends else 1
    if not ends or min(ends) < base or max(ends) >= count + base:
        return ()
    return tuple((one - base, other - base) for one, other in pairs)


def sound_annotations(
    entries: list[Any], kinds: Sequence[Kind], where: Callable[[int], str], *, is_list: bool = False
) -> Annotations:
    """Return the annotations with key points.

    Args:
        entries: the objects of the file.
        kinds: what its categories name.
        where: names an annotation.
        is_list: whether they are a list of results, without categories.

    Raises:
        ValueError: none is sound, or several kinds of objects have key points.
    """
    kind, others = _only_kind(entries, kinds, where, is_list)
    bad: list[str] = []
    parsed: dict[int, np.ndarray] = {}
    for row, entry in enumerate(entries):
        if row in others:
            continue
        try:
            parsed[row] = _points(entry, where(row))
            _image(entry, where(row))
        except ValueError as error:
            parsed.pop(row, None)
            bad.append(str(error))
    if not parsed:
        raise ValueError(
            bad[0] if bad else f"{where(0)}: no annotation has 'keypoints'; the data set is empty"
        )
    counts = Counter(len(points) for points in parsed.values())
    most = max(counts, key=lambda count: (counts[count], count))
    joints = len(kind.joints) if kind else most
    told = f"category {kind.name!r} names {joints}" if kind else f"most have {joints}"
    if joints not in counts:
        raise ValueError(
            f"{where(min(parsed))}: {most} joints, {told}; write x, y, v for each in 'keypoints'"
        )
    rows = [row for row, points in parsed.items() if len(points) == joints]
    bad += [
        f"{where(row)}: {len(points)} joints, {told}"
        for row, points in parsed.items()
        if len(points) != joints
    ]
    points = np.stack([parsed[row] for row in rows])
    finite = np.isfinite(points).all(axis=2)
    _check_third(points, finite, where(rows[0]))
    notes = _notes(entries, others, points, finite, [where(row) for row in rows], is_list)
    return Annotations(
        rows,
        np.where(finite[..., None], points, np.float32(0)),
        finite,
        [_image(entries[row], where(row)) for row in rows],
        [_track_ids(entries[row]) for row in rows],
        kind,
        len(entries) - len(others),
        bad,
        notes,
    )


def _check_third(points: np.ndarray, finite: np.ndarray, where: str) -> None:
    """Raise where the third number of the joints is a coordinate, or 0 for all."""
    third = points[..., 2][finite]
    strange = (third < -0.5) | (third > _HIGHEST)
    if len(third) and strange.mean() > _STRANGE:
        raise ValueError(
            f"{where}: the third number of the joints goes from {third.min():.4g} to {third.max():.4g}, which is no "
            f"visibility or confidence; write x, y, v for each joint in 'keypoints'"
        )
    if len(third) and not third.any() and points[..., :2][finite].any():
        raise ValueError(
            f"{where}: the third number of every joint is 0, which means not labelled, so no pose of the file has a "
            f"joint that was seen; write 2, or a confidence, for those that were"
        )


def _only_kind(
    entries: list[Any], kinds: Sequence[Kind], where: Callable[[int], str], is_list: bool
) -> tuple[Kind | None, set[int]]:
    """Return the one kind that has annotations, and the rows of categories without key points, or of no persons."""
    by_key = {str(kind.key): kind for kind in kinds}
    used: dict[str, int] = {}
    others = set()
    for row, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or "category_id" not in entry:
            continue
        key = str(entry["category_id"])
        used.setdefault(key, row)
        if by_key and key not in by_key and not entry.get("keypoints"):
            others.add(row)
    if is_list and "1" in used and len(used) > 1:
        # Lists of results have no categories: 1 is a person in COCO.
        others |= {
            row
            for row, entry in enumerate(entries)
            if isinstance(entry, Mapping) and str(entry.get("category_id", 1)) != "1"
        }
    having = [by_key[key] for key in used if key in by_key]
    if len(having) > 1:
        shown = ", ".join(kind.name for kind in having[:6])
        raise ValueError(
            f"{where(used[str(having[1].key)])}: annotations of {len(having)} categories ({shown}) have key points; "
            f"write one file for each category"
        )
    return (having[0] if having else kinds[0] if len(kinds) == 1 else None), others


def _notes(
    entries: list[Any],
    others: set[int],
    points: np.ndarray,
    finite: np.ndarray,
    places: list[str],
    is_list: bool,
) -> tuple[str, ...]:
    """Return what was not read, and what was read in part."""
    notes = []
    unread = {str(key) for row, entry in enumerate(entries) if isinstance(entry, Mapping) and row not in others
              for key in entry} - _QUIET  # fmt: skip
    if unread:
        notes.append(f"keys of annotations that are not read: {', '.join(sorted(unread))}")
    if others:
        what = (
            "categories without key points"
            if not is_list
            else "a 'category_id' other than 1, no persons in COCO"
        )
        notes.append(f"left out {len(others)} annotations of {what}")
    broken = np.flatnonzero(~finite.all(axis=1))
    if len(broken):
        joint = int(np.flatnonzero(~finite[broken[0]])[0])
        notes.append(
            f"joints that are not finite are marked as not seen, in {len(broken)} annotations: {places[broken[0]]}, "
            f"joint {joint}" + ", ..." * (len(broken) > 1)
        )
    return tuple(notes)


def _points(entry: Any, where: str) -> np.ndarray:
    """Return the key points of an annotation ``(J, 3)`` float32."""
    value = json_text.field(entry, "keypoints", where)
    nested = isinstance(value, list) and bool(value) and isinstance(value[0], list)
    flat = json_text.numbers(value, f"{where}, keypoints", (None, 3) if nested else (None,))
    if flat.size == 0 or flat.size % 3:
        raise ValueError(f"{where}: {flat.size} numbers in 'keypoints', expected x, y, v for each joint")
    return flat.reshape(-1, 3)


def _image(entry: Any, where: str) -> str:
    """Return the image of an annotation: a name, or a whole number as text."""
    value = json_text.field(entry, "image_id", where)
    return value if isinstance(value, str) else str(json_text.whole(value, where, "image_id"))


def _track_ids(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ids of an annotation, which AlphaPose writes as a list of numbers, perhaps nested."""
    # CVAT writes tracks below 'attributes'.
    places = [entry, *(part for part in [entry.get("attributes")] if isinstance(part, Mapping))]
    value = next((part[key] for part in places for key in _TRACK_KEYS if part.get(key) is not None), None)
    values = [value]
    while any(isinstance(item, list) for item in values):
        values = [inner for item in values for inner in (item if isinstance(item, list) else [item])]
    return tuple(text for item in values if (text := id_text(item)) is not None)
