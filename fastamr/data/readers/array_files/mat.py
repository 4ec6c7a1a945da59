"""MATLAB's ``.mat`` files up to version 7: numeric and text arrays, never objects.

UTD-MHAD (``d_skel (20, 3, T)``), Penn Action (``x``, ``y``, ``visibility (T, 13)``), JHMDB (``pos_img (2, 15, T)``),
and any variable that may be coordinates by its name and axes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....skeleton import SkeletonLayout
from ...packed.dataset import Split
from ..common.arrays import texts
from ..common.reader import Reader, Reading, Source
from ..common.sources import whole_file
from .halves import OFFICIAL
from .mat_variables import NewerVersionError, variables
from .named import points_name, read_named

_SIDES = ("shoulder", "elbow", "wrist", "hand"), ("hip", "knee", "ankle", "foot")
_UTD_JOINTS = [
    *("head", "shoulder_center", "spine", "hip_center"),
    *(f"{side}_{part}" for parts in _SIDES for side in ("left", "right") for part in parts),
]
_UTD_NAME = re.compile(r"a(\d+)_s(\d+)_t(\d+)_skeleton")
# As listed on the page of UTD-MHAD (Chen et al., ICIP 2015).
_UTD_CLASSES = tuple(
    """swipe left; swipe right; wave; clap; throw; cross arms; basketball shoot; draw x; draw circle clockwise; draw
    circle counter clockwise; draw triangle; bowling; boxing; baseball swing; tennis swing; arm curl; tennis serve;
    push; knock; catch; pick up and throw; jog; walk; sit to stand; stand to sit; lunge; squat""".replace(
        "\n    ", " "
    ).split("; ")
)
_UTD_FPS = 30.0
_PENN_JOINTS = [
    "head",
    *(
        f"{side}_{part}"
        for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    ),
]
_JHMDB_JOINTS = [
    *("neck", "belly", "face"),
    *(
        f"{side}_{part}"
        for part in ("shoulder", "hip", "elbow", "knee", "wrist", "ankle")
        for side in ("right", "left")
    ),
]


def load(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the numeric and text arrays of a file, and the names of its other variables, which are not read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, no ``.mat`` file, or of version 7.3.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        found = list(variables(whole_file(path)))
    except NewerVersionError:
        raise ValueError(
            f"{path} is a .mat file of version 7.3 (HDF5), which is not read; in MATLAB: save('{path.name}', '-v7')"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is no .mat file, or is truncated ({error}); fetch the file again") from None
    arrays = {variable.name: variable.values for variable in found if variable.values is not None}
    return arrays, [f"{variable.name} ({variable.kind})" for variable in found if variable.name not in arrays]


def read(
    source: Source, *, layout: str | SkeletonLayout | None = None, min_confidence: float = 0.0
) -> Reading:
    """Read a file of this kind: one clip, or a padded batch.

    Names of UTD-MHAD's files (``a1_s1_t1_skeleton.mat``) give class, subject and repetition; Penn Action's ``action``
    and JHMDB's folder give the class; other files as :func:`.named.read_named`. Variables that are not read are named.

    Args:
        source: the file.
        layout: the skeleton; None tells it from the format or the number of joints.
        min_confidence: joints of a lower confidence, or of 0, are marked as not seen.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of version 7.3, no variable is coordinates, or a skeleton cannot be told.
    """
    path = source.path
    arrays, others = source.parsed(load)
    joints: list[str] | None = None
    more: dict[str, Any] = {}
    notes: list[str] = []
    if (
        {"x", "y", "visibility"} <= set(arrays)
        and arrays["x"].shape == arrays["y"].shape
        and arrays["x"].ndim == 2
    ):
        arrays, joints, more = _penn(arrays, path)
        notes.append(f"{path.name} is read as Penn Action")
        points: str | None = "keypoints"
    elif arrays.get("d_skel", np.empty(0)).shape[:2] == (20, 3):
        points, joints, more = "d_skel", _UTD_JOINTS, _utd(path)
        arrays = arrays | {"d_skel": _frames_first(arrays["d_skel"], (2, 0, 1))}
        notes.append(
            f"{path.name} is read as UTD-MHAD: its own order of 20 joints, {_UTD_FPS:g} frames a second"
        )
    elif "pos_img" in arrays and arrays["pos_img"].shape[:2] == (2, 15):
        points, joints, more = "pos_img", _JHMDB_JOINTS, _jhmdb(path)
        arrays = arrays | {"pos_img": _frames_first(arrays["pos_img"], (2, 1, 0))}
        of_class = f", class {more['label_names'][0]!r}" if more else ""
        notes.append(f"{path.name} is read as JHMDB: pixels{of_class}")
    else:
        points = points_name(
            {name: array.shape for name, array in arrays.items() if array.dtype.kind in "fiu"}
        )
    if points is None:
        listed = ", ".join([*(f"{name} {array.shape}" for name, array in arrays.items()), *others])
        raise ValueError(
            f"{path} holds {listed or 'no variable'}; expected a numeric variable such as skeleton (frames, joints, "
            "3); cells, structures and objects are not read: save their numbers as an array"
        )
    reading = read_named(
        arrays, points, path, layout=layout, min_confidence=min_confidence, joint_names=joints, more=more
    )
    reading.notes[:0] = notes
    reading.notes += [f"variables that are no plain arrays and are not read: {', '.join(others)}"] * bool(
        others
    )
    return reading


READER = Reader("mat", (".mat",), read, title="MATLAB")


def _frames_first(array: np.ndarray, order: tuple[int, int, int]) -> np.ndarray:
    """Return ``(T, V, C)`` of an array whose last axis, which MATLAB drops where it is 1, is time."""
    return (array if array.ndim == 3 else array[..., None]).transpose(order)


def _penn(
    arrays: dict[str, np.ndarray], path: Path
) -> tuple[dict[str, np.ndarray], list[str], dict[str, Any]]:
    """Return the arrays of a label file of Penn Action as coordinates and visibility, and what it says of the clip."""
    more: dict[str, Any] = {"names": [path.stem]}
    rest = dict(arrays)
    points = np.stack([rest.pop("x"), rest.pop("y")], axis=-1)[:, None]
    seen = rest.pop("visibility")
    if "action" in rest:
        more |= {"labels": [0], "label_names": texts(rest.pop("action"))[:1]}
    train = rest.pop("train", None)
    if train is not None and train.size == 1:
        is_train = bool(train.reshape(-1)[0] > 0)
        more["splits"] = {OFFICIAL: Split(torch.tensor([is_train]), torch.tensor([not is_train]))}
    size = rest.pop("dimensions", None)
    if size is not None and size.size >= 2:
        height, width = size.reshape(-1)[:2].astype(int).tolist()
        more["columns"] = {"image_height": [height], "image_width": [width]}
    rest.pop("nframes", None)
    return {"keypoints": points, "visibility": seen[:, None], **rest}, _PENN_JOINTS, more


def _utd(path: Path) -> dict[str, Any]:
    found = _UTD_NAME.fullmatch(path.stem)
    more: dict[str, Any] = {"fps": _UTD_FPS}
    if found is None or not 1 <= int(found[1]) <= len(_UTD_CLASSES):
        return more
    action, subject, repetition = map(int, found.groups())
    return more | {
        "labels": [action - 1],
        "label_names": _UTD_CLASSES,
        "columns": {"subject": [subject], "rep": [repetition]},
    }


def _jhmdb(path: Path) -> dict[str, Any]:
    """Return what the folders ``joint_positions/CLASS/VIDEO/joint_positions.mat`` say."""
    parts = path.absolute().parts
    if parts[-4:-3] != ("joint_positions",):
        return {}
    return {"names": [parts[-2]], "labels": [0], "label_names": [parts[-3]]}
