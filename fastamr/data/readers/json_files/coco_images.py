"""The images and videos of COCO's JSON: which clip and which frame an annotation belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common import json_text
from ..common.frame_names import clips_of_names, frames_of_names

_FRAME_KEYS = ("frame_id", "frame_index", "frame_idx", "frame")
_VIDEO_KEYS = ("video_id", "vid_id", "video", "video_name")
_READ = {*_FRAME_KEYS, *_VIDEO_KEYS, "id", "file_name"}
# What COCO, PoseTrack and their tools write about an image that says nothing about motion.
_QUIET = {
    "width",
    "height",
    "license",
    "coco_url",
    "flickr_url",
    "date_captured",
    "is_labeled",
    "nframes",
    "mask_file",
    "image_id",
}
_QUIET |= {"has_no_densepose", "ignore_regions_x", "ignore_regions_y"}
_NAN = float("nan")


@dataclass
class Images:
    """The clips and frames of images.

    Args:
        places: image, as text -> the number of its clip, and its frame.
        names: the clips.
        labels: their classes, -1 = unknown.
        label_names: the classes, where they are words.
        fps: their frame rates, NaN = unknown.
        notes: how they were told, a line each.
    """

    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    label_names: tuple[str, ...] = ()
    fps: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def clip(self, name: str, label: int = -1, fps: float = _NAN) -> int:
        """Return the number of a new clip."""
        self.names.append(name)
        self.labels.append(label)
        self.fps.append(fps)
        return len(self.names) - 1


@dataclass(frozen=True)
class _Image:
    """An image of the object: where it stands, its id, its file, its frame and its video where it tells them."""

    where: str
    key: str
    file: str
    frame: int | None
    video: Any


def images_of_names(images: Sequence[str], path: Path, where: Callable[[int], str]) -> Images:
    """Return the clips and frames of the images that a list of results mentions: a clip a folder.

    Args:
        images: a name, or a number as text that counts the images, for each entry.
        path: the file, which names a clip without a folder.
        where: tells where an entry stands, for errors.

    Raises:
        ValueError: as :func:`~..common.frame_names.clips_of_names`.
    """
    found = clips_of_names(images, where)
    result = Images(notes=list(found.notes))
    for name, fps in zip(found.names, found.fps, strict=True):
        result.clip(name or path.stem, fps=fps)
    pairs = zip(found.clips.tolist(), found.frames.tolist(), strict=True)
    result.places = dict(zip(images, pairs, strict=True))
    return result


def images_of(document: Mapping[str, Any], path: Path) -> Images:
    """Return the clips and frames of an object's images: a clip a video, or a folder where there are no videos.

    Raises:
        ValueError: 'images' is missing, a video is not sound, no image is, or the images of a clip are no sequence.
    """
    listed = json_text.field(document, "images", str(path))
    if not isinstance(listed, list):
        raise ValueError(f"{path}: 'images' is a {type(listed).__name__}, expected a list")
    images, bad = _sound_images(listed, str(path))
    result = Images()
    unread = {str(key) for image in listed if isinstance(image, Mapping) for key in image} - _READ - _QUIET
    if unread:
        result.notes.append(f"keys of images that are not read: {', '.join(sorted(unread))}")
    videos = _videos(document, path, result)
    if bad and not images:
        raise ValueError(bad[0])
    if bad:
        result.notes.append(f"left out {len(bad)} images: {'; '.join(bad[:3])}" + "; ..." * (len(bad) > 3))
    by_video: dict[Any, list[_Image]] = {}
    loose: list[_Image] = []
    for image in images:
        (loose if image.video is None else by_video.setdefault(image.video, [])).append(image)
    for video, members in by_video.items():
        label, fps, name = videos.get(str(video), (-1, _NAN, str(video)))
        _add_video(result, members, name, label, fps)
    if loose:
        _add_loose(result, loose, path)
    _check_places(result, images)
    return result


def _check_places(result: Images, images: Sequence[_Image]) -> None:
    """Raise where two images have one id, or are one frame of one clip."""
    ids: dict[str, _Image] = {}
    frames: dict[tuple[int, int], _Image] = {}
    for image in images:
        if ids.setdefault(image.key, image) is not image:
            raise ValueError(f"{image.where}: 'id' {image.key[:60]} is that of {ids[image.key].where}, too")
        clip, frame = result.places[image.key]
        other = frames.setdefault((clip, frame), image)
        if other is not image:
            raise ValueError(
                f"{image.where}: clip {result.names[clip]!r} has its frame {frame} in {other.where} already; give the "
                f"images of each clip a 'video_id' of their own"
            )


def _sound_images(images: Any, path: str) -> tuple[list[_Image], list[str]]:
    """Return the images that have an id and a frame or a file's name, and what is wrong with the others."""
    found: list[_Image] = []
    bad: list[str] = []
    for place, image in enumerate(images):
        where = f"{path}: images[{place}]"
        try:
            key = json_text.field(image, "id", where)
            if not isinstance(key, (int, str)):
                raise ValueError(f"{where}: 'id' is a {type(key).__name__}, expected a number or a string")
            given = next((image[item] for item in _FRAME_KEYS if image.get(item) is not None), None)
            frame = None if given is None else json_text.whole(given, where, "the frame number")
            file = str(image.get("file_name", ""))
            if frame is None and not any(letter.isdigit() for letter in file):
                raise ValueError(
                    f"{where}: neither a frame number ('frame_id') nor a 'file_name' with a number"
                )
            video = next(
                (image[item] for item in _VIDEO_KEYS if isinstance(image.get(item), (int, str))), None
            )
            found.append(_Image(where, str(key), file, frame, video))
        except ValueError as error:
            bad.append(str(error))
    return found, bad


def _add_video(result: Images, members: list[_Image], name: str, label: int, fps: float) -> None:
    """Add the clip of a video; its frames are told by number, or by the names where a number is missing."""
    if all(image.frame is not None for image in members):
        frames = [image.frame for image in members]
    else:
        told = frames_of_names([image.file for image in members], lambda row: members[row].where)
        frames, fps = told.frames.tolist(), told.fps if fps != fps else fps
        result.notes += [note for note in told.notes if note not in result.notes]
    clip = result.clip(name, label, fps)
    result.places |= {
        image.key: (clip, int(frame or 0)) for image, frame in zip(members, frames, strict=True)
    }


def _add_loose(result: Images, images: list[_Image], path: Path) -> None:
    """Add the clips of images without a video: a clip a folder."""
    numbered = [image for image in images if image.frame is not None]
    folders: dict[str, list[_Image]] = {}
    for image in numbered:
        folders.setdefault(image.file.replace("\\", "/").rpartition("/")[0], []).append(image)
    for folder, members in folders.items():
        _add_video(result, members, folder or path.stem, -1, _NAN)
    named = [image for image in images if image.frame is None]
    if named:
        told = images_of_names([image.file for image in named], path, lambda row: named[row].where)
        first = len(result.names)
        for name, fps in zip(told.names, told.fps, strict=True):
            result.clip(name, fps=fps)
        for image in named:
            clip, frame = told.places[image.file]
            result.places[image.key] = first + clip, frame
        result.notes += told.notes
        result.notes.append("images without 'video_id': the images of a folder are one clip, by their names")


def _videos(document: Mapping[str, Any], path: Path, result: Images) -> dict[str, tuple[int, float, str]]:
    """Return label, frame rate and name of each video by its id; labels that are words become classes."""
    found: dict[str, tuple[Any, float, str]] = {}
    videos = document.get("videos", [])
    for place, video in enumerate(videos if isinstance(videos, list) else []):
        where = f"{path}: videos[{place}]"
        key = json_text.field(video, "id", where)
        label = -1 if video.get("label") is None else video["label"]
        label = label if isinstance(label, str) else json_text.whole(label, where, "the label")
        fps = _NAN if video.get("fps") is None else json_text.real(video["fps"])
        if fps is None or not isinstance(key, (int, str)) or (not isinstance(label, str) and label < -1):
            raise ValueError(f"{where}: 'id', 'label' or 'fps' is no number")
        found[str(key)] = label, fps, str(video.get("name", video.get("file_name", key)))
    labels = [label for label, _, _ in found.values()]
    if any(isinstance(label, str) for label in labels):
        result.label_names = tuple(sorted({str(label) for label in labels} - {"-1", ""}))
    numbers = {name: number for number, name in enumerate(result.label_names)}
    return {
        key: (numbers.get(str(label), -1) if numbers else label, fps, name)
        for key, (label, fps, name) in found.items()
    }
