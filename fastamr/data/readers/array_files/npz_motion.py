"""An npz archive with one motion or a padded batch, under any of the usual names; the last that asks for an archive.

``keypoints (T, V, 2)`` with ``scores``, ``joints (T, 22, 3)`` with ``mocap_framerate``, ``data (N, C, T, V, M)`` with
``labels``, ... Archives of AMASS and SMPL without joints are refused: their joints need the body model.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ....skeleton import SkeletonLayout
from ..common.npz import member_headers, read_member
from ..common.reader import Reader, Reading, Source
from .named import POINTS, points_name, read_named, refuse_objects

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
    return _points(headers) is not None or _is_body_model(headers)


def read(
    source: Source, *, layout: str | SkeletonLayout | None = None, min_confidence: float = 0.0
) -> Reading:
    """Read an archive of this kind.

    The axes of the coordinates are told by their sizes (see :func:`.axes.to_clips`); a confidence, labels, names, rates
    and joint names that fit become what they say, all other arrays are named in a note.

    Args:
        source: the archive.
        layout: the skeleton; None tells it from ``joint_names`` or the number of joints.
        min_confidence: joints of a lower confidence, or of 0, are marked as not seen.

    Raises:
        ValueError: no array is coordinates (what is expected), or the arrays do not fit together.
    """
    path = source.path
    headers = source.parsed(member_headers)
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
