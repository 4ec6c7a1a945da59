"""The clips of a table: when each row was, of whom it is, and what the table tells of whole clips."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ...packed.dataset import PackedSkeletons
from ...packed.split import Split
from ..common.linking import groups
from ..numbering.time_stamps import FARTHEST
from .cells import is_missing
from .columns import Plan
from .text import Codes, Columns

_TRAIN, _TEST = (
    {"train", "training", "1", "true", "yes"},
    {"test", "testing", "eval", "evaluation", "0", "false", "no"},
)
_HELD = {"val", "valid", "validation", "dev"}
_IMAGE = re.compile(r"(?i).*\.(?:jpe?g|png|bmp|tiff?|webp)")
# How far from an even grid times may lie, in frames, to be placed on it (choice).
_UNEVEN = 0.25
# The unit of times by the step from frame to frame: one of 0.2 to 2 million is no frame in microseconds (choice).
_UNITS_OF_TIME = (
    (2.0, 1.0, "seconds"),
    (2e3, 1e-3, "milliseconds"),
    (2e5, 1e-6, "microseconds"),
    (2e6, 1e-7, "ticks of 100 nanoseconds"),
    (float("inf"), 1e-9, "nanoseconds"),
)


@dataclass
class Rows:
    """Whose pose each row of a table is, or is a part of.

    Args:
        clip: ``(n,)`` int64, by natural order of the names.
        frame: ``(n,)`` int64.
        body: ``(n,)`` int64, or None where the table does not tell people apart.
        keep: ``(n,)`` bool, False = the row cannot be placed.
        clip_names: the clips.
        body_names: the bodies.
        about: what the table tells of whole clips.
    """

    clip: np.ndarray
    frame: np.ndarray
    body: np.ndarray | None
    keep: np.ndarray
    clip_names: list[str]
    body_names: list[str]
    about: About


@dataclass
class About:
    """What a table tells of whole clips.

    Args:
        labels: the class of each, -1 = unknown; None = of none.
        label_names: the classes; empty = the labels are numbers.
        fps: frames a second of each, NaN = unknown.
        splits: splits by name.
        columns: values by name, as :meth:`PackedSkeletons.from_clips` takes them.
    """

    labels: list[int] | None = None
    label_names: list[str] = field(default_factory=list)
    fps: list[float] = field(default_factory=list)
    splits: dict[str, Split] = field(default_factory=dict)
    columns: dict[str, tuple[torch.Tensor, tuple[str, ...]]] = field(default_factory=dict)

    def add_to(self, data: PackedSkeletons, names: Sequence[str]) -> None:
        """Put splits and columns into a data set made of the clips ``names`` or some of them."""
        place = {name: at for at, name in enumerate(names)}
        kept = torch.tensor([place[name] for name in data.names])
        data.splits.update({name: split.take(kept) for name, split in self.splits.items()})
        for name, (values, texts) in self.columns.items():
            data.columns[name] = values[kept]
            if texts:
                data.column_names[name] = texts


class Clips:
    """Reads what the rows of a table have in common.

    Args:
        plan: what the columns are.
        columns: the columns.
        names: the columns' names.
        where: the file.
        stem: the name of the clip where the table names none.
        notes: takes what a person should know.
    """

    def __init__(
        self, plan: Plan, columns: Columns, names: Sequence[str], where: str, stem: str, notes: list[str]
    ) -> None:
        self.plan, self.columns, self.names = plan, columns, names
        self.where, self.stem, self.notes = where, stem, notes
        self.count = len(columns.line)
        self.keep = np.ones(self.count, dtype=bool)
        self.unread: list[int] = []

    def rows(self, poses: int, frames_of_names: Callable[..., Any]) -> Rows:
        """Return whose pose each row is.

        Args:
            poses: about how many poses the rows are.
            frames_of_names: the function of that name, see :mod:`..common.frame_names`.

        Raises:
            ValueError: the rows have no frames, or a clip has two classes.
        """
        self._detected_class()
        self._weak_id(poses)
        self._image_names()
        clip, clip_names = self._coded("clip", self.stem)
        clip, clip_names = _sorted(clip, clip_names)
        body, body_names = self._coded("body", "")
        frame = self._frames(clip, body, frames_of_names)
        self._check_kept()
        is_told = "body" in self.plan.roles
        if is_told:
            body, body_names = _by_first_frame(clip, body, frame, self.keep, body_names)
        about = self._about(clip, frame, clip_names)
        return Rows(clip, frame, body if is_told else None, self.keep, clip_names, body_names, about)

    def _role(self, role: str) -> Codes | None:
        place = self.plan.roles.get(role)
        return None if place is None else self.columns.codes[place]

    def drop(self, bad: np.ndarray, what: str) -> None:
        """Leave rows out, said once; raise where that is most of them."""
        bad = bad & self.keep
        if not bad.any():
            return
        row = int(bad.argmax())
        reason = f"line {self.columns.line[row]}: {what}"
        if 2 * int(bad.sum()) > self.count:
            raise ValueError(f"{self.where}, {reason}")
        self.keep &= ~bad
        self.notes.append(f"{int(bad.sum())} of {self.count} rows left out, first in {reason}")

    def _check_kept(self) -> None:
        if not self.keep.any():
            raise ValueError(f"{self.where}: no row can be used; see its first lines")

    def _weak_id(self, poses: int) -> None:
        """Tell what a column ``id`` numbers: the rows, the clips or the people."""
        codes = self._role("body")
        if codes is None:
            return
        name = self.names[self.plan.roles["body"]]
        if all(map(is_missing, codes.names)):
            self.unread.append(self.plan.roles.pop("body"))
        elif name.strip().lower() in ("id", "idx", "pid"):
            is_text = not all(is_missing(text) or _whole(text) is not None for text in codes.names)
            if len(codes.names) >= max(poses, 2) and len(codes.names) > 1:
                self.unread.append(self.plan.roles.pop("body"))
            elif is_text and "clip" not in self.plan.roles:
                self.plan.roles["clip"] = self.plan.roles.pop("body")
                self.notes.append(f"column {name!r} is taken as the name of the clip")
            else:
                self.notes.append(f"column {name!r} is taken as the number of the person")

    def _detected_class(self) -> None:
        """Take columns that say only ``person``, the class of a detector, and its number, for no clip and no action."""
        told = {role: codes for role in ("clip", "label") if (codes := self._role(role)) is not None}
        is_boxed = {"x1", "y1", "x2", "y2"} <= {name.strip().lower() for name in self.names}
        only = [{name.lower() for name in codes.names} for codes in told.values()]
        if {"person"} not in only and not (is_boxed and only and only[-1] <= {"0", "0.0"}):
            return
        for role, codes in told.items():
            if {name.lower() for name in codes.names} <= {"person", "0", "0.0"}:
                self.unread.append(self.plan.roles.pop(role))

    def _image_names(self) -> None:
        """Take a column of files as that of the frames where it names images."""
        codes = self._role("clip")
        if codes is None or not {"frame", "time"}.isdisjoint(self.plan.roles):
            return
        if all(_IMAGE.fullmatch(text) or is_missing(text) for text in codes.names):
            self.plan.roles["frame"] = self.plan.roles.pop("clip")

    def _coded(self, role: str, default: str) -> tuple[np.ndarray, list[str]]:
        """Return the number of each row's clip or body, and their names."""
        codes = self._role(role)
        if codes is None:
            return np.zeros(self.count, dtype=np.int64), [default]
        empty = np.array([is_missing(name) for name in codes.names])
        self.drop(empty[codes.values], f"{role} is empty")
        return codes.values, codes.names

    def _frames(self, clip: np.ndarray, body: np.ndarray, frames_of_names: Callable[..., Any]) -> np.ndarray:
        codes, times = self._role("frame"), self._times()
        if codes is None and times is None:
            if self.plan.axes:
                raise ValueError(
                    f"{self.where}: no column for the frame; add one named frame (whole numbers) or time (seconds)"
                )
            self.notes.append("no column for the frame: the rows are the frames, in the order of the file")
            return _order_in_group(clip * (int(body.max()) + 1) + body)
        if codes is None:
            assert times is not None
            return self._frames_of_times(clip, times)
        numbers = [_whole(text) for text in codes.names]
        if not any(number is not None for number in numbers) and not all(
            is_missing(text) or _real(text) is not None for text in codes.names
        ):
            return self._frames_of_names(codes, frames_of_names)
        found = np.array([-1 if number is None else number for number in numbers], dtype=np.int64)[
            codes.values
        ]
        bad = found < 0
        if bad.any():
            text = codes.names[codes.values[int((bad & self.keep).argmax())]]
            self.drop(bad, f"frame is {text[:60]!r}, expected a whole number from 0")
        return found

    def _frames_of_names(self, codes: Codes, frames_of_names: Callable[..., Any]) -> np.ndarray:
        first = np.zeros(len(codes.names), dtype=np.int64)
        values, rows = np.unique(codes.values, return_index=True)
        first[values] = rows
        found = frames_of_names(
            codes.names, lambda place: f"{self.where}, line {self.columns.line[first[place]]}"
        )
        self.notes.extend(found.notes)
        return np.asarray(found.frames)[codes.values]

    def _times(self) -> np.ndarray | None:
        """Return each row's time in seconds, NaN = unknown; None where no column tells."""
        place = self.plan.roles.get("time")
        if place is None:
            return None
        codes = self.columns.codes[place]
        values = np.array([_seconds(text) for text in codes.names])
        if not np.isfinite(values).any():
            self.unread.append(self.plan.roles.pop("time"))
            return None
        steps = np.diff(np.unique(values[np.isfinite(values)]))
        unit = self.plan.time_unit
        if unit is None and len(steps):
            step = float(np.median(steps))
            unit = next((size for most, size, _ in _UNITS_OF_TIME if step < most), 1e-9)
            told = next(name for _, size, name in _UNITS_OF_TIME if size == unit)
            self.notes.append(f"column {self.names[place]!r} is taken as {told}")
        return (values * (unit or 1.0))[codes.values]

    def _frames_of_times(self, clip: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Return the frame of each time: on an even grid where the times lie on one, else in their order."""
        self.drop(~np.isfinite(times), "its time is no number")
        frame = np.zeros(self.count, dtype=np.int64)
        uneven = 0
        for rows in groups(clip, np.flatnonzero(self.keep)):
            ticks, order = np.unique(times[rows], return_inverse=True)
            grid = _grid(ticks)
            uneven += grid is None
            frame[rows] = (np.arange(len(ticks)) if grid is None else grid)[order]
        name = self.names[self.plan.roles["time"]]
        self.notes.append(
            f"frames are counted from column {name!r}"
            + (f"; the times of {uneven} clips are uneven, which were taken in their order" if uneven else "")
        )
        return frame

    def _about(self, clip: np.ndarray, frame: np.ndarray, clip_names: list[str]) -> About:
        """Return what the table tells of whole clips."""
        about = About(fps=self._rates(clip, frame, len(clip_names)))
        label = self._role("label")
        if label is not None:
            texts, row = self._of_clips(label, clip, len(clip_names))
            if row is not None:
                raise ValueError(
                    f"{self.where}, line {self.columns.line[row]}: label {label.names[label.values[row]]!r}, but the "
                    f"clip began with {texts[clip[row]]!r}; name each clip of one action in a column 'clip'"
                )
            about.labels, about.label_names = _classes(texts)
        for name, place in self.plan.splits.items():
            self._add_split(about, name, place, clip, clip_names)
        for role in ("subject", "view"):
            if role in self.plan.roles:
                self._add_column(about, role, self.plan.roles[role], clip, len(clip_names))
        for place in self.plan.others:
            self._add_column(about, self.names[place], place, clip, len(clip_names))
        return about

    def _rates(self, clip: np.ndarray, frame: np.ndarray, count: int) -> list[float]:
        rates = np.full(count, np.nan)
        codes = self._role("fps")
        if codes is not None:
            texts, row = self._of_clips(codes, clip, count)
            rates = np.array([_real(text) or np.nan for text in texts])
            if row is not None:
                self.notes.append(
                    f"column {self.names[self.plan.roles['fps']]!r} differs within a clip: not read"
                )
                rates[:] = np.nan
        times = self._times_quietly()
        if times is not None:
            for rows in groups(clip, np.flatnonzero(self.keep & np.isfinite(times))):
                number = clip[rows[0]]
                frames, first = np.unique(frame[rows], return_index=True)
                spans = np.diff(times[rows][first])
                if len(spans) and np.isnan(rates[number]) and (spans > 0).all():
                    rates[number] = 1 / np.median(spans / np.diff(frames))
        return [float(rate) if rate > 0 else float("nan") for rate in rates]

    def _times_quietly(self) -> np.ndarray | None:
        before = len(self.notes)
        times = self._times()
        del self.notes[before:]
        return times

    def _of_clips(self, codes: Codes, clip: np.ndarray, count: int) -> tuple[list[str], int | None]:
        """Return each clip's text, "" where it has none, and the first row that has another one than its clip."""
        missing = np.array([is_missing(name) for name in codes.names])
        rows = np.flatnonzero(self.keep & ~missing[codes.values])
        first = np.full(count, -1)
        found, at = np.unique(clip[rows], return_index=True)
        first[found] = codes.values[rows[at]]
        differ = rows[codes.values[rows] != first[clip[rows]]]
        return ["" if code < 0 else codes.names[code] for code in first], int(differ[0]) if len(
            differ
        ) else None

    def _add_split(
        self, about: About, name: str, place: int, clip: np.ndarray, clip_names: list[str]
    ) -> None:
        """Add a split, or an ordinary column where the values are no halves."""
        codes = self.columns.codes[place]
        texts, row = self._of_clips(codes, clip, len(clip_names))
        halves = [text.lower() for text in texts]
        words = {half for half in halves if half}
        is_half = words <= _TRAIN | _TEST | _HELD and (words & {"train", "training"} or name == "own")
        if not is_half:
            self._add_column(about, self.names[place], place, clip, len(clip_names))
            return
        if row is not None:
            raise ValueError(
                f"{self.where}, line {self.columns.line[row]}: {self.names[place]} is "
                f"{codes.names[codes.values[row]]!r}, but clip {clip_names[clip[row]]!r} began with "
                f"{texts[clip[row]]!r}; a clip either trains or tests"
            )
        # Without a test half the held-out clips are what is tested on.
        test = _TEST if words & _TEST else _HELD
        masks = [torch.tensor([half in chosen for half in halves]) for chosen in (_TRAIN, test)]
        about.splits[name] = Split(*masks)
        held = sum(half in _HELD for half in halves) if test is _TEST else 0
        self.notes.append(
            f"column {self.names[place]!r} gives split {name!r}: {int(masks[0].sum())} train / "
            f"{int(masks[1].sum())} test" + (f", {held} in neither" if held else "")
        )

    def _add_column(self, about: About, name: str, place: int, clip: np.ndarray, count: int) -> None:
        """Keep a column that has one value a clip; name it among those that are not read where it has more."""
        texts, row = self._of_clips(self.columns.codes[place], clip, count)
        if row is not None or not any(texts) or not name or name in about.columns:
            if name or any(texts):
                self.unread.append(place)
            return
        numbers = [_whole(text) for text in texts]
        reals = [_real(text) for text in texts]
        if all(number is not None or not text for number, text in zip(numbers, texts, strict=True)):
            values = torch.tensor([-1 if number is None else number for number in numbers])
            about.columns[name] = values, ()
        elif all(real is not None or not text for real, text in zip(reals, texts, strict=True)):
            about.columns[name] = torch.tensor([-1.0 if real is None else real for real in reals]), ()
        else:
            known = sorted(set(filter(None, texts)))
            about.columns[name] = (
                torch.tensor([known.index(text) if text else -1 for text in texts]),
                tuple(known),
            )


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Return the key of an order in which ``clip10`` stands behind ``clip2``."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name)]


def _sorted(values: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    order = sorted(range(len(names)), key=lambda place: (_natural(names[place]), names[place]))
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    return rank[values], [names[place] for place in order]


def _by_first_frame(
    clip: np.ndarray, body: np.ndarray, frame: np.ndarray, keep: np.ndarray, names: list[str]
) -> tuple[np.ndarray, list[str]]:
    """Number the bodies of each clip in the order in which they come, and by name where they come together.

    Returns:
        ``(n,)`` int64, numbers that differ from clip to clip, and the name of each.
    """
    key = clip * len(names) + body
    natural = {name: rank for rank, name in enumerate(sorted(names, key=lambda name: (_natural(name), name)))}
    found, numbers = np.unique(key, return_inverse=True)
    first = np.full(len(found), np.iinfo(np.int64).max)
    np.minimum.at(first, numbers[keep], frame[keep])
    rank = np.array([natural[names[code % len(names)]] for code in found.tolist()])
    order = np.lexsort((rank, first, found // len(names)))
    place = np.empty(len(found), dtype=np.int64)
    place[order] = np.arange(len(found))
    return place[numbers], [names[found[at] % len(names)] for at in order]


def _grid(ticks: np.ndarray) -> np.ndarray | None:
    """Return the frames of increasing times that lie near an even grid, or None."""
    if len(ticks) < 3:
        return np.arange(len(ticks))
    steps = np.diff(ticks)
    for step in (np.median(steps), steps.min()):
        places = (ticks - ticks[0]) / step
        frames = np.rint(places)
        is_near = places[-1] < FARTHEST and np.abs(places - frames).max() <= _UNEVEN
        if is_near and (np.diff(frames) > 0).all():
            return frames.astype(np.int64)
    return None


def _order_in_group(key: np.ndarray) -> np.ndarray:
    """Return the place of each row among those of its key."""
    order = np.argsort(key, kind="stable")
    begins = np.r_[True, np.diff(key[order]) != 0]
    count = np.arange(len(key))
    place = np.empty(len(key), dtype=np.int64)
    place[order] = count - np.maximum.accumulate(np.where(begins, count, 0))
    return place


def _real(text: str) -> float | None:
    try:
        value = float(text.replace(",", ".") if text.count(",") == 1 else text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _whole(text: str) -> int | None:
    """Return a whole number that a text is, also written as ``3.0``; None where it is none, or too large."""
    if len(text) > 18:
        return None
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    value = _real(text)
    return int(value) if value is not None and value.is_integer() else None


def _seconds(text: str) -> float:
    """Return a number, or the seconds of a clock time such as ``00:01:02.5``; NaN where it is neither."""
    value = _real(text)
    if value is not None:
        return value
    clock = re.fullmatch(r"(?:.*[ T])?(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)(?:Z|[+-]\d\d:?\d\d)?", text)
    if clock is None:
        return float("nan")
    return int(clock[1] or 0) * 3600.0 + int(clock[2]) * 60 + float(clock[3].replace(",", "."))


def _classes(texts: list[str]) -> tuple[list[int] | None, list[str]]:
    """Return the clips' labels and the class names; numbers are indices, what is missing is unknown."""
    if not any(texts):
        return None, []
    numbers = [_whole(text) for text in texts]
    if all(number is not None or not text for number, text in zip(numbers, texts, strict=True)):
        return [-1 if number is None or number < 0 else number for number in numbers], []
    names = sorted(set(filter(None, texts)))
    return [names.index(text) if text else -1 for text in texts], names
