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
from .predictor import Answer, Predictor, Span, check_windows

NAME = "stream"
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
    window: int | None = None,
    stride: int | None = None,
    fps: float | None = None,
    top: int = 5,
) -> Iterator[Answer]:
    """Name the actions in windows that slide over a stream, each as soon as its last frame has come.

    Every window is pre-processed as a clip of its own. The last one ends with the stream; a stream that is shorter than
    a window is one window.

    Args:
        predictor: the classifier.
        lines: see :class:`StreamReader`.
        window: frames of a window; None = the frames that the model resizes clips to.
        stride: frames from one window to the next; None = a quarter of a window.
        fps: frames per second of lines without a time; None = unknown, and the answers have no times.
        top: classes of an answer.

    Yields:
        An answer a window.

    Raises:
        ValueError: an option out of range, no frame at all, or a line that is wrong (which, and why).
    """
    window = predictor.frames if window is None else window
    stride = max(1, window // 4) if stride is None else stride
    check_windows(top, window, stride)
    if fps is not None and not 0 < fps < math.inf:
        raise ValueError(f"fps={fps} must be a positive number of frames per second")
    kept: deque[Frame] = deque(maxlen=window)
    count, done = 0, 0
    for frame in StreamReader(predictor.layout, predictor.channels).read(lines):
        kept.append(frame)
        count += 1
        if count >= window and (count - window) % stride == 0:
            done = count
            yield _answer(predictor, kept, count, fps, top)
    if count == 0:
        raise ValueError(
            "the stream holds no frame: expected a line of JSON a frame, see fastamr predict --help"
        )
    if done < count:
        yield _answer(predictor, kept, count, fps, top)


def _answer(predictor: Predictor, frames: deque[Frame], end: int, fps: float | None, top: int) -> Answer:
    """Return the answer for the last frames of a stream, of which ``end`` have come."""
    first, last = frames[0].time, frames[-1].time
    if first is not None and last is not None:
        rate = (len(frames) - 1) / (last - first) if len(frames) > 1 else fps
        span = Span(NAME, end - len(frames), end, first, last + (1 / rate if rate else 0.0))
    else:
        rate = fps
        times = (None, None) if rate is None else ((end - len(frames)) / rate, end / rate)
        span = Span(NAME, end - len(frames), end, *times)
    return predictor.answers(_clip(frames, predictor, rate), [span], top)[0]


def _clip(frames: deque[Frame], predictor: Predictor, rate: float | None) -> PackedSkeletons | None:
    """Return a window as a clip, or None where it shows no body."""
    names = list(dict.fromkeys(name for frame in frames for name in frame.bodies))
    joints, channels = predictor.layout.num_joints, predictor.channels
    coords = np.zeros((len(frames), len(names), joints, channels), dtype=np.float32)
    for place, frame in enumerate(frames):
        for name, body in frame.bodies.items():
            coords[place, names.index(name)] = body
    seen = ~np.isnan(coords).any(-1)
    if not (np.nan_to_num(coords) != 0).any():
        return None
    data = PackedSkeletons.from_clips(
        [coords], layout=predictor.layout, fps=rate, names=[NAME], valid=None if seen.all() else [seen]
    )
    return _marked(data)


def _marked(data: PackedSkeletons) -> PackedSkeletons:
    data.columns["window"] = torch.zeros(1, dtype=torch.int64)
    return data
