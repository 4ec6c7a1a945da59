"""An npz archive with one motion or a padded batch, under any of the usual names; the last that asks for an archive.

``keypoints (T, V, 2)`` with ``scores``, ``joints (T, 22, 3)`` with ``mocap_framerate``, ``data (N, C, T, V, M)`` with
``labels``, ... Archives of AMASS and SMPL without joints are refused: their joints need the body model.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from ....skeleton import SkeletonLayout
from ...packed.dataset import PackedSkeletons
from ..common.npz import member_headers, read_member
from ..common.poses import reading_note
from ..common.reader import Reader, Reading, Source
from .motion import read_motion
from .named import POINTS, USUAL, points_name, read_named, refuse_objects

_ROTATIONS = {
    "poses",
    "pose",
    "pose_body",
    "body_pose",
    "root_orient",
    "global_orient",
    "smpl_poses",
    "fullpose",
}
_OF_BODY_MODEL = {
    "trans",
    "transl",
    "betas",
    "dmpls",
    "gender",
    "surface_model_type",
    "smpl_trans",
    "smpl_scaling",
}


def sniff(source: Source) -> bool:
    """Say whether an archive holds an array that may be coordinates, or poses of a body model."""
    headers = source.parsed(member_headers)
    source.seen = "the arrays " + (
        ", ".join(f"{name} {shape}" for name, (shape, _) in sorted(headers.items())) or "none"
    )
    return bool(_clips(headers)) or _points(headers) is not None or _is_body_model(headers)


def read(
    source: Source, *, layout: str | SkeletonLayout | None = None, min_confidence: float = 0.0
) -> Reading:
    """Read an archive of this kind.

    An archive of nothing but several arrays of the same joints, ``np.savez(path, **{name: array})`` or ``arr_0``,
    ``arr_1``, ..., has a clip in each. Else the axes of the coordinates are told by their sizes (see
    :func:`.axes.to_clips`); a confidence, labels, names, rates and joint names that fit become what they say, all
    other arrays are named in a note.

    Args:
        source: the archive.
        layout: the skeleton; None tells it from ``joint_names`` or the number of joints.
        min_confidence: joints of a lower confidence, or of 0, are marked as not seen.

    Raises:
        ValueError: no array is coordinates (what is expected), or the arrays do not fit together.
    """
    path = source.path
    headers = source.parsed(member_headers)
    if clips := _clips(headers):
        return _read_clips(path, clips, layout, min_confidence)
    points = _points(headers)
    if points is None and _is_body_model(headers):
        raise ValueError(
            f"{path} holds rotations of a body model (AMASS, SMPL) and no positions of joints; compute the joints "
            "with the package smplx and the model's files, and save them as joints (T, 22, 3) in metres beside "
            "mocap_framerate"
        )
    if points is None:
        raise ValueError(
            f"{path} holds {', '.join(headers)}; expected an array such as keypoints (frames, joints, 2 or 3)"
        )
    refuse_objects(path, [name for name, (_, dtype) in headers.items() if dtype.hasobject])
    readable = [name for name, (_, dtype) in headers.items() if not dtype.hasobject]
    reading = read_named(
        {name: read_member(path, name) for name in readable},
        points, path, layout=layout, min_confidence=min_confidence,
    )  # fmt: skip
    objects = [name for name in headers if name not in readable]
    reading.notes += [f"arrays of objects, which are never read: {', '.join(objects)}"] * bool(objects)
    return reading


READER = Reader("npz", (".npz",), read, sniff, holds=("an array such as keypoints (frames, joints, 2 or 3)",))


def _clips(headers: _Headers) -> list[str]:
    """Return the arrays of an archive that holds a clip in each: the same joints, numbered names or other lengths."""
    shapes = [shape for shape, _ in headers.values()]
    numbers = all(dtype.kind in "fiu" for _, dtype in headers.values())
    if len(headers) < 2 or not numbers or {len(shape) for shape in shapes} not in ({3}, {4}):
        return []
    is_told = len({shape[0] for shape in shapes}) > 1 or all(name[-1:].isdigit() for name in headers)
    if not is_told or len({shape[-2:] for shape in shapes}) > 1:
        return []
    known = {*POINTS, *_ROTATIONS, *_OF_BODY_MODEL} - {"arr_0"}
    return [] if any(name.lower() in known for name in headers) else sorted(headers, key=_natural)


def _natural(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name)]


def _read_clips(
    path: Path, names: list[str], layout: str | SkeletonLayout | None, min_confidence: float
) -> Reading:
    """Read an archive with a clip in each array.

    Raises:
        ValueError: an array holds several clips, or as :func:`.motion.read_motion`.
    """
    motions = []
    for name in names:
        where = f"{path}, {name}"
        motion = read_motion(
            read_member(path, name), where, layout=layout, min_confidence=min_confidence, usual=USUAL
        )
        if len(motion.clips) > 1:
            raise ValueError(
                f"{where}: {len(motion.clips)} clips; save each clip as (frames, joints, coordinates)"
            )
        motions.append(motion)
    first = motions[0]
    if any(motion.clips[0].shape[3] != first.clips[0].shape[3] for motion in motions):
        raise ValueError(f"{path}: some arrays are 2-D with a confidence and others are not; save all alike")
    valid = [
        np.ones(motion.clips[0].shape[:3], dtype=bool) if motion.valid is None else motion.valid[0]
        for motion in motions
    ]
    data = PackedSkeletons.from_clips(
        [motion.clips[0] for motion in motions],
        layout=first.layout,
        valid=None if all(motion.valid is None for motion in motions) else valid,
        names=names,
    )
    if any(motion.scored for motion in motions):
        data.steps = reading_note(min_confidence)
    notes = list(dict.fromkeys(note for motion in motions for note in motion.notes))
    return Reading(data, notes=[f"each of the {len(names)} arrays is taken as a clip of its name", *notes])


_Headers = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]


def _is_body_model(headers: _Headers) -> bool:
    names = {name.lower() for name in headers}
    return bool(names & _ROTATIONS) and bool(names & _OF_BODY_MODEL)


def _points(headers: _Headers) -> str | None:
    """Return the name of the coordinates; beside a body model's shape ``poses`` are rotations, whatever their axes."""
    shapes = {name: shape for name, (shape, dtype) in headers.items() if dtype.kind in "fiu"}
    if _is_body_model(headers):
        shapes = {
            name: shape
            for name, shape in shapes.items()
            if name.lower() in POINTS and name.lower() not in _ROTATIONS
        }
    return points_name(shapes)
