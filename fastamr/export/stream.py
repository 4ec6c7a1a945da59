"""Frames that come one a line, and the actions in windows that slide over them."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data import PackedSkeletons
from ..skeleton import SkeletonLayout
from .predictor import AUTO, Answer, Predictor, Span, check_windows

NAME = "stream"
# Frames whose times tell the rate of a stream at least (choice).
_RATE_FRAMES = 8
# Seconds; more than any clock shows.
_LONGEST = 1e15


@dataclass(frozen=True)
class Frame:
    """One frame of a stream.

    Attributes:
        bodies: by who they are, each ``(V, C)`` float32; joints that were not seen are NaN.
        time: seconds, or None.
    """

    bodies: dict[str, np.ndarray]
    time: float | None


class StreamReader:
    """Reads a line of JSON as a frame.

    A line is one body ``[[x, y, z], ...]`` with a triple a joint in the order of the layout (a pair in 2-D), several
    bodies ``[BODY, ...]``, nobody (``[]`` or ``null``), or an object ``{"time": seconds, "bodies": ...}`` with any of
    these, or with bodies by name, ``{"bodies": {"7": BODY}}``, which keep their names when others come and go. Bodies
    in a list are matched by their order. A joint that was not seen is ``null``. Empty lines are skipped.

    Args:
        layout: the joints.
        channels: 2 or 3.
    """

    def __init__(self, layout: SkeletonLayout, channels: int) -> None:
        self.layout, self.channels = layout, channels
        self.line = 0
        self._time: float | None = None
        self._timed: bool | None = None

    def read(self, lines: Iterable[str]) -> Iterator[Frame]:
        """Return the frames, as the lines come.

        Raises:
            ValueError: what is wrong and in which line.
        """
        for text in lines:
            self.line += 1
            if text.strip():
                yield self._frame(text)

    def _frame(self, text: str) -> Frame:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._error(f"not JSON ({error})") from None
        time = None
        if isinstance(value, dict):
            if "bodies" not in value:
                raise self._error("an object without 'bodies'")
            time, value = value.get("time"), value["bodies"]
        self._check_time(time)
        return Frame(self._bodies(value), None if time is None else float(time))

    def _check_time(self, time: Any) -> None:
        # Written so that NaN fails, and huge integers too.
        if time is not None and (type(time) not in (int, float) or not abs(time) < _LONGEST):
            raise self._error(f"time is {time!r}, expected seconds")
        if self._timed is not None and self._timed != (time is not None):
            raise self._error("every line has a time, or none has")
        if time is not None and self._time is not None and time <= self._time:
            raise self._error(f"time is {time:g} after {self._time:g}, expected a later one")
        self._timed, self._time = time is not None, time

    def _bodies(self, value: Any) -> dict[str, np.ndarray]:
        if value is None or value == []:
            return {}
        if isinstance(value, dict):
            return {str(name): self._body(body, f"body {name!r}") for name, body in value.items()}
        if not isinstance(value, list):
            raise self._error(f"{type(value).__name__} instead of bodies")
        if self._is_body(value):
            return {"0": self._body(value, "the body")}
        return {str(place): self._body(body, f"body {place}") for place, body in enumerate(value)}

    @staticmethod
    def _is_body(value: list[Any]) -> bool:
        """Whether a list is a body: its first joint that was seen is a list of numbers, not of joints."""
        first = next((item for item in value if item is not None), None)
        return first is None or not isinstance(first, list) or not any(isinstance(x, list) for x in first)

    def _body(self, value: Any, what: str) -> np.ndarray:
        count = self.layout.num_joints
        if not isinstance(value, list) or len(value) != count:
            found = f"{len(value)} joints" if isinstance(value, list) else type(value).__name__
            raise self._error(f"{what} has {found}, layout {self.layout.name!r} has {count} joints")
        body = np.full((count, self.channels), np.nan, dtype=np.float32)
        for joint, place in enumerate(value):
            if place is None:
                continue
            sound = isinstance(place, list) and len(place) == self.channels
            if not sound or not all(type(number) in (int, float) for number in place):
                raise self._error(
                    f"joint {joint} of {what} is {place!r}, expected {self.channels} numbers or null"
                )
            # Beyond the range of float32 is as good as infinite.
            if not all(abs(number) < 1e30 for number in place):
                raise self._error(
                    f"joint {joint} of {what} is {place!r}: write null for a joint that was not seen"
                )
            body[joint] = place
        return body

    def _error(self, text: str) -> ValueError:
        return ValueError(f"line {self.line} of the stream: {text}")


def predict_stream(
    predictor: Predictor,
    lines: Iterable[str],
    *,
    window: int | str | None = None,
    stride: int | None = None,
    fps: float | None = None,
    top: int = 5,
    per_body: bool = False,
) -> Iterator[Answer]:
    """Name the actions in windows that slide over a stream, each as soon as its last frame has come.

    Every window is pre-processed as a clip of its own. The last one ends with the stream; a stream that is shorter than
    a window is one window.

    Args:
        predictor: the classifier.
        lines: see :class:`StreamReader`.
        window: frames of a window; None or ``"auto"`` = as many as span the median clip of the classifier's training,
            by the times of the lines in the first window, or by ``fps``. Where one of the rates is not
            known it is that clip's frames, and where its length is not known the frames that the model resizes clips
            to; both are said.
        stride: frames from one window to the next; None = a quarter of a window.
        fps: frames per second of lines without a time; None = unknown, and the answers have no times.
        top: classes of an answer.
        per_body: an answer a window for each body in it, by name; by default the bodies make one answer.

    Yields:
        An answer a window, or one for each body in it.

    Raises:
        ValueError: an option out of range, no frame at all, or a line that is wrong (which, and why).
    """
    check_windows(top, AUTO if window is None else window, stride)
    if fps is not None and not 0 < fps < math.inf:
        raise ValueError(f"fps={fps} must be a positive number of frames per second")
    size = window if isinstance(window, int) else None
    kept: deque[Frame] = deque(maxlen=size)
    count, done, begin = 0, 0, size or 0
    for frame in StreamReader(predictor.layout, predictor.channels).read(lines):
        kept.append(frame)
        count += 1
        if not per_body and len(frame.bodies) > 1:
            predictor.note_crowd("frames of the stream show")
        if size is None:
            size = _window_of(predictor, kept, fps)
            if size is None:
                continue
            kept, begin = deque(kept, maxlen=size), max(size, count)
        step = stride or max(1, size // 4)
        if count >= begin and (count - begin) % step == 0:
            done = count
            yield from _answers(predictor, kept, count, fps, top, per_body)
    if count == 0:
        raise ValueError(
            "the stream holds no frame: expected a line of JSON a frame, see fastamr predict --help"
        )
    if done < count:
        yield from _answers(predictor, kept, count, fps, top, per_body)


def _window_of(predictor: Predictor, frames: deque[Frame], fps: float | None) -> int | None:
    """Return the frames of a window, or None where the lines have times and do not yet tell."""
    seconds, times = predictor.time_scale.seconds, [frame.time for frame in frames]
    if seconds is None or times[0] is None:
        return predictor.default_window(fps)
    if len(times) < _RATE_FRAMES:
        return None
    # The median, because a camera may pause at first.
    rate = 1 / float(np.median(np.diff(np.array(times, dtype=np.float64))))
    return max(1, round(seconds * rate)) if len(times) >= round(seconds * rate) else None


def _answers(
    predictor: Predictor, frames: deque[Frame], end: int, fps: float | None, top: int, per_body: bool
) -> list[Answer]:
    """Return the answers for the last frames of a stream, of which ``end`` have come."""
    first, last = frames[0].time, frames[-1].time
    if first is not None and last is not None:
        rate = (len(frames) - 1) / (last - first) if len(frames) > 1 else fps
        span = Span(NAME, end - len(frames), end, first, last + (1 / rate if rate else 0.0))
    else:
        rate = fps
        times = (None, None) if rate is None else ((end - len(frames)) / rate, end / rate)
        span = Span(NAME, end - len(frames), end, *times)
    return predictor.answers(_clip(frames, predictor, rate), [span], top, per_body)


def _clip(frames: deque[Frame], predictor: Predictor, rate: float | None) -> PackedSkeletons | None:
    """Return a window as a clip, or None where it shows no body."""
    names = list(dict.fromkeys(name for frame in frames for name in frame.bodies))
    joints, channels = predictor.layout.num_joints, predictor.channels
    coords = np.zeros((len(frames), len(names), joints, channels), dtype=np.float32)
    for place, frame in enumerate(frames):
        for name, body in frame.bodies.items():
            coords[place, names.index(name)] = body
    shown = (np.nan_to_num(coords) != 0).any(axis=(0, 2, 3))
    if not shown.any():
        return None
    coords = coords[:, shown]
    seen = ~np.isnan(coords).any(-1)
    data = PackedSkeletons.from_clips(
        [coords], layout=predictor.layout, fps=rate, names=[NAME], valid=None if seen.all() else [seen]
    )
    data.body_names = [name for name, is_shown in zip(names, shown, strict=True) if is_shown]
    return _marked(data)


def _marked(data: PackedSkeletons) -> PackedSkeletons:
    data.columns["window"] = torch.zeros(1, dtype=torch.int64)
    return data
