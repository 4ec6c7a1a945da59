"""What is wrong with coordinates: frames that are empty or repeated, joints that jump, freeze or are not numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..packed.dataset import PackedSkeletons
from .blocks import Block, Flags, Floats, Index, body_blocks, every_channel


@dataclass(frozen=True)
class QualityOptions:
    """When something counts as a defect; all values are choices.

    Args:
        jump: a body jumps where its middle, and a joint where it about the middle, moves by more than this many
            body sizes from one frame to the next (the size is the root mean square distance of the joints from
            their middle, about 0.45 m of an adult).
        freeze: a joint freezes where it keeps its place for at least this many frames while the body moves.

    Raises:
        ValueError: a value out of range.
    """

    jump: float = 1.0
    freeze: int = 8

    def __post_init__(self) -> None:
        if self.jump <= 0:
            raise ValueError(f"jump={self.jump} must be above 0 body sizes, for example 1.0")
        if self.freeze < 2:
            raise ValueError(f"freeze={self.freeze} must be at least 2 frames")


@dataclass
class Quality:
    """Defects by frame, joint and clip.

    Attributes:
        empty_frames: ``(N,)`` int64, frames of all zeros by clip: the body is not there.
        repeated_frames: ``(N,)`` int64, frames equal to the one before.
        longest_repeat: ``(N,)`` int64, most repeats in a row.
        still: ``(N,)`` bool, clips of several frames in which nothing moves.
        not_finite: ``(N,)`` int64, coordinates that are NaN or infinite.
        zero_joints: ``(N,)`` int64, joints at the origin in frames that have a body, not marked as unseen.
        unseen_joints: ``(V,)`` int64, frames in which each joint is marked as unseen.
        jumps: ``(V,)`` int64, jumps of each joint about the body's middle.
        jump_clips: ``(N,)`` int64, jumps of joints by clip.
        body_jumps: ``(N,)`` int64, jumps of whole bodies by clip.
        freezes: ``(V,)`` int64, frames that each joint is frozen.
        freeze_clips: ``(N,)`` int64, frames times joints frozen, by clip.
        worst_jumps: the farthest jumps: ``(clip, frame, joint, body sizes)``; joint ``V`` is the whole body.
        centred: joints at the origin in every frame of the data set, as centring leaves them; they are not counted
            as frozen or zero.
    """

    empty_frames: Index
    repeated_frames: Index
    longest_repeat: Index
    still: Flags
    not_finite: Index
    zero_joints: Index
    unseen_joints: Index
    jumps: Index
    jump_clips: Index
    body_jumps: Index
    freezes: Index
    freeze_clips: Index
    worst_jumps: list[tuple[int, int, int, float]] = field(default_factory=list)
    centred: list[int] = field(default_factory=list)


def check_quality(data: PackedSkeletons, options: QualityOptions | None = None) -> Quality:
    """Read all coordinates once and count what is wrong with them.

    Args:
        data: the data set.
        options: what counts as a jump and as frozen.
    """
    options = options or QualityOptions()
    clips, joints = data.num_clips, data.layout.num_joints
    by_clip: dict[str, Any] = {
        name: np.zeros(clips, dtype=np.int64)
        for name in (
            "empty_frames",
            "repeated_frames",
            "longest_repeat",
            "not_finite",
            "jump_clips",
            "body_jumps",
        )
    }
    # By clip and joint, because which joints are centred is known at the end.
    zeros, frozen = (np.zeros((clips, joints), dtype=np.int64) for _ in range(2))
    unseen, jumps, present = (np.zeros(joints, dtype=np.int64) for _ in range(3))
    moves = np.zeros(clips, dtype=bool)
    frames = data.clip_frames().cpu().numpy()
    worst: list[tuple[int, int, int, float]] = []
    owners, starts = data.body_clip.cpu().numpy(), data.body_start.cpu().numpy()
    for block in body_blocks(data):
        view = _View(block, owners)
        view.add(by_clip["empty_frames"], ~block.present)
        view.add(by_clip["repeated_frames"], view.repeated)
        view.add(
            by_clip["not_finite"], (~np.isfinite(block.coords)).reshape(len(block.coords), -1).sum(axis=1)
        )
        view.add(zeros, view.zero)
        view.add(frozen, _frozen(view, options.freeze))
        np.maximum.at(by_clip["longest_repeat"], view.clip, _run_lengths(view.repeated, view.same))
        moves[view.clip[view.same & ~view.repeated & block.present]] = True
        unseen += (block.present[:, None] & ~block.seen & view.finite).sum(axis=0)
        present += int(block.present.sum())
        found = _jumps(view, options.jump)
        whole = found.joint == joints
        jumps += np.bincount(found.joint[~whole], minlength=joints)
        np.add.at(by_clip["jump_clips"], view.clip[found.row[~whole]], 1)
        np.add.at(by_clip["body_jumps"], view.clip[found.row[whole]], 1)
        worst += [
            (int(view.clip[row]), int(view.frame[row] + starts[view.body[row]]), int(joint), float(size))
            for row, joint, size in zip(*found.farthest(5), strict=True)
        ]
    centred = np.flatnonzero((zeros.sum(axis=0) == present) & (present > 0))
    zeros[:, centred] = frozen[:, centred] = 0
    return Quality(
        **by_clip,
        still=~moves & (frames > 1),
        zero_joints=zeros.sum(axis=1),
        unseen_joints=unseen,
        jumps=jumps,
        freezes=frozen.sum(axis=0),
        freeze_clips=frozen.sum(axis=1),
        worst_jumps=sorted(worst, key=lambda jump: -jump[3])[:5],
        centred=centred.tolist(),
    )


class _View:
    """A block with what every check asks of it.

    Attributes:
        body: ``(n,)`` the body of each frame.
        clip: ``(n,)`` its clip.
        frame: ``(n,)`` its index within the body.
        same: ``(n,)`` bool: the frame before belongs to the same body.
        finite: ``(n, V)`` bool.
        repeated: ``(n,)`` bool: equal to the frame before, and not empty.
        kept: ``(n, V)`` bool: the joint is where it was in the frame before, and was seen in both.
        begins: ``(b,)`` the first row of each body.
        zero: ``(n, V)`` bool: the joint is at the origin, though the body is there and the joint marked as seen.
    """

    def __init__(self, block: Block, owners: Index) -> None:
        self.block = block
        self.body = block.first + block.owner()
        self.clip = owners[self.body]
        begins = block.lengths.cumsum() - block.lengths
        self.frame = np.arange(len(self.body)) - begins[block.owner()]
        self.same = self.frame > 0
        self.finite = every_channel(np.isfinite(block.coords))
        equal = np.zeros(block.seen.shape, dtype=bool)
        equal[1:] = every_channel(block.coords[1:] == block.coords[:-1])
        equal &= self.same[:, None]
        self.repeated = equal.all(axis=1) & block.present
        both = block.seen.copy()
        both[1:] &= block.seen[:-1]
        self.both = both & self.same[:, None]
        self.kept = equal & self.both
        self.zero = block.seen & every_channel(block.coords == 0)
        self.begins = begins

    def add(self, total: Index, rows: NDArray[Any]) -> None:
        """Add up rows ``(n, ...)`` over the bodies of each clip, into ``total (N, ...)``."""
        # Most bodies have many frames: summing those first is far quicker than adding row by row.
        sums = np.add.reduceat(rows, self.begins, axis=0, dtype=np.int64)
        np.add.at(total, self.clip[self.begins], sums)


def _run_lengths(flags: NDArray[np.bool_], same: Flags) -> NDArray[np.int64]:
    """Return for each row how many flags in a row end there; a run ends where the body does (``same`` is false)."""
    rows = np.arange(len(flags))
    going = flags & same.reshape(-1, *[1] * (flags.ndim - 1))
    stops = np.where(going, -1, rows.reshape(-1, *[1] * (flags.ndim - 1)))
    return rows.reshape(stops.shape[:1] + (1,) * (flags.ndim - 1)) - np.maximum.accumulate(stops, axis=0)


def _frozen(view: _View, least: int) -> Flags:
    """Return ``(n, V)``: frames at which a joint has kept its place for ``least`` frames or more while others moved.

    Frames that repeat as a whole neither count nor end a run, so they are left out before runs are counted.
    """
    rows = np.flatnonzero(~view.repeated)
    result = np.zeros(view.kept.shape, dtype=bool)
    if len(rows) == 0:
        return result
    run = _run_lengths(view.kept[rows], view.same[rows])
    # A run of r kept frames is r + 1 frames in one place; all of them are marked, from the last one backwards.
    long = run >= least - 1
    ends = long.copy()
    ends[:-1] &= run[1:] == 0
    marks = np.zeros((len(rows) + 1, run.shape[1]), dtype=np.int64)
    row, joint = np.nonzero(ends)
    np.add.at(marks, (row + 1, joint), -1)
    np.add.at(marks, (row - run[row, joint], joint), 1)
    result[rows] = marks[:-1].cumsum(axis=0) > 0
    return result


class _Found(NamedTuple):
    """Jumps of a block: rows, joints (``V`` is the whole body) and lengths in body sizes."""

    row: Index
    joint: Index
    size: Floats

    def farthest(self, count: int) -> tuple[Index, Index, Floats]:
        order = np.argsort(-self.size, kind="stable")[:count]
        return self.row[order], self.joint[order], self.size[order]


def _jumps(view: _View, least: float) -> _Found:
    """Return where a body's middle, or a joint about the middle, moves by more than ``least`` body sizes a frame.

    The middle is the mean of the joints seen in both frames.
    """
    coords = np.where(view.finite[..., None], view.block.coords, np.float32(0))
    apart = np.zeros_like(coords)
    apart[1:] = coords[1:] - coords[:-1]
    apart[~view.both] = 0
    middle = np.einsum("tvc->tc", apart) / np.maximum(view.both.sum(axis=1), 1)[:, None].astype(np.float32)
    steps = np.linalg.norm(apart - middle[:, None], axis=2)
    steps[~view.both] = 0
    steps = np.concatenate([steps, np.linalg.norm(middle, axis=1)[:, None]], axis=1)
    relative = (steps / _sizes(view, coords)[view.block.owner()][:, None]).astype(np.float32)
    row, joint = np.nonzero(relative > least)
    return _Found(row, joint, relative[row, joint])


def _sizes(view: _View, coords: Floats) -> Floats:
    """Return ``(b,)``: the root mean square distance of each body's seen joints from their middle, above 0."""
    seen = view.block.seen.astype(np.float32)
    count = seen.sum(axis=1)
    middle = np.einsum("tvc,tv->tc", coords, seen) / np.maximum(count, 1)[:, None]
    apart = (coords - middle[:, None]) * seen[..., None]
    square = np.add.reduceat(np.einsum("tvc,tvc->t", apart, apart), view.begins, dtype=np.float64)
    total = np.maximum(np.add.reduceat(count, view.begins, dtype=np.float64), 1)
    return np.maximum(np.sqrt(square / total), 1e-12).astype(np.float32)
