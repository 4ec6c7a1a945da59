"""A clip as it is drawn: all bodies on one time line, what is absent left out, and what is laid over it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.body_size import size_warning
from ..skeleton import SkeletonLayout

if TYPE_CHECKING:
    from ..data import PackedSkeletons

Floats = NDArray[np.float32]
# 2-D coordinates no farther from 0 are shares of an image, or its width, and no pixels (choice).
_SHARES = 2.0


@dataclass
class Clip:
    """A clip as it is drawn.

    Attributes:
        coords: ``(T, M, V, C)`` float32; NaN where a body is absent or a joint was not seen.
        layout: the skeleton.
        name: its name.
        label: its class, or "".
        fps: frames a second, NaN = unknown.
        times: ``(T,)`` the frame of the file that each frame shows, which may lie between two.
        up: the axis that points up, ``"y"`` or ``"-y"``; "" = the trunk tells (in 3-D).
        unit: of the coordinates, "" = unknown.
    """

    coords: Floats
    layout: SkeletonLayout
    name: str = ""
    label: str = ""
    fps: float = float("nan")
    times: Floats = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    up: str = ""
    unit: str = "m"

    def __post_init__(self) -> None:
        if not len(self.times):
            self.times = np.arange(len(self.coords), dtype=np.float32)

    def part(self, start: int, stop: int | None) -> Clip:
        """Return the frames from ``start`` on, up to the one before ``stop``.

        Raises:
            ValueError: there is no such frame.
        """
        rows = _part(len(self.coords), start, stop)
        return replace(self, coords=self.coords[rows], times=self.times[rows])

    @property
    def title(self) -> str:
        """Name and class."""
        return f"{self.name} ({self.label})" if self.label else self.name


class Overlay(NamedTuple):
    """Something laid over the joints of a clip.

    Attributes:
        kind: ``"mask"``, ``"values"`` or ``"reconstruction"``.
        values: mask ``(T, M, V)`` bool, True = visible; values ``(T, M, V)`` in [0, 1] of the scale;
            reconstruction ``(T, M, V, C)`` coordinates.
        text: what is drawn, for the figure's heading.
        label: what the values are, for their scale.
        scale: lowest and highest of ``values``.
    """

    kind: str
    values: NDArray[Any]
    text: str
    label: str = ""
    scale: tuple[float, float] = (0.0, 1.0)

    def part(self, start: int, stop: int | None) -> Overlay:
        """Return the overlay of some frames, see :meth:`Clip.part`."""
        return self._replace(values=self.values[_part(len(self.values), start, stop)])


def _part(count: int, start: int, stop: int | None) -> slice:
    end = count if stop is None else min(stop, count)
    if not 0 <= start < end:
        raise ValueError(
            f"frames {start} to {stop}: the clip has frames 0 to {count - 1}, and one at least is shown"
        )
    return slice(start, end)


class Traces(NamedTuple):
    """Curves of what a model predicts, beside the truth.

    Attributes:
        names: one for each curve.
        truth: ``(T, n)``.
        prediction: ``(T, n)``.
        borders: frames at which a target patch begins.
        label: what is drawn, with its unit.
    """

    names: list[str]
    truth: Floats
    prediction: Floats
    borders: list[int]
    label: str


def find_clip(data: PackedSkeletons, clip: str | int) -> int:
    """Return a clip's index from its number or its name.

    Raises:
        ValueError: there is no such clip (with the nearest name).
    """
    text = str(clip)
    if text in data.names:
        return data.names.index(text)
    try:
        index = int(text)
    except ValueError:
        near = difflib.get_close_matches(text, data.names, n=1, cutoff=0.3)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"no clip is named {text!r}{hint} (0 to {data.num_clips - 1} are valid too)"
        ) from None
    if not 0 <= index < data.num_clips:
        raise ValueError(f"clip {index} is out of range: the file has clips 0 to {data.num_clips - 1}")
    return index


def read_clip(data: PackedSkeletons, clip: int) -> Clip:
    """Return a clip of a data set with all its bodies; what is absent or not seen becomes NaN."""
    part = data.select(torch.tensor([clip]))
    frames = int(part.clip_frames()[0])
    coords = np.full((frames, part.num_bodies, *part.coords.shape[1:]), np.nan, dtype=np.float32)
    rows = part.coords.float().cpu().numpy()
    there: NDArray[np.bool_] = np.asarray(rows.reshape(len(rows), -1).any(axis=1))
    shown = np.broadcast_to(there[:, None], rows.shape[:2])
    if part.valid is not None:
        shown = shown & part.valid.cpu().numpy()
    rows = np.where(shown[..., None], rows, np.float32(np.nan))
    offsets, starts = part.offsets.tolist(), part.body_start.tolist()
    for body, start in enumerate(starts):
        length = offsets[body + 1] - offsets[body]
        coords[start : start + length, body] = rows[offsets[body] : offsets[body + 1]]
    return Clip(
        coords,
        data.layout,
        data.names[clip],
        class_of(data, clip),
        float(data.fps[clip]),
        **up_and_unit(data, coords),
    )


def up_and_unit(data: PackedSkeletons, coords: Floats) -> dict[str, Any]:
    """Return which way is up in a clip of a data set, and the unit of its coordinates.

    2-D joints are points of an image, whose y points down, until a step turns them over; they are in pixels where they
    reach beyond the shares of an image, and until a step changes their size. 3-D joints are in metres where bodies have
    the size of people.

    Args:
        data: the data set.
        coords: ``(T, M, V, C)`` of the clip, NaN = not seen.

    Returns:
        ``up`` and ``unit``, as :class:`Clip` takes them.
    """
    names = [step["name"] for step in data.steps]
    is_scaled = "fit_box" in names or any(
        step["name"] == "scale" and (step.get("unit") or coords.shape[-1] == 2) for step in data.steps
    )
    if coords.shape[-1] == 3:
        # Bodies whose size cannot be in metres are in millimetres, inches or what else.
        return {"up": "", "unit": "" if is_scaled or size_warning(data) else "m"}
    turned = sum("y" in step.get("axes", "") for step in data.steps if step["name"] == "flip") % 2
    reach = np.abs(coords[np.isfinite(coords)]).max(initial=0)
    return {
        "up": "y" if turned or "align_body" in names else "-y",
        "unit": "" if is_scaled or reach <= _SHARES else "px",
    }


def class_of(data: PackedSkeletons, clip: int) -> str:
    """Return the name of a clip's class, its number where it has no name, or ""."""
    label = int(data.labels[clip])
    if label < 0:
        return ""
    return data.label_names[label] if label < len(data.label_names) else f"class {label}"
