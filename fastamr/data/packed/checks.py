"""What makes a packed data set sound: cheap checks of its structure, thorough ones of its coordinates."""

from __future__ import annotations

import torch
from torch import Tensor

from .mapped import Rows
from .structure import PackedFields

HALF_LIMIT = 2.0
"""Largest float16 coordinate in metres: float16 is spaced 0.98 mm below it and 1.95 mm above."""

LAST_FRAME = 2**31 - 1
"""Largest number of a frame in its clip, and of a class: sums and products of such numbers fit into 64 bits."""
MAX_CLASSES = 32_768
"""Most classes, as many as the labels of single frames (int16) can tell apart."""

MAX_CLIP_FRAMES = 100_000_000
"""A clip ends before this frame: whoever makes room for a clip must not fill the memory for a wrong number."""

RATES = (1e-9, 1e9)
"""Lowest and highest number of frames a second (choice)."""

# Coordinates are read in blocks of so many frames, so that a mapped file larger than the memory can be checked.
_CHUNK = 1 << 16


def check_structure(data: PackedFields) -> None:
    """Raise unless shapes, types, order and ranges fit together; coordinates are not read.

    Raises:
        ValueError: they do not; the message names the field.
        TypeError: a field is not a tensor.
    """
    _check_fields(data)
    if data.num_clips == 0 or data.num_bodies == 0:
        raise ValueError(
            f"empty data set: {data.num_clips} clips, {data.num_bodies} bodies; expected at least one"
        )
    _check_bodies(data)
    _check_labels(data)
    for name, column in data.columns.items():
        _check_length(f"columns[{name!r}]", column, data.num_clips)
    for name, split in data.splits.items():
        for half, mask in (("train", split.train), ("test", split.test)):
            _check_length(f"splits[{name!r}].{half}", mask, data.num_clips)
            if mask.dtype != torch.bool:
                raise ValueError(f"splits[{name!r}].{half} has dtype {mask.dtype}, expected bool")
        if bool((split.train & split.test).any()):
            clip = int((split.train & split.test).nonzero()[0])
            raise ValueError(f"splits[{name!r}]: clip {clip} ({data.names[clip]!r}) is in train and in test")


def known_rates(rates: Tensor) -> Tensor:
    """Return frame rates with NaN in place of 0, which video tools write where they do not know the rate."""
    return torch.where(rates == 0, torch.nan, rates)


def check_not_zero(data: PackedFields, bodies: Tensor) -> None:
    """Raise where all coordinates of some body sequences are 0, which nothing can be learnt from.

    The first number that is not 0 ends the search, so that sound data costs nothing.

    Args:
        data: the packed data.
        bodies: ``(B,)`` int64, the body sequences; negative ones are passed over.

    Raises:
        ValueError: all of them are 0.
    """
    chosen, rows = bodies[bodies >= 0].tolist(), Rows(data.coords)
    for body in chosen:
        first = int(data.offsets[body])
        if rows(first, int(data.offsets[body + 1]) - first).any():
            return
    if chosen:
        raise ValueError(
            f"all coordinates of the {len(chosen)} body sequences to train on are 0: look at the source with fastamr "
            "check FILE, and at the pre-processing"
        )


def _check_fields(data: PackedFields) -> None:
    dtypes = {
        "coords": (torch.float32, torch.float16),
        "offsets": (torch.int64,),
        "body_clip": (torch.int64,),
        "body_start": (torch.int64,),
        "labels": (torch.int64,),
        "fps": (torch.float32,),
    }
    for field, allowed in dtypes.items():
        value = getattr(data, field)
        if not isinstance(value, Tensor):
            raise TypeError(f"{field} is a {type(value).__name__}, expected a tensor")
        if value.dtype not in allowed:
            raise ValueError(f"{field} has dtype {value.dtype}, expected {' or '.join(map(str, allowed))}")
        if field != "coords" and value.ndim != 1:
            raise ValueError(f"{field} has shape {tuple(value.shape)}, expected one dimension")
    joints = data.layout.num_joints
    if data.coords.ndim != 3 or data.coords.shape[1] != joints or data.coords.shape[2] not in (2, 3):
        raise ValueError(
            f"coords has shape {tuple(data.coords.shape)}, expected (frames, {joints}, 2 or 3) "
            f"for layout {data.layout.name!r}"
        )
    if data.valid is not None and (data.valid.dtype, data.valid.shape) != (torch.bool, data.coords.shape[:2]):
        raise ValueError(
            f"valid is {data.valid.dtype} of shape {tuple(data.valid.shape)}, "
            f"expected bool of shape {tuple(data.coords.shape[:2])}"
        )
    labels = data.frame_labels
    if labels is not None and (labels.dtype, labels.shape) != (torch.int16, data.coords.shape[:1]):
        raise ValueError(
            f"frame_labels is {labels.dtype} of shape {tuple(labels.shape)}, "
            f"expected int16 of shape ({data.num_frames},)"
        )
    _check_length("fps", data.fps, data.num_clips)
    wrong = ~(data.fps.isnan() | ((data.fps >= RATES[0]) & (data.fps <= RATES[1])))
    if bool(wrong.any()):
        raise ValueError(
            f"fps holds {float(data.fps[wrong][0]):g}, expected {RATES[0]:g} to {RATES[1]:g} frames a second, "
            "or NaN or 0 for unknown"
        )
    if len(data.names) != data.num_clips:
        raise ValueError(f"names has {len(data.names)} entries for {data.num_clips} clips, expected one each")
    if data.body_names and len(data.body_names) != data.num_bodies:
        raise ValueError(
            f"body_names has {len(data.body_names)} entries for {data.num_bodies} bodies, expected one each, or none"
        )


def _check_length(field: str, tensor: Tensor, count: int) -> None:
    if tensor.shape != (count,):
        raise ValueError(f"{field} has shape {tuple(tensor.shape)} for {count} clips, expected ({count},)")


def _check_bodies(data: PackedFields) -> None:
    count = data.num_bodies
    if data.offsets.numel() != count + 1 or data.body_start.numel() != count:
        raise ValueError(
            f"offsets has {data.offsets.numel()} and body_start {data.body_start.numel()} entries for {count} bodies, "
            f"expected {count + 1} and {count}"
        )
    if int(data.offsets[0]) != 0 or int(data.offsets[-1]) != data.num_frames:
        raise ValueError(
            f"offsets goes from {int(data.offsets[0])} to {int(data.offsets[-1])}, "
            f"expected 0 to the {data.num_frames} frames of coords"
        )
    # Neighbours are compared before they are subtracted: a difference can wrap around.
    rising = data.offsets[1:] > data.offsets[:-1]
    if not bool(rising.all()):
        body = int((~rising).nonzero()[0])
        frames = int(data.offsets[body + 1]) - int(data.offsets[body])
        raise ValueError(
            f"offsets: body {body} has {frames} frames, expected at least 1; remove empty sequences"
        )
    steps = data.body_clip.diff()
    ends = (int(data.body_clip[0]), int(data.body_clip[-1]))
    if ends != (0, data.num_clips - 1) or bool(((steps < 0) | (steps > 1)).any()):
        raise ValueError(
            f"body_clip goes from {ends[0]} to {ends[1]}, expected 0 to {data.num_clips - 1} in steps of 0 or 1: "
            f"the bodies of a clip are neighbours and every clip has one"
        )
    if int(data.body_start.min()) < 0:
        raise ValueError(f"body_start holds {int(data.body_start.min())}, expected 0 or more")
    if int(data.body_start.max()) > LAST_FRAME:
        raise ValueError(f"body_start holds {int(data.body_start.max())}, expected at most {LAST_FRAME}")
    if int(data.body_start.max()) >= MAX_CLIP_FRAMES:
        raise ValueError(
            f"body_start holds {int(data.body_start.max())}, expected frames below {MAX_CLIP_FRAMES} of their clip"
        )


def _check_labels(data: PackedFields) -> None:
    lowest, highest = int(data.labels.min()), int(data.labels.max())
    if lowest < -1:
        raise ValueError(f"labels holds {lowest}, expected class indices, or -1 for unknown")
    if highest > LAST_FRAME:
        raise ValueError(f"labels holds {highest}, expected class indices of at most {LAST_FRAME}")
    if highest >= MAX_CLASSES:
        raise ValueError(
            f"labels holds {highest}, expected class indices below {MAX_CLASSES}; number the classes from 0"
        )
    if data.label_names and highest >= len(data.label_names):
        raise ValueError(
            f"labels holds {highest}, but label_names has {len(data.label_names)} classes (from 0)"
        )


def check_coordinates(data: PackedFields) -> None:
    """Read all coordinates and raise unless they are finite and, in float16, fine enough; frame labels, too.

    Raises:
        ValueError: they are not; the message names the clip and the frame.
    """
    if data.frame_labels is not None:
        _check_frame_labels(data, data.frame_labels)
    for start in range(0, data.num_frames, _CHUNK):
        bad = ~torch.isfinite(data.coords[start : start + _CHUNK]).flatten(1).all(1)
        if bool(bad.any()):
            row = start + int(bad.nonzero()[0])
            raise ValueError(
                f"{locate(data, row)}: coordinates are not finite; repair the source and import it again"
            )
    if data.coords.dtype == torch.float16:
        check_reach(data)


def _check_frame_labels(data: PackedFields, labels: Tensor) -> None:
    classes = len(data.label_names) or torch.iinfo(labels.dtype).max
    bad = (labels < -2) | (labels >= classes)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"{locate(data, row)}: frame_labels holds {int(labels[row])}, expected a class below {classes}, -1 for no "
            f"action or -2 for unknown"
        )


def check_reach(data: PackedFields) -> None:
    """Raise where float16 would be coarser than 1 mm.

    Raises:
        ValueError: a coordinate lies beyond :data:`HALF_LIMIT`; the message names the clip and the frame.
    """
    for start in range(0, data.num_frames, _CHUNK):
        reach = data.coords[start : start + _CHUNK].abs().flatten(1).amax(1)
        if bool((reach > HALF_LIMIT).any()):
            row = int((reach > HALF_LIMIT).nonzero()[0])
            raise ValueError(
                f"{locate(data, start + row)}: a coordinate of {float(reach[row]):.2f} m does not fit float16, whose "
                f"spacing exceeds 1 mm beyond {HALF_LIMIT:g} m; centre first (frame='every' comes closest), or "
                f"keep float32"
            )


def locate(data: PackedFields, row: int) -> str:
    """Say in words which clip and frame a row of ``coords`` comes from."""
    body = int((data.offsets <= row).sum()) - 1
    clip = int(data.body_clip[body])
    frame = row - int(data.offsets[body]) + int(data.body_start[body])
    return f"clip {clip} ({data.names[clip]!r}), frame {frame}"
