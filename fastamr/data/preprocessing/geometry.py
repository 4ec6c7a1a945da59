"""The pre-processing steps: frozen dataclasses with a name, which turn one data set into another.

A frame whose coordinates are all 0 has no body and stays all 0 in every step; so does a joint marked as not seen.
Coordinates come out in float32. ``per`` says whose position, direction or size is used: ``"body"``, each body's
own (for models that see one person at a time), or ``"clip"``, that of the clip's first body that has one, so that
two people keep their places.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...errors import check_name
from ..packed.dataset import PackedSkeletons
from ..packed.ragged import first_true, last_true, latest_true, median, row_owner
from .body_frame import alignment, hip_axis, joint_position, present_frames, trunk
from .rebuild import keep_frames, share, transform

PER = ("body", "clip")


class Step:
    """A pre-processing step: a frozen dataclass with a ``name`` that maps a data set to a new one."""

    name: ClassVar[str]

    def __call__(self, data: PackedSkeletons) -> PackedSkeletons:
        """Return the processed data set; ``data`` is left as it is."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return the name and all parameters, as the header records them."""
        return {"name": self.name, **dataclasses.asdict(self)}  # type: ignore[call-overload]

    def notes(self, data: PackedSkeletons) -> tuple[dict[str, Any], ...]:
        """Return what else the header records when the step is applied to ``data``, each with the name ``"note"``."""
        return ()


@dataclass(frozen=True)
class Center(Step):
    """Move a joint to the origin.

    Args:
        joint: ``"root"`` (the layout's root), ``"hips"`` (half-way between them), a joint's name or index.
        frame: ``"first"`` uses the first frame with the joint and keeps the body's path; ``"every"`` uses each
            frame's own, and the latest one before it where the joint is missing (choice).
        per: ``"body"`` or ``"clip"``; ``"clip"`` needs ``frame="first"``.

    Raises:
        ValueError: an unknown option, or a joint that the layout does not have.
    """

    joint: str | int = "root"
    frame: str = "first"
    per: str = "body"
    name: ClassVar[str] = "center"

    def __post_init__(self) -> None:
        check_name("frame of step 'center'", self.frame, ("first", "every"))
        check_name("per of step 'center'", self.per, PER)
        if self.frame == "every" and self.per == "clip":
            raise ValueError(
                "per='clip' of step 'center' needs frame='first': bodies of a clip do not share their frames"
            )

    def __call__(self, data: PackedSkeletons) -> PackedSkeletons:
        """Return the data set with the joint at the origin."""
        owner = row_owner(data.offsets)
        place, seen = joint_position(data, self.joint)
        seen &= present_frames(data)
        if self.frame == "every":
            source = latest_true(seen, owner, data.offsets)
        else:
            first = first_true(seen, owner, data.num_bodies)
            source = share(first, first >= 0, -1, data, self.per)[owner]
        shift = torch.where(source[:, None] >= 0, place[source.clamp(min=0)], 0.0)
        return transform(data, lambda coords, rows: coords - shift[rows, None])


@dataclass(frozen=True)
class AlignBody(Step):
    """Turn each body about the origin so that it faces +z upright: takes the camera's view out.

    With 3 channels the axis from the right to the left hip becomes x, the spine lies in the upper x-y plane, and z
    completes a right-handed system, so the chest looks along +z. With 2 channels the spine becomes y. With
    ``up="vertical"`` the body is only turned about the y axis of the data, until the level part of the hip axis
    lies along x: for data whose y is up, lying stays lying and a bow stays a bow.

    The rotation comes from the body's first frame in which hips and spine are seen and not degenerate, and is the
    same for all its frames. A body without such a frame is left as it is. Center first: the rotation is about the
    origin. A layout without a spine uses the line from between the hips to between the shoulders.

    Args:
        per: ``"body"`` or ``"clip"``.
        up: what becomes y: the ``"spine"``, or the ``"vertical"`` of the data.
        tolerance: the axes are degenerate where the hip axis, or the part of the spine across it, is shorter than
            this share of the spine; with ``up="vertical"``, where the level part of the hip axis is shorter than
            this share of it (choice).

    Raises:
        ValueError: the layout has no hips (3 channels), or neither a spine nor shoulders; ``up="vertical"`` with
            2 channels.
    """

    per: str = "body"
    up: str = "spine"
    tolerance: float = 0.1
    name: ClassVar[str] = "align_body"

    def __post_init__(self) -> None:
        check_name("per of step 'align_body'", self.per, PER)
        check_name("up of step 'align_body'", self.up, ("spine", "vertical"))
        if not 0 <= self.tolerance < 1:
            raise ValueError(
                f"tolerance of step 'align_body' is {self.tolerance}, expected a number in [0, 1)"
            )

    def __call__(self, data: PackedSkeletons) -> PackedSkeletons:
        """Return the data set with every body turned."""
        owner = row_owner(data.offsets)
        spine, hips, seen = self._axes(data)
        rotation, sound = alignment(spine, hips, self.tolerance)
        first = first_true(sound & seen & present_frames(data), owner, data.num_bodies)
        source = share(first, first >= 0, -1, data, self.per)
        turn = rotation(source)
        return transform(data, lambda coords, rows: coords @ turn[owner[rows]].transpose(1, 2))

    def _axes(self, data: PackedSkeletons) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return the upward and the hip axis of every frame, and where their joints were seen."""
        channels = data.coords.shape[-1]
        if self.up == "vertical":
            if channels != 3:
                raise ValueError(
                    f"up='vertical' of step 'align_body' needs 3 channels, the data has {channels}"
                )
            hips, seen = hip_axis(data)
            level = hips * hips.new_tensor([1.0, 0.0, 1.0])
            return hips.norm(dim=-1, keepdim=True) * hips.new_tensor([0.0, 1.0, 0.0]), level, seen
        lower, upper, seen = trunk(data)
        if channels == 2:
            return upper - lower, None, seen
        hips, hips_seen = hip_axis(data)
        return upper - lower, hips, seen & hips_seen


@dataclass(frozen=True)
class Scale(Step):
    """Multiply all coordinates.

    Args:
        factor: the multiplier, for example 0.001 from millimetres to metres.
        unit: None, or ``"torso"``: divide by the body's median spine length first, so that it becomes ``factor``.
            A body whose spine is never seen keeps its size.
        per: ``"body"`` or ``"clip"``, whose spine.

    Raises:
        ValueError: a factor that is not positive and finite, an unknown option, or a layout without a spine.
    """

    factor: float = 1.0
    unit: str | None = None
    per: str = "body"
    name: ClassVar[str] = "scale"

    def __post_init__(self) -> None:
        check_name("per of step 'scale'", self.per, PER)
        if self.unit is not None:
            check_name("unit of step 'scale'", self.unit, ("torso",))
        if not 0 < self.factor < float("inf"):
            raise ValueError(f"factor of step 'scale' is {self.factor}, expected a positive number")

    def __call__(self, data: PackedSkeletons) -> PackedSkeletons:
        """Return the data set with all coordinates multiplied."""
        if self.unit is None:
            return transform(data, lambda coords, rows: coords * self.factor)
        owner = row_owner(data.offsets)
        lower, upper, seen = trunk(data)
        length = (upper - lower).norm(dim=-1)
        torso = median(length, seen & present_frames(data) & (length > 0), owner, data.num_bodies)
        torso = share(torso, torso.isfinite(), 1.0, data, self.per)
        factors = (self.factor / torso)[owner]
        return transform(data, lambda coords, rows: coords * factors[rows, None, None])


@dataclass(frozen=True)
class Flip(Step):
    """Turn the sign of some axes: ``flip:axes=y`` makes y point up in coordinates of an image.

    One axis, or all three, also swaps left and right in space; the joints keep their names.

    Args:
        axes: one or more of ``x``, ``y`` and ``z``, written together.

    Raises:
        ValueError: another axis, one twice, or z in 2-D data.
    """

    axes: str = "y"
    name: ClassVar[str] = "flip"

    def __post_init__(self) -> None:
        if not self.axes or not set(self.axes) <= set("xyz") or len(set(self.axes)) < len(self.axes):
            raise ValueError(f"axes of step 'flip' is {self.axes!r}, expected some of x, y and z, as 'xz'")

    def __call__(self, data: PackedSkeletons) -> PackedSkeletons:
        """Return the data set with the axes turned."""
        channels = data.coords.shape[-1]
        if channels == 2 and "z" in self.axes:
            raise ValueError("axes of step 'flip' names z, but the data has 2 channels")
        signs = [-1.0 if axis in self.axes else 1.0 for axis in "xyz"[:channels]]
        factors = torch.tensor(signs, device=data.device)
        return transform(data, lambda coords, rows: coords * factors)


@dataclass(frozen=True)
class FitBox(Step):
    """Stretch every axis so that the coordinates of all frames reach just from -1 to 1.

    Each axis has its own factor, so proportions are lost; an axis without any extent becomes 0. Source: the loader
    of CTR-GCN for NW-UCLA (``feeders/feeder_ucla.py``).

    Args:
        per: ``"body"`` or ``"clip"``, whose extent; unlike elsewhere, all bodies of a clip count.
    """

    per: str = "clip"
    name: ClassVar[str] = "fit_box"

    def __post_init__(self) -> None:
        check_name("per of step 'fit_box'", self.per, PER)

    def __call__(self, data: PackedSkeletons) -> PackedSkeletons:
        """Return the data set with stretched coordinates."""
        owner = row_owner(data.offsets)
        count = data.num_bodies
        if self.per == "clip":
            owner, count = data.body_clip[owner], data.num_clips
        coords = data.coords.float()
        missing = ~present_frames(data)[:, None].expand(coords.shape[:2])
        if data.valid is not None:
            missing = missing | ~data.valid
        low, high = (
            self._extreme(coords, missing, owner, count, reduce, empty)
            for reduce, empty in (("amin", float("inf")), ("amax", -float("inf")))
        )
        span = high - low
        factor = torch.where(span > 0, 2 / span, 0.0)[owner]
        middle = torch.where(span >= 0, (low + high) / 2, 0.0)[owner]
        return transform(data, lambda block, rows: (block - middle[rows, None]) * factor[rows, None])

    @staticmethod
    def _extreme(
        coords: Tensor, missing: Tensor, owner: Tensor, count: int, reduce: str, empty: float
    ) -> Tensor:
        """Return the least or greatest coordinate of each body or clip ``(count, C)``."""
        rows = coords.masked_fill(missing[..., None], empty)
        rows = rows.amin(1) if reduce == "amin" else rows.amax(1)
        result = torch.full((count, coords.shape[-1]), empty, device=coords.device)
        return result.scatter_reduce_(0, owner[:, None].expand_as(rows), rows, reduce)


@dataclass(frozen=True)
class DropEmptyFrames(Step):
    """Leave out frames without the body (all coordinates 0); a body then starts at its first frame that is left.

    Args:
        where: ``"all"`` of them, or only those at the ``"ends"`` of the body's sequence, which keeps the timing.
    """

    where: str = "all"
    name: ClassVar[str] = "drop_empty_frames"

    def __post_init__(self) -> None:
        check_name("where of step 'drop_empty_frames'", self.where, ("all", "ends"))

    def __call__(self, data: PackedSkeletons) -> PackedSkeletons:
        """Return the data set without those frames; bodies and clips that lose all of theirs go too."""
        keep = present_frames(data)
        if self.where == "ends":
            owner, rows = row_owner(data.offsets), torch.arange(data.num_frames, device=data.device)
            first = first_true(keep, owner, data.num_bodies)[owner]
            last = last_true(keep, owner, data.num_bodies)[owner]
            keep = (first >= 0) & (first <= rows) & (rows <= last)
        return keep_frames(data, keep)


@dataclass(frozen=True)
class DropEmptyBodies(Step):
    """Leave out bodies whose coordinates are all 0; a clip without any other body is dropped and listed."""

    name: ClassVar[str] = "drop_empty_bodies"

    def __call__(self, data: PackedSkeletons) -> PackedSkeletons:
        """Return the data set without those bodies."""
        owner = row_owner(data.offsets)
        return keep_frames(data, (first_true(present_frames(data), owner, data.num_bodies) >= 0)[owner])
