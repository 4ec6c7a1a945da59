"""Which clip and which frame an image is, told by its name.

The number that varies is the frame; ``docs/data.md`` says what happens where several do, or times stand in their place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from .time_stamps import SLOWEST, Rhythm, Stamps, rhythm_of, stamps_of

_FRAME_WORDS = {"frame", "frames", "frm", "fr", "f", "img", "image", "im", "idx"}
_CLIP_WORDS = {
    "cam",
    "camera",
    "c",
    "view",
    "v",
    "vid",
    "video",
    "clip",
    "seq",
    "sequence",
    "scene",
    "s",
    "subject",
}
_CLIP_WORDS |= {"p", "person", "a", "action", "r", "take", "trial", "e", "episode", "kinect"}
_FEW = 3
"""So many images a clip must have on average, where names of one folder are several clips (choice)."""
_STEADY = 6
"""So many images make numbers with a nearly constant step a rhythm, not a chance (choice)."""
NEXT_STEP = (
    "name the images by clip and frame, clip/000001.jpg, or write a COCO object whose 'images' have 'video_id' and "
    "'frame_id'"
)


@dataclass(frozen=True)
class FrameNames:
    """The frames of one clip's images.

    Args:
        frames: ``(n,)`` int64, from 0 or as the names number them.
        notes: how they were told, a line each, where that is more than a number.
        fps: frames a second where the names hold times, else NaN.
    """

    frames: np.ndarray
    notes: tuple[str, ...] = ()
    fps: float = float("nan")


@dataclass(frozen=True)
class ClipNames:
    """The clips and frames of images.

    Args:
        clips: ``(n,)`` int64, the clip of each image, numbered as they begin.
        frames: ``(n,)`` int64, its frame.
        names: the clips' names; "" = nothing names it.
        fps: the clips' frame rates, NaN = unknown.
        notes: as in :class:`FrameNames`.
    """

    clips: np.ndarray
    frames: np.ndarray
    names: tuple[str, ...]
    fps: tuple[float, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Name:
    """A name in parts: ``texts`` stand around the ``numbers``; ``place`` says where it was found first."""

    text: str
    texts: tuple[str, ...]
    numbers: tuple[int, ...]
    place: int


def frames_of_names(names: Sequence[str], where: Callable[[int], str]) -> FrameNames:
    """Return the frame of each image of one clip; their folders do not matter.

    Args:
        names: names of files with or without folder and ending; equal names are one frame.
        where: tells in words where a name stands, for errors.

    Raises:
        ValueError: the names are no sequence: without a number, of several clips, or two images of one frame.
    """
    found = clips_of_names([_parts(name)[1] for name in names], where)
    if len(found.names) > 1:
        shown = ", ".join(repr(name) for name in found.names[:4])
        raise ValueError(f"{where(0)}: the names are of {len(found.names)} clips ({shown}); {NEXT_STEP}")
    return FrameNames(found.frames, found.notes, found.fps[0] if found.fps else float("nan"))


def clips_of_names(names: Sequence[str], where: Callable[[int], str]) -> ClipNames:
    """Return the clip and the frame of each image: every folder is a clip, or several where its names say so.

    Args:
        names: names of files with or without folder and ending; a slash or a back slash ends a folder.
        where: tells in words where a name stands, for errors.

    Raises:
        ValueError: as :func:`frames_of_names`, of the names of a folder.
    """
    places: dict[str, int] = {}
    folders: dict[str, list[str]] = {}
    for place, name in enumerate(names):
        if places.setdefault(name, place) == place:
            folders.setdefault(_parts(name)[0], []).append(name)
    told: dict[str, tuple[str, int]] = {}
    rates: dict[str, float] = {}
    notes: dict[str, None] = {}
    for folder, members in folders.items():
        for clip, found, images in _folder_clips(members, [places[name] for name in members], where):
            key = "/".join(filter(None, (folder, clip)))
            rates[key] = found.fps
            notes |= dict.fromkeys(found.notes)
            told |= {name: (key, int(frame)) for name, frame in zip(images, found.frames, strict=True)}
    told_rates = [rate for rate in rates.values() if rate == rate]
    if told_rates:
        shown = " to ".join(dict.fromkeys(f"{rate:.4g}" for rate in (min(told_rates), max(told_rates))))
        notes[f"frames are told by the times in the images' names, about {shown} frames a second"] = None
    numbers: dict[str, int] = {}
    clips = [numbers.setdefault(told[name][0], len(numbers)) for name in names]
    return ClipNames(
        np.array(clips, dtype=np.int64),
        np.array([told[name][1] for name in names], dtype=np.int64),
        tuple(numbers),
        tuple(rates[key] for key in numbers),
        tuple(notes),
    )


def _parts(name: str) -> tuple[str, str]:
    """Return the folder and the name of a file."""
    folder, _, file = name.replace("\\", "/").rpartition("/")
    folder = re.sub(r"^[a-zA-Z][a-zA-Z0-9+]*://", "", folder)
    return re.sub(r"^(\./)+|^\.$|^/+|/+$", "", folder), file


def _stem(file: str) -> str:
    """Return a file's name without endings, which begin with a letter, and without what a URL asks for."""
    return re.sub(r"(\.[a-zA-Z][a-zA-Z0-9]{0,4})+$", "", re.sub(r"[?#].*$", "", file))


def _folder_clips(
    members: list[str], places: list[int], where: Callable[[int], str]
) -> list[tuple[str, FrameNames, list[str]]]:
    """Return name, frames and images of each clip of a folder's names."""
    stems = [_stem(_parts(name)[1]) for name in members]
    if len(members) == 1 and re.search(r"\d", stems[0]):
        return [("", FrameNames(np.zeros(1, dtype=np.int64)), members)]
    stamps = stamps_of(stems)
    groups: list[tuple[str, FrameNames, list[str]]] | None = None
    if stamps is not None:
        groups = _stamped_clips(stamps, members, places, where)
    return groups or _numbered_clips(stems, members, places, where)


def _stamped_clips(
    stamps: Stamps, members: list[str], places: list[int], where: Callable[[int], str]
) -> list[tuple[str, FrameNames, list[str]]] | None:
    """Return the clips of names with times; None where the times do not tell the frames."""
    around = [f"{before}|{after}" for before, after in zip(stamps.before, stamps.after, strict=True)]
    plain = [re.sub(r"\d+", "#", text.lower()) for text in around]
    if len(set(plain)) == 1:
        numbers = np.array([[int(digits[:18]) for digits in re.findall(r"\d+", text)] for text in around])
        varying = numbers[:, np.ptp(numbers, axis=0) > 0] if numbers.size else numbers
        # A number that grows with the time counts the images; others are of the clip.
        keys = plain if varying.size and _in_step(np.c_[stamps.seconds, varying]) else around
    else:
        keys = around
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key.lower(), []).append(row)
    if len(members) < _FEW * len(groups) and len(groups) > 1:
        return None
    clips = []
    for key, rows in groups.items():
        seconds = stamps.seconds[rows]
        if len(np.unique(seconds)) < len(rows):
            return None
        rhythm = rhythm_of(seconds)
        if rhythm is None and len(rows) > 1:
            step = float(np.median(np.diff(np.sort(seconds))))
            if step > SLOWEST:
                raise ValueError(
                    f"{where(places[rows[0]])}: the times in the images' names are {step:.4g} s apart, which is no "
                    f"motion but single photographs; {NEXT_STEP}"
                )
            return None
        found = FrameNames(np.zeros(1, dtype=np.int64)) if rhythm is None else _of_rhythm(rhythm)
        name = re.sub(r"[-_. |]+$|^[-_. |]+", "", key) if len(groups) > 1 else ""
        clips.append((re.sub(r"[-_. ]*\|[-_. ]*", "_", name), found, [members[row] for row in rows]))
    return clips


def _of_rhythm(rhythm: Rhythm) -> FrameNames:
    uneven = "frames come at uneven times by the images' names and are counted as even ones"
    return FrameNames(rhythm.frames, () if rhythm.steady else (uneven,), rhythm.fps)


def _numbered_clips(
    stems: list[str], members: list[str], places: list[int], where: Callable[[int], str]
) -> list[tuple[str, FrameNames, list[str]]]:
    """Return the clips of names with counted numbers."""
    kinds: dict[tuple[str, ...], list[_Name]] = {}
    for stem, member, place in zip(stems, members, places, strict=True):
        texts = tuple(re.split(r"\d+", stem.lower()))
        numbers = tuple(int(digits) for digits in re.findall(r"\d+", stem))
        kinds.setdefault(texts, []).append(_Name(member, texts, numbers, place))
    without = [image for texts, images in kinds.items() if len(texts) == 1 for image in images]
    odd = without or [min(kinds.values(), key=len)[0]]
    if without or (len(kinds) > 1 and len(members) < _FEW * len(kinds)):
        lacks = "has no number that tells the frame" if without else "is not numbered as the others are"
        raise ValueError(f"{where(odd[0].place)}: image {odd[0].text[:60]!r} {lacks}; {NEXT_STEP}")
    several = ("the images' names of a folder differ in their text, which tells the clip",) * (len(kinds) > 1)
    return [clip for images in kinds.values() for clip in _clips_of_kind(images, several, where)]


def _clips_of_kind(
    images: list[_Name], several: tuple[str, ...], where: Callable[[int], str]
) -> list[tuple[str, FrameNames, list[str]]]:
    """Return the clips of names that differ only in numbers; ``several`` notes that their text tells the clip."""
    table = np.array([[min(number, 1 << 62) for number in image.numbers] for image in images], dtype=np.int64)
    notes: tuple[str, ...] = ()
    varying = [column for column in range(table.shape[1]) if np.ptp(table[:, column])]
    if len(images) == 1 or len(varying) == 0:
        if len(images) > 1:
            _refuse_twice(images, 0, 1, where)
        frame, varying = 0, []
    elif _in_step(table[:, varying]):
        # Numbers that grow together, frame and time: the one with the fewest gaps counts.
        frame = min(varying, key=lambda column: (_span(table[:, column]), -column))
        varying = [frame]
    else:
        frame, notes = _frame_column(table, varying, images, where)
    others = [column for column in varying if column != frame]
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, numbers in enumerate(table):
        groups.setdefault(tuple(int(numbers[column]) for column in others), []).append(row)
    clips = []
    for rows in groups.values():
        values = table[rows, frame]
        order = np.argsort(values, kind="stable")
        twice = np.flatnonzero(np.diff(values[order]) == 0)
        if len(twice):
            _refuse_twice(images, rows[order[twice[0]]], rows[order[twice[0] + 1]], where)
        found = _even(values)
        name = _clip_name(images[rows[0]], frame) if several or len(groups) > 1 else ""
        own = FrameNames(found.frames, (*several, *notes, *found.notes))
        clips.append((name, own, [images[row].text for row in rows]))
    return clips


def _in_step(columns: np.ndarray) -> bool:
    """Tell whether all columns bring the rows, none twice, into one order."""
    order = np.argsort(columns[:, 0], kind="stable")
    return bool((np.diff(columns[order], axis=0) > 0).all())


def _span(values: np.ndarray) -> float:
    """Return the span of numbers in their smallest step."""
    steps = np.diff(np.unique(values))
    return float(np.ptp(values) / np.gcd.reduce(steps))


def _frame_column(
    table: np.ndarray, varying: list[int], images: list[_Name], where: Callable[[int], str]
) -> tuple[int, tuple[str, ...]]:
    """Return which of several numbers that vary is the frame, and the note that says so."""
    texts = images[0].texts
    words: Mapping[int, str] = {
        column: (re.findall(r"[a-z]+", texts[column]) or [""])[-1] for column in varying
    }
    left = [column for column in varying if words[column] not in _CLIP_WORDS]
    counted = [column for column in left if words[column] in _FRAME_WORDS]
    variety = {column: len(np.unique(table[:, column])) for column in varying}
    if len(counted) == 1:
        frame = counted[0]
    elif len(left) == 1:
        frame = left[0]
    elif varying[-1] in left and all(variety[varying[-1]] > variety[column] for column in varying[:-1]):
        frame = varying[-1]
    else:
        shown = ", ".join(repr(image.text[:40]) for image in images[:3])
        raise ValueError(
            f"{where(images[0].place)}: {len(varying)} numbers vary in the images' names ({shown}), and none is "
            f"told to be the frame; {NEXT_STEP}"
        )
    return frame, (
        "several numbers vary in the images' names: one counts the frames, the others tell the clip",
    )


def _even(values: np.ndarray) -> FrameNames:
    """Return numbers with a nearly constant step, times in milliseconds perhaps, as frames from 0; others stay."""
    steps = np.diff(np.unique(values))
    usual = float(np.median(steps)) if len(steps) else 1.0
    counts = np.rint(steps / usual)
    uneven = len(np.unique(steps)) > 1 and np.gcd.reduce(steps) < 0.5 * usual
    if len(steps) + 1 < _STEADY or usual < 4 or not uneven or (np.abs(steps / usual - counts) > 0.15).any():
        return FrameNames(values)
    frames = np.searchsorted(np.unique(values), values)
    told = np.r_[0, counts.cumsum()].astype(np.int64)
    note = f"the numbers in the images' names grow by about {usual:g} a frame and are counted as frames"
    return FrameNames(told[frames], (note,))


def _clip_name(image: _Name, frame: int) -> str:
    """Return a name without its frame number, and without the word before it."""
    texts = list(image.texts)
    texts[frame] = re.sub(rf"(?<![a-z])({'|'.join(_FRAME_WORDS)})[-_. ]*$", "", texts[frame])
    stem = _stem(_parts(image.text)[1]).lower()
    digits = re.findall(r"\d+", stem)
    digits[frame] = ""
    joined = "".join(text + number for text, number in zip(texts, [*digits, ""], strict=True))
    return re.sub(r"[-_. ]+$|^[-_. ]+", "", re.sub(r"[-_. ]{2,}", "_", joined))


def _refuse_twice(images: list[_Name], one: int, other: int, where: Callable[[int], str]) -> NoReturn:
    raise ValueError(
        f"{where(images[other].place)}: images {images[one].text[:60]!r} and {images[other].text[:60]!r} are one "
        f"frame; keep one of them"
    )
