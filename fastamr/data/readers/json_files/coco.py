"""Key points in COCO's JSON: the object with images and annotations, and the plain list of results.

The object (COCO, PoseTrack, MMPose): ``images`` with ``id``, and ``video_id`` or ``vid_id`` and ``frame_id``, or a
``file_name`` with a number; ``annotations`` with ``image_id``, ``keypoints`` (x, y, v triplets) and ``track_id``;
perhaps ``videos`` with ``id``, ``name``, ``fps`` and ``label``, and ``categories`` with the ``keypoints``' names.

The list (AlphaPose, Detectron2, COCO results): ``image_id`` (a file name or a number), ``keypoints`` (x, y, confidence)
and ``idx`` or ``track_id``. All images are one clip, or those of each folder where names have folders.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ....skeleton import SkeletonLayout
from ..common import json_text
from ..common.layout_choice import choose_layout, layout_of_names, plain
from ..common.poses import Poses, pack_poses, reading_note, seen_from
from ..common.reader import Reader, Reading, Source

_FRAME_KEYS = ("frame_id", "frame_index", "frame")
_VIDEO_KEYS = ("video_id", "vid_id")
_TRACK_KEYS = ("track_id", "idx", "instance_id")


def sniff(source: Source) -> bool:
    """Tell whether a JSON document has either form."""
    document = source.parsed(json_text.load_json)
    if isinstance(document, Mapping):
        return "annotations" in document
    return (
        isinstance(document, list)
        and bool(document)
        and isinstance(document[0], Mapping)
        and "keypoints" in document[0]
    )


def read(
    source: Source, *, layout: str | SkeletonLayout | None = None, min_confidence: float = 0.0
) -> Reading:
    """Read a file of either form.

    Coordinates stay pixels with y down. A track is a body; without tracks the first person of every image is one
    body, the second another, and so on. A body's frames without a detection are empty.

    Args:
        source: the file; its name is the clip's where nothing else names it.
        layout: the skeleton; None tells it from the categories' names or from the number of joints.
        min_confidence: joints whose v or confidence is below it, or 0, are marked as not seen.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another kind, or an entry is not sound (which, and why).
    """
    document, path = source.parsed(json_text.load_json), source.path
    clips = _Clips(path)
    if isinstance(document, Mapping):
        entries = json_text.field(document, "annotations", str(path))
        prefix, images = f"{path}: annotations", _images(document, path, clips)
        names = _joint_names(document)
    else:
        entries, prefix, images, names = document, f"{path}: entry ", None, None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: no annotations; the data set is empty")

    def where(place: int) -> str:
        return f"{prefix}[{place}]" if images is not None else f"{prefix}{place}"

    points = _points(entries, where)
    if images is None:
        images = _named_images(entries, where, clips)
    clip, body, frame = _places(entries, images, where)
    skeleton = layout
    if layout is None and names is not None and len(names) == points.shape[1]:
        skeleton = layout_of_names(names)
    chosen = choose_layout(skeleton, points.shape[1], 2, str(path))
    if layout is None and skeleton is not None and names is not None:
        order = {plain(name): place for place, name in enumerate(names)}
        points = points[:, [order[plain(joint)] for joint in chosen.joints]]
    poses = Poses(clip, body, frame, points[..., :2], seen_from(points[..., 2], min_confidence))
    data = pack_poses(
        poses,
        layout=chosen,
        names=clips.names,
        where=where,
        labels=clips.labels,
        fps=clips.fps,
        steps=reading_note(min_confidence),
    )
    return Reading(data)


READER = Reader(
    "coco",
    (".json",),
    read,
    sniff,
    title="COCO key points, AlphaPose",
    holds=("'annotations'", "a list of key points"),
)


@dataclass
class _Clips:
    """The clips met so far: a number for each key."""

    path: Path
    numbers: dict[Any, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    fps: list[float] = field(default_factory=list)

    def number(self, key: Any, name: str, label: int = -1, fps: float = float("nan")) -> int:
        if key not in self.numbers:
            self.numbers[key] = len(self.names)
            self.names.append(name or self.path.stem)
            self.labels.append(label)
            self.fps.append(fps)
        return self.numbers[key]


def _points(entries: list[Any], where: Any) -> np.ndarray:
    """Return the key points of all entries ``(n, V, 3)``."""
    rows: list[np.ndarray] = []
    for place, entry in enumerate(entries):
        flat = json_text.numbers(
            json_text.field(entry, "keypoints", where(place)), f"{where(place)}, keypoints", (None,)
        )
        if len(flat) == 0 or len(flat) % 3:
            raise ValueError(
                f"{where(place)}: {len(flat)} numbers in 'keypoints', expected x, y, v for each joint"
            )
        if rows and len(flat) != len(rows[0]):
            raise ValueError(
                f"{where(place)}: {len(flat) // 3} joints, the entries before it have {len(rows[0]) // 3}"
            )
        rows.append(flat)
    return np.stack(rows).reshape(len(rows), -1, 3)


def _images(document: Mapping[str, Any], path: Path, clips: _Clips) -> dict[Any, tuple[int, int]]:
    """Return the clip and the frame of each image by its id."""
    images = json_text.field(document, "images", str(path))
    videos = _videos(document, path)
    places: dict[Any, tuple[int, int]] = {}
    for place, image in enumerate(images if isinstance(images, list) else []):
        where = f"{path}: images[{place}]"
        key = json_text.field(image, "id", where)
        if not isinstance(key, (int, str)):
            raise ValueError(f"{where}: 'id' is a {type(key).__name__}, expected a number or a string")
        name = str(image.get("file_name", ""))
        video = next((image[item] for item in _VIDEO_KEYS if isinstance(image.get(item), (int, str))), None)
        if video is None:
            folder = str(PurePosixPath(name).parent)
            clip = clips.number(("folder", folder), "" if folder == "." else folder)
        else:
            label, fps, title = videos.get(video, (-1, float("nan"), str(video)))
            clip = clips.number(("video", video), title, label, fps)
        given = next((image[item] for item in _FRAME_KEYS if item in image), None)
        frame = _whole(given, where, "the frame number") if given is not None else _frame_in(name)
        if frame is None:
            raise ValueError(f"{where}: neither a frame number ('frame_id') nor a 'file_name' with a number")
        places[key] = clip, frame
    return places


def _videos(document: Mapping[str, Any], path: Path) -> dict[Any, tuple[int, float, str]]:
    """Return label, frame rate and name of each video by its id."""
    found: dict[Any, tuple[int, float, str]] = {}
    videos = document.get("videos", [])
    for place, video in enumerate(videos if isinstance(videos, list) else []):
        where = f"{path}: videos[{place}]"
        key = json_text.field(video, "id", where)
        label = _whole(video.get("label", -1), where, "the label")
        fps = video.get("fps", float("nan"))
        if (
            isinstance(fps, bool)
            or not isinstance(fps, (int, float))
            or not isinstance(key, (int, str))
            or label < -1
        ):
            raise ValueError(f"{where}: 'id', 'label' or 'fps' is no number")
        found[key] = label, float(fps), str(video.get("name", video.get("file_name", key)))
    return found


def _joint_names(document: Mapping[str, Any]) -> list[str] | None:
    categories = document.get("categories")
    if isinstance(categories, list) and categories and isinstance(categories[0], Mapping):
        names = categories[0].get("keypoints")
        if isinstance(names, list):
            return [str(name) for name in names]
    return None


def _named_images(entries: list[Any], where: Any, clips: _Clips) -> dict[Any, tuple[int, int]]:
    """Return clip and frame of each image that a list of results mentions."""
    places: dict[Any, tuple[int, int]] = {}
    for place, entry in enumerate(entries):
        key = json_text.field(entry, "image_id", where(place))
        if isinstance(key, str):
            folder = str(PurePosixPath(key).parent)
            frame = _frame_in(key)
            if frame is None:
                raise ValueError(f"{where(place)}: image_id {key[:60]!r} has no number that tells the frame")
            places[key] = clips.number(folder, "" if folder == "." else folder), frame
        else:
            places[_hashable(key)] = clips.number(".", ""), _whole(key, where(place), "image_id")
    return places


def _places(
    entries: list[Any], images: dict[Any, tuple[int, int]], where: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the clip, body and frame of every entry, ``(n,)`` int64 each."""
    tracks: dict[tuple[int, Any], int] = {}
    people: dict[tuple[int, int], int] = {}
    rows = []
    for place, entry in enumerate(entries):
        key = _hashable(json_text.field(entry, "image_id", where(place)))
        if key not in images:
            raise ValueError(f"{where(place)}: image_id {str(key)[:60]!r} is not among the images")
        clip, frame = images[key]
        track = next((entry[item] for item in _TRACK_KEYS if entry.get(item) is not None), None)
        if track is None:
            # The n-th person of an image, for want of tracks.
            number = people.get((clip, frame), 0)
            people[clip, frame] = number + 1
            track = ("person", number)
        else:
            track = ("track", _hashable(track))
        rows.append((clip, tracks.setdefault((clip, track), len(tracks)), frame))
    clips, bodies, frames = np.array(rows, dtype=np.int64).T
    return clips, bodies, frames


def _hashable(value: Any) -> Any:
    """Return a key for an id, which AlphaPose may write as a list of one number."""
    return value if isinstance(value, (int, float, str)) else str(value)


def _whole(value: Any, where: str, what: str) -> int:
    number = float(value) if isinstance(value, (int, float)) and abs(value) < 1 << 53 else math.nan
    if isinstance(value, bool) or not number.is_integer():
        raise ValueError(f"{where}: {what} is {str(value)[:60]!r}, expected a whole number")
    return int(number)


def _frame_in(name: str) -> int | None:
    """Return the last number in a file's name, without its folder and ending."""
    found = re.findall(r"\d{1,15}", PurePosixPath(name).stem)
    return int(found[-1]) if found else None
