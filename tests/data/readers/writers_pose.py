"""Writers of what pose tools write, for tests: a motion is ``(T, M, V, C)``, the people of a frame ``(M, V, C)``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastamr.skeleton import get_layout

COCO_NAMES = get_layout("coco17").joints


def motion(
    frames: int, people: int = 1, joints: int = 17, channels: int = 2, *, scale: float = 100.0
) -> np.ndarray:
    """People who stand 5 body sizes apart and move slowly, ``(T, M, V, C)`` float32, never 0."""
    rng = np.random.default_rng(joints)
    body = rng.uniform(0.2, 1, (1, 1, joints, channels))
    apart = np.zeros((1, people, 1, channels))
    apart[..., 0] = 5 * np.arange(people)[None, :, None]
    moved = 0.02 * np.arange(frames)[:, None, None, None]
    return ((body + apart + moved) * scale).astype(np.float32)


def flat(points: np.ndarray, confidence: float = 0.9) -> list[float]:
    """``x, y, c`` of every joint in one list."""
    return np.c_[points, np.full(len(points), confidence)].astype(float).ravel().tolist()


def openpose_frame(people: np.ndarray, ids: Sequence[int] | None = None, **fields: Any) -> dict[str, Any]:
    key = f"pose_keypoints_{people.shape[-1]}d"
    entries = [
        {"person_id": [-1 if ids is None else ids[place]], key: flat(points)} | fields
        for place, points in enumerate(people)
    ]
    return {"version": 1.3, "people": entries}


def write_openpose(
    folder: Path, clip: np.ndarray, name: str = "video", first: int = 0, **fields: Any
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for frame, people in enumerate(clip, first):
        write(folder / f"{name}_{frame:012d}_keypoints.json", openpose_frame(people, **fields))


def kinetics_document(clip: np.ndarray, label: str = "waving", index: int = 0) -> dict[str, Any]:
    data = [
        {
            "frame_index": frame,
            "skeleton": [
                {"pose": points.ravel().astype(float).tolist(), "score": [0.5] * len(points)}
                for points in people
            ],
        }
        for frame, people in enumerate(clip, 1)
    ]
    return {"data": data, "label": label, "label_index": index}


def mmpose_instance(points: np.ndarray, **fields: Any) -> dict[str, Any]:
    return {"keypoints": points.astype(float).tolist(), "keypoint_scores": [0.9] * len(points)} | fields


def mmpose_frames(clip: np.ndarray, **fields: Any) -> list[dict[str, Any]]:
    return [
        {"frame_id": frame, "instances": [mmpose_instance(points, **fields) for points in people]}
        for frame, people in enumerate(clip)
    ]


def yolo_detection(points: np.ndarray, track: int | None = None, name: str = "person") -> dict[str, Any]:
    x, y = points.astype(float).T.tolist()
    entry: dict[str, Any] = {
        "name": name,
        "class": 0,
        "confidence": 0.9,
        "box": {"x1": 0, "y1": 0, "x2": 9, "y2": 9},
    }
    entry["keypoints"] = {"x": x, "y": y, "visible": [0.9] * len(points)}
    return entry if track is None else entry | {"track_id": track}


def yolo_line(
    points: np.ndarray, *, visible: bool = True, score: float | None = None, track: int | None = None
) -> str:
    numbers = flat(points, 0.875) if visible else points.astype(float).ravel().tolist()
    low, high = points.min(0), points.max(0)
    box = (f"{number:g}" for number in [*((low + high) / 2), *(high - low)])
    words = ["0", *box, *(f"{number:g}" for number in numbers)]
    words += [] if score is None else [f"{score:g}"]
    return " ".join(words + ([] if track is None else [str(track)]))


def landmarks(
    points: np.ndarray, visibility: float | None = 0.9, names: Sequence[str] | None = None
) -> list[Any]:
    """A list of objects, as MediaPipe's landmarks are written."""
    entries = [dict(zip("xyz", map(float, point), strict=False)) for point in points]
    if visibility is not None:
        entries = [entry | {"visibility": visibility} for entry in entries]
    if names is not None:
        entries = [entry | {"name": name} for entry, name in zip(entries, names, strict=True)]
    return entries


def azure_document(
    clip: np.ndarray, names: Sequence[str] | None = None, *, step: int = 33333
) -> dict[str, Any]:
    """``clip``: millimetres."""
    frames = [
        {
            "frame_id": frame,
            "timestamp_usec": 1000 + frame * step,
            "num_bodies": len(people),
            "bodies": [
                {"body_id": place + 1, "joint_positions": points.astype(float).tolist()}
                for place, points in enumerate(people)
            ],
        }
        for frame, people in enumerate(clip)
    ]
    document: dict[str, Any] = {"frames": frames}
    return document if names is None else document | {"joint_names": list(names)}


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def write_lines(path: Path, documents: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    return path


def by_name(points: np.ndarray, names: Sequence[str]) -> Mapping[str, Any]:
    return dict(zip(names, landmarks(points), strict=True))
