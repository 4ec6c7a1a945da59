"""MSR Action3D and MSR DailyActivity3D: text of the Kinect v1, a file a clip, ``aAA_sSS_eEE_skeleton3D.txt``.

Action3D has a line a joint, ``x y z confidence``, twenty lines a frame, in an order of its own (``_JOINTS``); its
files ``_skeleton.txt`` are of the screen, ``u v depth confidence``. DailyActivity3D's ``_skeleton.txt`` begin with the
numbers of frames and of joints; each frame is the number of its lines, and for each joint a line in metres and one of
the screen, in the order of kinect20.
"""

from __future__ import annotations

import re

import numpy as np
import torch

from ....skeleton import SkeletonLayout, get_layout
from ..common.layout_choice import joints_by_name
from ..common.linking import tracks_without_ids
from ..common.poses import Poses, pack_poses, reading_note, seen_from
from ..common.reader import Reader, Reading, Source
from ..common.sources import DamagedFile, whole_file
from ..common.text_numbers import NumberText, as_float32, read_numbers

_JOINTS = (
    "shoulder_right", "shoulder_left", "shoulder_center", "spine", "hip_right", "hip_left", "hip_center", "elbow_right",
    "elbow_left", "wrist_right", "wrist_left", "hand_right", "hand_left", "knee_right", "knee_left", "ankle_right",
    "ankle_left", "foot_right", "foot_left", "head",
)  # fmt: skip
_ACTION3D = (
    "high arm wave", "horizontal arm wave", "hammer", "hand catch", "forward punch", "high throw", "draw x",
    "draw tick", "draw circle", "hand clap", "two hand wave", "side boxing", "bend", "forward kick", "side kick",
    "jogging", "tennis swing", "tennis serve", "golf swing", "pickup and throw",
)  # fmt: skip
_DAILY = (
    "drink", "eat", "read book", "call cellphone", "write on a paper", "use laptop", "use vacuum cleaner", "cheer up",
    "sit still", "toss paper", "play game", "lie down on sofa", "walk", "play guitar", "stand up", "sit down",
)  # fmt: skip
_FPS = 15.0  # of Action3D (W. Li et al., 2010)
_COUNT = 20


def _is_msr(source: Source) -> bool:
    words = source.head(256).split(b"\n")[0].split()
    return len(words) in (1, 2, 4) and all(
        re.fullmatch(rb"[-+]?[\d.]+(?:[eE][-+]?\d+)?", word) for word in words
    )


def read(
    source: Source,
    *,
    layout: str | SkeletonLayout | None = None,
    min_confidence: float = 0.0,
    track: bool = True,
) -> Reading:
    """Read a clip.

    Args:
        source: the file.
        layout: the skeleton to map the joints to by name; None = kinect20.
        min_confidence: joints of Action3D below it, and those of 0, are marked as not seen.
        track: link several people of DailyActivity3D, whose files tell no tracks; False refuses them.

    Raises:
        OSError: the file cannot be opened.
        DamagedFile: it is not of this form (in which line).
        ValueError: it shows nobody, or several people with ``track=False``.
    """
    path = source.path

    def where(place: int) -> str:
        return f"{path}, frame {frame[place]}"

    text = read_numbers(whole_file(path))
    is_daily = int(text.counts[0]) != 4
    frame, points, seen = _daily(text) if is_daily else _action3d(text, min_confidence)
    on_screen = not is_daily and not path.stem.lower().endswith("3d")
    notes: list[str] = []
    channels = 3
    if on_screen:
        channels = 2
        notes.append("coordinates of the screen: x, y in pixels; the depth beside them is not read")
    joints = joints_by_name(get_layout("kinect20").joints if is_daily else _JOINTS, str(path), given=layout)
    coords, valid = joints.take(points[..., :channels], seen)
    clip = np.zeros(len(frame), dtype=np.int64)
    body, said = tracks_without_ids(
        *(clip, frame, coords, valid), track=track, where=where, way_on="the format has no tracks"
    )
    notes += said
    if not is_daily:
        notes.append(f"{_FPS:g} frames a second, the rate of MSR Action3D")
    name, classes = re.sub(r"(?i)_skeleton(3d)?$", "", path.stem), _DAILY if is_daily else _ACTION3D
    told = re.search(r"(?i)a(\d+)_s(\d+)_e(\d+)", name)
    action, *columns = (int(number) for number in told.groups()) if told else (0, -1, -1)
    data = pack_poses(
        Poses(clip, body, frame, as_float32(coords), valid),
        layout=joints.layout,
        names=[name],
        where=where,
        labels=[action - 1 if action <= len(classes) else -1],
        label_names=classes,
        fps=[float("nan") if is_daily else _FPS],
        steps=() if is_daily else reading_note(min_confidence),
        notes=notes,
    )
    data.columns.update(
        zip(("subject", "rep"), map(torch.tensor, [[value] for value in columns]), strict=True)
    )
    return Reading(data, notes=[*(joints.notes if layout is not None else ()), *notes])


_HOLDS = (
    "MSR Action3D: aAA_sSS_eEE_skeleton3D.txt, x y z confidence of 20 joints a frame; MSR DailyActivity3D"
)
READER = Reader("msr-action3d", ("_skeleton3d.txt", "_skeleton.txt"), read, _is_msr, holds=(_HOLDS,))


def _action3d(text: NumberText, min_confidence: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the frame ``(n,)``, the points ``(n, 20, 3)`` and which were seen ``(n, 20)`` of each pose."""
    wrong = np.flatnonzero(text.counts != 4)
    if len(wrong):
        place = int(wrong[0])
        raise DamagedFile(f"{text.counts[place]} numbers, expected x y z confidence", int(text.lines[place]))
    if len(text.counts) % _COUNT:
        raise DamagedFile(
            f"ends in the middle of a frame: {len(text.counts)} lines, expected {_COUNT} a frame",
            int(text.lines[-1]),
        )
    values = text.values.reshape(-1, _COUNT, 4)
    seen = np.isfinite(values).all(axis=-1) & seen_from(values[..., 3], min_confidence)
    return np.arange(len(values)), np.where(seen[..., None], values[..., :3], 0), seen


def _daily(text: NumberText) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what :func:`_action3d` does; the confidences of these files say nothing."""
    numbers = text.values
    if len(numbers) < 2 or numbers[1] != _COUNT:
        raise DamagedFile(f"expected the number of frames and {_COUNT} joints", int(text.lines[0]))
    at, frames, poses = 2, [], []
    for frame in range(_count(numbers, 0)):
        rows = _count(numbers, at)
        if rows < 0 or rows % (2 * _COUNT) or at + 1 + 4 * rows > len(numbers):
            line = int(
                text.lines[min(int(np.searchsorted(text.first, at, "right")) - 1, len(text.lines) - 1)]
            )
            raise DamagedFile(
                f"frame {frame} has {rows} lines, expected a multiple of {2 * _COUNT} with as many", line
            )
        block = numbers[at + 1 : at + 1 + 4 * rows].reshape(-1, _COUNT, 2, 4)
        poses += list(block[:, :, 0, :3])
        frames += [frame] * len(block)
        at += 1 + 4 * rows
    if not poses:
        raise DamagedFile("shows nobody in any frame")
    points = np.stack(poses)
    seen = np.isfinite(points).all(axis=-1) & points.any(axis=-1)
    return np.array(frames), np.where(seen[..., None], points, 0), seen


def _count(numbers: np.ndarray, place: int) -> int:
    """Return the count that stands at a place, -1 where there is none."""
    value = float(numbers[place]) if place < len(numbers) else -1.0
    return int(value) if 0 <= value <= len(numbers) and value.is_integer() else -1
