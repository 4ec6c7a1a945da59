"""Writers of the generic formats, for tests only: each is the plainest way to write what the readers read."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

NW_UCLA_ACTIONS = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)


def write_nw_ucla(folder: Path, clips: dict[str, np.ndarray]) -> None:
    """One JSON file a clip; ``clips``: name -> ``(T, 20, 3)``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, coords in clips.items():
        label = NW_UCLA_ACTIONS.index(int(name[1:3])) + 1
        document = {"file_name": name, "skeletons": coords.tolist(), "label": label}
        (folder / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")


def pyskl_annotation(name: str, keypoint: np.ndarray, label: int, **extra: Any) -> dict[str, Any]:
    """``keypoint``: ``(M, T, V, C)``."""
    return {
        "frame_dir": name,
        "label": label,
        "keypoint": keypoint,
        "total_frames": keypoint.shape[1],
        **extra,
    }


def write_pyskl(
    path: Path, annotations: list[dict[str, Any]], split: dict[str, list[str]] | None, protocol: int = 4
) -> None:
    content: dict[str, Any] = {"annotations": annotations}
    if split is not None:
        content["split"] = split
    path.write_bytes(pickle.dumps(content, protocol=protocol))


def write_alphapose(
    path: Path, poses: Iterable[tuple[str, np.ndarray, int | None]], *, confidence: float = 0.9
) -> None:
    """``poses``: image name, ``(V, 2)`` or ``(V, 3)`` with confidence, and a track's number or None."""
    entries = []
    for image, points, track in poses:
        rows = points if points.shape[1] == 3 else np.c_[points, np.full(len(points), confidence)]
        entry = {"image_id": image, "category_id": 1, "keypoints": rows.ravel().tolist(), "score": 2.5}
        entries.append(entry if track is None else entry | {"idx": track})
    path.write_text(json.dumps(entries), encoding="utf-8")


def coco_document(
    videos: dict[str, dict[int, dict[int, np.ndarray]]],
    joint_names: list[str] | None = None,
    **video_fields: Any,
) -> dict[str, Any]:
    """``videos``: name -> frame -> track -> ``(V, 3)`` of x, y, v."""
    document: dict[str, Any] = {"videos": [], "images": [], "annotations": [], "categories": [{"id": 1}]}
    if joint_names is not None:
        document["categories"][0]["keypoints"] = joint_names
    for number, (name, frames) in enumerate(videos.items()):
        document["videos"].append({"id": number, "name": name, **video_fields})
        for frame, people in frames.items():
            image = len(document["images"]) + 1000
            document["images"].append({"id": image, "video_id": number, "frame_id": frame, "file_name": "x"})
            for track, points in people.items():
                document["annotations"].append(
                    {
                        "id": len(document["annotations"]),
                        "image_id": image,
                        "track_id": track,
                        "keypoints": points.ravel().tolist(),
                    }
                )
    return document


def write_csv(
    path: Path,
    rows: Iterable[dict[str, Any]],
    columns: Iterable[str],
    *,
    delimiter: str = ",",
    newline: str = "\n",
    mark: bool = False,
) -> None:
    columns = list(columns)
    lines = [delimiter.join(columns)] + [
        delimiter.join("" if row[name] is None else str(row[name]) for name in columns) for row in rows
    ]
    text = ("\ufeff" if mark else "") + newline.join(lines) + newline
    path.write_bytes(text.encode("utf-8"))


def csv_rows(clip: str, coords: np.ndarray, joints: Iterable[Any], **extra: Any) -> list[dict[str, Any]]:
    """Rows of a clip ``(T, M, V, C)``; empty bodies and NaN joints are left out."""
    joints = list(joints)
    rows = []
    for frame, body in np.ndindex(coords.shape[:2]):
        for joint, name in enumerate(joints):
            point = coords[frame, body, joint]
            if coords[frame, body].any() and np.isfinite(point).all():
                values = dict(zip("xyz", (float(value) for value in point), strict=False))
                rows.append({"clip": clip, "frame": frame, "body": body, "joint": name, **values, **extra})
    return rows
