"""Generated actions written as a person would have them: a folder a class, a file (or a folder of frames) a clip."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastamr.data import PackedSkeletons, preprocess, synthetic_actions
from fastamr.skeleton import get_layout

KINDS = ("csv", "openpose", "coco", "yolo", "mediapipe")
_LAYOUTS = {
    "csv": "ntu25",
    "openpose": "openpose25",
    "coco": "coco17",
    "yolo": "coco17",
    "mediapipe": "mediapipe33",
}


def write_actions(
    top: Path,
    kind: str,
    *,
    actions: Sequence[str] = ("wave", "squat"),
    clips: int = 4,
    frames: tuple[int, int] = (12, 16),
    seed: int = 0,
) -> None:
    """Write ``clips`` clips of each action below ``top`` in a kind of :data:`KINDS`."""
    data = synthetic_actions(clips * len(actions), actions=list(actions), frames=frames, seed=seed)
    # Joints that no rule of the conversion gives stand where the root is.
    data = preprocess(data, [{"name": "convert", "layout": _LAYOUTS[kind]}]) if kind != "csv" else data
    counts = dict.fromkeys(actions, 0)
    for clip in range(data.num_clips):
        name = data.label_names[int(data.labels[clip])]
        counts[name] += 1
        write_clip(top / name / f"{counts[name]:04d}", kind, _points(data, clip))


def write_clip(path: Path, kind: str, points: np.ndarray) -> None:
    """Write one clip, ``points (T, V, 3)`` in metres, y up; ``path`` has no ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = get_layout(_LAYOUTS[kind]).joints
    # A camera that is 640 pixels wide and high sees 4 metres.
    pixels = np.stack([320 + 160 * points[..., 0], 320 - 160 * points[..., 1]], axis=-1)
    if kind == "csv":
        with path.with_suffix(".csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["frame", *(f"{joint}_{axis}" for joint in names for axis in "xyz")])
            table.writerows([frame, *np.round(pose.ravel(), 4).tolist()] for frame, pose in enumerate(points))
    elif kind == "mediapipe":
        hips = [names.index("left_hip"), names.index("right_hip")]
        world = np.round((points - points[:, hips].mean(1, keepdims=True)) * [1, -1, -1], 4)
        frames = [
            {"frame": frame, "pose_world_landmarks": [_landmark(point) for point in pose]}
            for frame, pose in enumerate(world)
        ]
        path.with_suffix(".json").write_text(json.dumps(frames))
    elif kind == "coco":
        path.with_suffix(".json").write_text(json.dumps(_coco(pixels, path.name)))
    else:
        path.mkdir()
        for frame, pose in enumerate(pixels):
            if kind == "openpose":
                person = {"person_id": [-1], "pose_keypoints_2d": _flat(pose)}
                text, name = json.dumps({"version": 1.3, "people": [person]}), f"{frame:012d}_keypoints.json"
            else:
                text = " ".join(map(str, [0, 0.5, 0.5, 0.2, 0.6, *np.round(_flat(pose / 640), 5).tolist()]))
                name = f"{frame + 1}.txt"
            (path / f"{path.name}_{name}").write_text(text + "\n")


def _points(data: PackedSkeletons, clip: int) -> np.ndarray:
    """Return the first body of a clip ``(T, V, 3)``, unseen joints at the root, the root near the origin."""
    body = int((data.body_clip == clip).nonzero()[0])
    rows = slice(int(data.offsets[body]), int(data.offsets[body + 1]))
    points = data.coords[rows].double().numpy().copy()
    hips = [data.layout.index(name) for name in data.layout.joints if "hip" in name][:2]
    if data.valid is not None:
        middle = points[:, hips].mean(1, keepdims=True)
        points = np.where(data.valid[rows].numpy()[..., None], points, middle)
    found: np.ndarray = points - points[0, hips].mean(0)
    return found


def _landmark(point: np.ndarray) -> dict[str, float]:
    return dict(zip("xyz", map(float, point), strict=True)) | {"visibility": 0.9}


def _flat(pose: np.ndarray) -> list[float]:
    return np.c_[np.round(pose, 4), np.full(len(pose), 0.9)].ravel().tolist()


def _coco(pixels: np.ndarray, name: str) -> dict[str, object]:
    names = list(get_layout("coco17").joints)
    images = [
        {"id": frame, "file_name": f"{name}/{frame:06d}.jpg", "frame_id": frame, "video_id": 1}
        for frame in range(len(pixels))
    ]
    found = [
        {
            "id": frame,
            "image_id": frame,
            "category_id": 1,
            "track_id": 1,
            "keypoints": np.c_[np.round(pose, 2), np.full(17, 2)].ravel().tolist(),
        }
        for frame, pose in enumerate(pixels)
    ]
    return {
        "videos": [{"id": 1, "name": name, "fps": 25}],
        "images": images,
        "annotations": found,
        "categories": [{"id": 1, "name": "person", "keypoints": names}],
    }
