"""Times of day, dates and Unix times in the names of images."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SLOWEST = 10.0
"""Images further apart than so many seconds are photographs, no motion (choice)."""
FASTEST = 0.002
"""Times closer together than so many seconds are no times but counted numbers (choice)."""
FARTHEST = 1 << 40
"""Frames; a time further on than so many is wrong (choice)."""

_CLOCK = r"(?P<hour>\d{2})[-_:.h]?(?P<minute>\d{2})[-_:.m]?(?P<second>\d{2})s?"
_PART = r"(?:(?P<point>[-_.,])(?P<part>\d{1,9}))?"
_DAY = r"(?P<year>(?:19|20)\d{2})[-_.]?(?P<month>\d{2})[-_.]?(?P<day>\d{2})"
_FORMS = tuple(
    re.compile(rf"(?<!\d){form}(?!\d)", re.IGNORECASE)
    for form in (
        rf"{_DAY}[-_. t]*{_CLOCK}{_PART}",
        rf"{_DAY}{_CLOCK}(?P<point>)(?P<part>\d{{3}}|\d{{6}})",
        # Unix time: seconds with a fraction, and whole milliseconds, microseconds or nanoseconds.
        r"(?P<unix>1\d{9})(?P<point>[-_.]?)(?P<part>\d{3}|\d{6}|\d{9})",
        r"(?P<unix>1\d{9})(?P<point>\.)(?P<part>\d{1,9})",
        # A time of day with separators and a fraction.
        r"(?P<hour>\d{2})[-_:.h](?P<minute>\d{2})[-_:.m](?P<second>\d{2})s?(?P<point>[-_.,])(?P<part>\d{1,9})",
        # Seconds of the recording.
        r"(?P<unix>\d{1,6})(?P<point>\.)(?P<part>\d{3,9})",
    )
)


@dataclass(frozen=True)
class Stamps:
    """Times in names.

    Args:
        seconds: ``(n,)`` float64, since the first one.
        before: what each name has before its time.
        after: and behind it.
    """

    seconds: np.ndarray
    before: tuple[str, ...]
    after: tuple[str, ...]


def stamps_of(stems: Sequence[str]) -> Stamps | None:
    """Return the times in names without endings; None unless all names hold one, of one form."""
    for form in _FORMS:
        found = [form.search(stem) for stem in stems]
        matches = [match for match in found if match is not None]
        if len(matches) < len(stems):
            continue
        seconds = [_whole_seconds(match) for match in matches]
        if any(second is None for second in seconds):
            continue
        whole = np.array(seconds, dtype=np.int64)
        if not np.ptp(whole) and all(
            match["point"] in ("-", "_") and len(match["part"]) < 6 for match in matches
        ):
            # Within one second the last number may as well count frames.
            continue
        return Stamps(
            (whole - whole.min()) + _fractions(matches),
            tuple(stem[: match.start()] for stem, match in zip(stems, matches, strict=True)),
            tuple(stem[match.end() :] for stem, match in zip(stems, matches, strict=True)),
        )
    return None


def _whole_seconds(match: re.Match[str]) -> int | None:
    """Return the whole seconds of a time; None where there is no such day or time."""
    parts = match.groupdict()
    if parts.get("unix"):
        return int(parts["unix"])
    hour, minute, second = (int(parts[name]) for name in ("hour", "minute", "second"))
    if hour > 23 or minute > 59 or second > 60:
        return None
    day = 0
    if parts.get("year"):
        try:
            day = datetime.date(int(parts["year"]), int(parts["month"]), int(parts["day"])).toordinal()
        except ValueError:
            return None
    return ((day * 24 + hour) * 60 + minute) * 60 + second


def _fractions(matches: Sequence[re.Match[str]]) -> np.ndarray:
    """Return the parts of seconds: decimals behind a point or of equal width, else counted milli- or microseconds."""
    texts = [match["part"] or "" for match in matches]
    points = {match["point"] for match in matches if match["part"]}
    widths = {len(text) for text in texts if text}
    decimal = points <= {".", ",", ""} or len(widths) == 1
    longest = max(widths, default=0)
    unit = 3 if longest <= 3 else 6 if longest <= 6 else 9
    return np.array([int(text or 0) / 10 ** (len(text) if decimal else unit) for text in texts])


@dataclass(frozen=True)
class Rhythm:
    """Times as counted frames.

    Args:
        frames: ``(n,)`` int64, from 0.
        fps: frames a second.
        steady: whether most steps are nearly equal.
    """

    frames: np.ndarray
    fps: float
    steady: bool


def rhythm_of(seconds: np.ndarray) -> Rhythm | None:
    """Count frames by their times: a step of about the median is one frame, a longer one as many as fit.

    Args:
        seconds: ``(n,)`` real numbers, in any order; equal times are one frame.

    Returns:
        None where the median step is shorter than :data:`FASTEST` or longer than :data:`SLOWEST`, or all are equal.
    """
    times, place = np.unique(seconds, return_inverse=True)
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else 0.0
    if not FASTEST <= usual <= SLOWEST:
        return None
    counts = np.clip(np.rint(steps / usual), 1, FARTHEST).astype(np.int64)
    steady = bool((np.abs(steps / usual - counts) <= 0.25).mean() >= 0.8)
    frames = np.r_[0, counts.cumsum()]
    return Rhythm(frames[place], float(frames[-1] / (times[-1] - times[0])), steady)
