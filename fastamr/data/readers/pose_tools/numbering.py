"""The number of each frame of a document, and the frame rate: by numbers, images' names, time stamps, or the order."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..common.frame_names import frames_of_names
from ..common.json_text import real
from ..common.layout_choice import plain
from ..numbering.time_stamps import rhythm_of
from .frames import Frame, frame_key, named

_UNITS = {
    "timestampusec": 1e-6,
    "timestampus": 1e-6,
    "timestampns": 1e-9,
    "timestampms": 1e-3,
    "timestampmsec": 1e-3,
    "timems": 1e-3,
    "timemsec": 1e-3,
    "timestampsec": 1.0,
    "timestamps": 1.0,
    "timestampseconds": 1.0,
    "timesec": 1.0,
    "timeseconds": 1.0,
    "seconds": 1.0,
    "timestamp": math.nan,
    "time": math.nan,
    "t": math.nan,
}
# Where a name does not tell the unit: the shortest usual step of each unit's number, longest unit last. Frames come
# every 2 ms to 2 s (choice).
_STEPS = ((1e6, 1e-9), (1e3, 1e-6), (2.0, 1e-3), (0.0, 1.0))
_RATES = ("fps", "framerate", "framespersecond", "videofps")
_ABOUT = ("info", "meta", "metadata", "metainfo", "video", "videoinfo")


@dataclass
class Numbers:
    """The frames of a document.

    Args:
        frames: ``(n,)`` int64.
        fps: frames a second, NaN = unknown.
        lost: frames that tell no number although others do, with the reason.
        notes: how they were told, where it is not plain.
    """

    frames: np.ndarray
    fps: float = math.nan
    lost: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def number_frames(frames: Sequence[Frame], where: str) -> Numbers:
    """Number the frames of a document: by the numbers that they tell, else by time, else in their order.

    Args:
        frames: at least one.
        where: names the document in errors.

    Raises:
        ValueError: the names of images are no sequence, or times are no motion.
    """
    told = [_number(frame) for frame in frames]
    seconds, time_notes = _seconds(frames)
    if any(value is not None for value in told):
        found = _by_number(told, frames, where)
        found.notes += time_notes
        if seconds is not None:
            found.fps = _rate(found.frames, seconds, found.lost)
    elif seconds is not None:
        found = _by_time(seconds, frames, where)
        found.notes += time_notes
    else:
        found = Numbers(np.arange(len(frames)), notes=time_notes)
    return found


def rate_of(document: Any) -> float:
    """Return the frame rate that a document tells beside its frames, NaN = none."""
    for entry in (document, _about(document)):
        key = named(entry, _RATES)
        value = entry[key] if key is not None and entry is not None else None
        rate = real(value)
        if rate is not None and rate > 0:
            return rate
    return math.nan


def _about(document: Any) -> Mapping[str, Any] | None:
    key = named(document, _ABOUT)
    found = document[key] if key is not None else None
    return found if isinstance(found, Mapping) else None


def _number(frame: Frame) -> Any:
    key = frame_key(frame.content)
    return frame.content[key] if key is not None else frame.key


def _by_number(told: list[Any], frames: Sequence[Frame], where: str) -> Numbers:
    whole = [_whole(value) for value in told]
    if len(frames) == 1:
        return Numbers(np.zeros(1, dtype=np.int64))
    times = _decimal(told)
    if times is not None:
        timed = _by_time(times, frames, where)
        timed.notes.append("the frames' keys are taken as times in seconds")
        return timed
    if all(number is not None for number, value in zip(whole, told, strict=True) if value is not None):
        lost = {place: "no frame number" for place, number in enumerate(whole) if number is None}
        values = np.array([0 if number is None else number for number in whole], dtype=np.int64)
        return Numbers(values, lost=lost)
    lost = {place: "no frame number" for place, value in enumerate(told) if value is None}
    if any(not isinstance(value, str) for value in told if value is not None):
        lost |= {
            place: f"frame number {value!r}, expected a whole number"
            for place, value in enumerate(told)
            if value is not None and whole[place] is None
        }
        values = np.array([number or 0 for number in whole], dtype=np.int64)
        return Numbers(values, lost=lost)
    rows = [place for place in range(len(told)) if place not in lost]
    named = frames_of_names(
        [str(told[place]) for place in rows], lambda place: f"{where}, {frames[rows[place]].place}"
    )
    values = np.zeros(len(told), dtype=np.int64)
    values[rows] = named.frames
    return Numbers(values, named.fps, lost, list(named.notes))


def _decimal(told: list[Any]) -> np.ndarray | None:
    """Return times where the frames' keys are decimal numbers of different size, ``"0.04"``, else None."""
    if not all(isinstance(value, str) and re.fullmatch(r"\d+\.\d+", value) for value in told):
        return None
    values = np.array([float(value) for value in told])
    return None if len(np.unique(values)) < len(values) else values


def _whole(value: Any) -> int | None:
    """Return a frame number, which may be written as text, or None."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1 << 53:
        return None
    return int(value) if float(value).is_integer() else None


def _seconds(frames: Sequence[Frame]) -> tuple[np.ndarray | None, list[str]]:
    """Return the time of every frame in seconds, or None; and what is to be said of them."""
    key = next((key for frame in frames if (key := named(frame.content, tuple(_UNITS)))), None)
    if key is None:
        return None, []
    values = [
        _time(frame.content.get(key)) if isinstance(frame.content, Mapping) else None for frame in frames
    ]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(known) < 2:
        lacking = len(values) - len(known)
        return None, [f"{key!r} is not understood in {lacking} of {len(values)} frames and not used"] * bool(
            lacking
        )
    times, unit = np.array(known), _UNITS[plain(key)]
    if any(_is_clock(frame.content[key]) for frame in frames):
        return times, []
    if not math.isnan(unit):
        return times * unit, []
    step = float(np.median(np.diff(np.unique(times)))) if len(np.unique(times)) > 1 else 0.0
    if step == 0.0:
        return None, [f"{key!r} is the same in all frames and not used"]
    unit = next(size for least, size in _STEPS if step >= least)
    name = {1e-9: "nanoseconds", 1e-6: "microseconds", 1e-3: "milliseconds", 1.0: "seconds"}[unit]
    return times * unit, [f"{key!r} is taken as {name}, about {1 / (step * unit):.4g} frames a second"]


def _time(value: Any) -> float | None:
    """Return a time as a number, dates in seconds; None where it is none."""
    try:
        number = datetime.datetime.fromisoformat(value).timestamp() if _is_clock(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None


def _is_clock(value: Any) -> bool:
    return isinstance(value, str) and any(sign in value for sign in "T:")


def _by_time(seconds: np.ndarray, frames: Sequence[Frame], where: str) -> Numbers:
    if len(np.unique(seconds)) == 1:
        return Numbers(np.arange(len(seconds)))
    rhythm = rhythm_of(seconds)
    if rhythm is None:
        step = float(np.median(np.diff(np.unique(seconds))))
        raise ValueError(
            f"{where}, {frames[0].place}: the frames' times are {step:.4g} s apart, which is no motion; number the "
            f"frames ('frame') if they follow one another"
        )
    uneven = ["frames come at uneven times and are counted as even ones"] * (not rhythm.steady)
    return Numbers(rhythm.frames, rhythm.fps, notes=uneven)


def _rate(frames: np.ndarray, seconds: np.ndarray, lost: Mapping[int, str]) -> float:
    """Return the frames a second from numbers and times, NaN where they do not grow together."""
    rows = [place for place in range(len(frames)) if place not in lost]
    numbers, first = np.unique(frames[rows], return_index=True)
    times = seconds[rows][first]
    if len(numbers) < 2 or (np.diff(times) <= 0).any():
        return math.nan
    return float(1 / np.median(np.diff(times) / np.diff(numbers)))
