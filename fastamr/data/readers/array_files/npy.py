"""A ``.npy`` file with one motion or a padded batch of clips, told by the sizes of its axes.

HumanML3D's and SMPL's joints ``(T, 22, 3)``, MediaPipe's landmarks ``(T, 33, 4)``, ``(T, V, 2)`` and so on. Nothing is
unpickled: arrays of objects are refused.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ....errors import STRAY, told
from ....skeleton import SkeletonLayout
from ...packed.dataset import PackedSkeletons
from ..common.npz import check_header
from ..common.poses import reading_note
from ..common.reader import Reader, Reading, Source
from .motion import read_motion
from .named import USUAL

_HUMANML_NAME = re.compile(r"M?\d{6}")
_HUMANML_FOLDERS = {"new_joints", "joints", "new_joints_abs_3d", "humanml3d"}
_HUMANML_FPS = 20.0
_HUMANML_FEATURES = {263: 22, 251: 21}


def open_array(path: Path) -> np.ndarray:
    """Map an array into memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, no array, or holds objects.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; fetch the file again")
    try:
        with path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise ValueError("it does not begin as an array of NumPy")
        check_header(path)
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, OSError, *STRAY) as error:
        if "Python object" in str(error) or "Object arrays" in str(error):
            raise ValueError(
                f"{path} holds an array of objects, which could run code and is not read; save one plain array a clip, "
                f"or pad the clips to (clips, coordinates, frames, joints, bodies)"
            ) from None
        if type(error) is ValueError and str(error).startswith(str(path)):
            raise
        raise ValueError(
            f"{path} is no .npy file, or is truncated ({told(error)}); fetch the file again"
        ) from None


def read(
    source: Source, *, layout: str | SkeletonLayout | None = None, min_confidence: float = 0.0
) -> Reading:
    """Read a file of this kind.

    Args:
        source: the file.
        layout: the skeleton; None tells it from the number of joints.
        min_confidence: joints of a lower confidence, or of 0, are marked as not seen.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or holds objects, or its axes or its skeleton cannot be told.
    """
    path = source.path
    array = source.parsed(open_array)
    if array.ndim == 2 and array.shape[1] in _HUMANML_FEATURES and layout is None:
        joints = _HUMANML_FEATURES[array.shape[1]]
        raise ValueError(
            f"{path} has shape {array.shape}: the {array.shape[1]} features a frame of HumanML3D (new_joint_vecs), no "
            f"positions; give the files of new_joints, or save recover_from_ric(features, {joints}) as (frames, "
            f"{joints}, 3)"
        )
    motion = read_motion(
        array, str(path), layout=layout, min_confidence=min_confidence, usual=USUAL, own_name=path.stem
    )
    is_humanml = motion.layout.name == "smpl22" and len(motion.clips) == 1 and _is_humanml(path)
    notes = [f"{path.name} is taken as HumanML3D's: {_HUMANML_FPS:g} frames a second"] * is_humanml
    data = PackedSkeletons.from_clips(
        motion.clips,
        layout=motion.layout,
        valid=motion.valid,
        names=[path.stem] if len(motion.clips) == 1 else None,
        fps=_HUMANML_FPS if is_humanml else None,
    )
    if motion.scored:
        data.steps = reading_note(min_confidence)
    return Reading(data, notes=motion.notes + notes)


READER = Reader("npy", (".npy",), read, title="an array of joints")


def _is_humanml(path: Path) -> bool:
    folders = {part.lower() for part in path.absolute().parts[-4:-1]}
    return bool(_HUMANML_NAME.fullmatch(path.stem) or folders & _HUMANML_FOLDERS)
