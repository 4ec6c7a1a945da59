"""From an array of motion to clips with their skeleton: what ``.npy``, ``.npz`` and ``.mat`` files have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ....skeleton import BODY, LAYOUTS, SkeletonLayout, get_layout
from ..common.arrays import without_nan
from ..common.layout_choice import Joints, joints_by_count, joints_by_name
from ..common.poses import seen_from
from ..common.score_channel import looks_like_score
from ..common.text_numbers import as_float32
from .axes import to_clips

# SMPL-H and SMPL-X begin with the 22 joints of SMPL's body; jaw, eyes, hands and landmarks follow.
_SMPL_FAMILY = (52, 55, 73, 127, 144)
# Numbers of joints that detectors in images have.
_FLAT = (13, 14, 15, 16, 17, 18, 26, 133, 136)
_SAMPLE = 4096


@dataclass(frozen=True)
class Channels:
    """What the last axis of an array of points holds.

    Args:
        coords: how many coordinates, 2 or 3; they come first.
        score: the index of the joints' confidence, or None.
        notes: what a person must know of it.
    """

    coords: int
    score: int | None = None
    notes: tuple[str, ...] = ()


@dataclass
class Motion:
    """Clips of one skeleton.

    Args:
        clips: arrays ``(T, M, V, C)`` float32, C = 2 or 3.
        valid: for each ``(T, M, V)`` bool, which joints were seen; None = all.
        layout: the skeleton.
        notes: what a person must know of how the array was understood.
        scored: whether confidence decided what was seen.
    """

    clips: list[np.ndarray]
    valid: list[np.ndarray] | None
    layout: SkeletonLayout
    notes: list[str] = field(default_factory=list)
    scored: bool = False


def channels_of(clips: Sequence[np.ndarray], where: str, *, third_is_score: bool = False) -> Channels:
    """Tell coordinates from a confidence beside them.

    Args:
        clips: arrays ``(..., V, C)``.
        where: names the file in errors.
        third_is_score: what the format means by three channels.

    Raises:
        ValueError: a number of channels that is neither.
    """
    size, joints = clips[0].shape[-1], clips[0].shape[-2]
    if size == 2:
        return Channels(2)
    poses = _sample(clips)
    last = poses[..., min(size, 4) - 1]
    is_share = len(last) > 0 and np.nanmin(last, initial=0) >= 0 and np.nanmax(last, initial=0) <= 1
    if size == 3 and ((third_is_score and is_share) or looks_like_score(poses[..., 2], poses[..., :2])):
        told = "by the format" if third_is_score else "within 0 and 1 beside pixels"
        return Channels(2, 2, (f"the third channel, {told}, is taken as the joints' confidence",))
    if size == 3:
        return Channels(3, None, _doubts(poses, joints))
    if (size == 4 or (size == 5 and joints == 33)) and is_share:
        beside = "; the fifth (presence) is not read" if size == 5 else ""
        return Channels(3, 3, (f"the fourth channel is taken as the joints' confidence{beside}",))
    raise ValueError(
        f"{where}: {size} values a joint, expected x, y or x, y, z, perhaps with a confidence of 0 to 1 behind them"
    )


def _doubts(poses: np.ndarray, joints: int) -> tuple[str, ...]:
    """Return what to say of a third channel that is read as z and may be a score: pose tools' joints, none below 0."""
    values = poses[np.isfinite(poses)]
    third = poses[..., 2][np.isfinite(poses[..., 2])]
    if joints not in _FLAT or not third.any() or values.min() < 0:
        return ()
    if values.max() <= 1:
        told = "all three channels lie within 0 and 1"
        return (f"{told}: read as x, y, z; give a confidence as an array of its own",)
    told = f"no value is below 0, and the third channel lies within {third.min():g} and {third.max():g}"
    return (f"{told}: read as x, y, z; give a confidence as an array of its own, from 0 to 1",)


def _sample(clips: Sequence[np.ndarray]) -> np.ndarray:
    """Return some poses ``(n, V, C)`` that are not all 0."""
    parts, count = [], 0
    for clip in clips:
        poses = clip.reshape(-1, *clip.shape[-2:])
        poses = np.asarray(poses[poses.any((1, 2))][:_SAMPLE], dtype=np.float64)
        parts.append(poses)
        count += len(poses)
        if count >= _SAMPLE:
            break
    return np.concatenate(parts)


def joint_counts(layout: str | SkeletonLayout | None) -> set[int]:
    """Return the numbers of joints that a file may have: that of the layout which was asked for, or all known ones."""
    if layout is not None:
        return {get_layout(layout).num_joints}
    return {known.num_joints for known in LAYOUTS.values() if known is not BODY} | set(_SMPL_FAMILY)


def joints_of(
    count: int,
    channels: int,
    where: str,
    *,
    given: str | SkeletonLayout | None,
    usual: Mapping[int, Mapping[int, str]],
    names: Sequence[str] = (),
    parents: Sequence[int] | None = None,
    own_name: str = "own",
) -> Joints:
    """Return the skeleton of an array: by the joints' names, else by their tree, else by their number.

    Args:
        count: how many joints the array has.
        channels: 2 or 3 coordinates.
        where: names the file in errors.
        given: the layout that was asked for.
        usual: by coordinates, what the format means by a number of joints.
        names: the joints; () = not told.
        parents: their tree; None = not told.
        own_name: what a layout of its own is called.

    Raises:
        ValueError: as :func:`joints_by_name` and :func:`joints_by_count`, or another number of names or parents.
    """
    for what, values in (("joint_names", names), ("parents", parents or ())):
        if len(values) not in (0, count):
            raise ValueError(
                f"{where}: {what} has {len(values)} entries for {count} joints, expected one each"
            )
    if names and not (parents and given is None and _only_numbered(names)):
        return joints_by_name(
            names,
            where,
            given=given,
            parents=parents,
            own_name=own_name,
            channels=channels,
            usual=usual.get(channels),
        )
    if parents and given is None:
        known = [layout for layout in LAYOUTS.values() if layout is not BODY]
        same = [layout.name for layout in known if list(layout.parents) == list(parents)]
        if len(same) != 1:
            own = SkeletonLayout(own_name, tuple(f"joint{place}" for place in range(count)), tuple(parents))
            note = f"{count} joints with a tree and without names: kept as a layout of their own; --layout names one"
            return Joints(own, tuple(range(count)), (note,))
        note = f"{count} joints without names, told by their tree: layout {same[0]}"
        return Joints(LAYOUTS[same[0]], tuple(range(count)), (note,))
    if given is None and channels == 3 and count in _SMPL_FAMILY:
        note = f"{count} joints are taken as SMPL's: the first 22 are layout smpl22, the others are left out"
        return Joints(LAYOUTS["smpl22"], tuple(range(22)), (note,))
    return joints_by_count(count, channels, where, given=given, usual=usual.get(channels, {}))


def _only_numbered(names: Sequence[str]) -> bool:
    """Say whether names are one word with a number behind it, ``joint0``, ``joint1``, ...: they tell no skeleton."""
    return len({name.rstrip("0123456789") for name in names}) == 1 and all(
        name[-1:].isdigit() for name in names
    )


def told(joints: Joints) -> list[str]:
    """Return what a person must know of a skeleton; that named joints are in the order of a layout is no news."""
    plain = joints.order == tuple(range(joints.layout.num_joints))
    return [note for note in joints.notes if not (plain and note.startswith("joints matched by name"))]


def finish(
    clips: list[np.ndarray],
    confidence: list[np.ndarray] | None,
    joints: Joints,
    channels: Channels,
    min_confidence: float,
) -> Motion:
    """Return clips ``(T, M, J, C)`` of a file in the order of its layout, with what was seen.

    Args:
        clips: as the file has them, real numbers.
        confidence: for each ``(T, M, J)`` bool or real numbers, beside what a channel says; None = nothing.
        joints: the skeleton.
        channels: what the last axis holds.
        min_confidence: joints of a lower confidence are marked as not seen.
    """
    scored = confidence is not None or channels.score is not None
    done, valid, broken, plain = [], [], 0, joints.order == tuple(range(clips[0].shape[2]))
    for place, clip in enumerate(clips):
        seen = None
        if channels.score is not None:
            seen = seen_from(clip[..., channels.score], min_confidence)
        if confidence is not None:
            beside = confidence[place]
            beside = beside if beside.dtype == np.bool_ else seen_from(beside, min_confidence)
            seen = beside if seen is None else seen & beside
        coords, seen, count = without_nan(as_float32(clip[..., : channels.coords]), seen)
        broken += count
        seen = np.ones(coords.shape[:3], dtype=bool) if seen is None else seen
        if not plain:
            coords, seen = joints.take(coords, seen)
        done.append(coords)
        valid.append(seen)
    notes = [f"{broken} joints are NaN: marked as not seen"] * bool(broken)
    marked = scored or not all(seen.all() for seen in valid)
    return Motion(
        done, valid if marked else None, joints.layout, [*channels.notes, *told(joints), *notes], scored
    )


def read_motion(
    array: np.ndarray,
    where: str,
    *,
    layout: str | SkeletonLayout | None,
    min_confidence: float,
    usual: Mapping[int, Mapping[int, str]],
    names: Sequence[str] = (),
    parents: Sequence[int] | None = None,
    confidence: np.ndarray | None = None,
    clips: int | None = None,
    own_name: str = "own",
) -> Motion:
    """Return the clips of an array of motion; see :func:`to_clips`, :func:`channels_of` and :func:`joints_of`.

    Args:
        array: real numbers, axes in any usual order.
        where: names it in errors.
        layout: the skeleton that was asked for.
        min_confidence: joints of a lower confidence are marked as not seen.
        usual: by coordinates, what the format means by a number of joints.
        names: the joints; () = not told.
        parents: their tree; None = not told.
        confidence: bool or real numbers, of the array's shape without its coordinates; None = nothing.
        clips: how many clips the file says that it has.
        own_name: what a layout of its own is called.

    Raises:
        ValueError: no numbers, axes or a skeleton that cannot be told, or a confidence of another shape.
    """
    if array.dtype.kind not in "fiu":
        raise ValueError(
            f"{where} is of {array.dtype}, expected real numbers; save it as a plain numeric array"
        )
    counts = joint_counts(layout) if not names else {len(names)}
    found, notes = to_clips(array, where, counts, clips=clips)
    if array.size == 0 or not any(len(clip) for clip in found):
        raise ValueError(f"{where} has shape {array.shape}: no frame with a body; the data set is empty")
    channels = channels_of(found, where)
    beside = None
    if confidence is not None:
        sizes = [clip.shape[:3] for clip in found]
        if len(found) != 1 or confidence.size != np.prod(sizes[0]):
            raise ValueError(
                f"{where}: the confidence has shape {confidence.shape} for coordinates {array.shape}; give it the "
                "same axes without the coordinates"
            )
        beside = [to_clips(confidence[..., None].repeat(2, -1), where, counts)[0][0][..., 0]]
        if beside[0].shape != sizes[0]:
            raise ValueError(
                f"{where}: the confidence has shape {confidence.shape}, whose axes differ from {array.shape}"
            )
    joints = joints_of(
        found[0].shape[2], channels.coords, where,
        given=layout, usual=usual, names=names, parents=parents, own_name=own_name,
    )  # fmt: skip
    motion = finish(found, beside, joints, channels, min_confidence)
    motion.notes[:0] = notes
    return motion
