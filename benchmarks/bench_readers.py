"""Reading raw files on the CPU: one file at a time, and a whole source with its packed file."""

from __future__ import annotations

import json
import os
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fastamr.data import PackedSkeletons, read
from fastamr.data.prepare.prepare import prepare
from fastamr.data.readers.raw_sets import ntu, pku
from fastamr.skeleton import get_layout

from .conftest import Clock

CPU = torch.device("cpu")
FRAMES = 100
TARGET = 60
"""Files of NTU RGB+D a second and core: NTU-60 in 8 minutes on two cores."""


def skeleton_file(frames: int, bodies: int) -> bytes:
    """A file of NTU RGB+D with random joints, about as long as a real one of so many frames."""
    rng = np.random.default_rng(0)
    lines = [str(frames)]
    for _ in range(frames):
        lines.append(str(bodies))
        for body in range(bodies):
            lines += [f"7205759403793110{body} 0 1 1 1 1 0 0.02764709 0.05745083 2", "25"]
            joints = rng.normal(size=(25, 11)) * [0.3, 0.6, 0.3, 300, 200, 1000, 500, 0.5, 0.5, 0.5, 0.5]
            lines += [" ".join(f"{value:.7g}" for value in joint) + " 2" for joint in joints]
    return "\r\n".join([*lines, ""]).encode()


def core_seconds(function: Callable[[], object], calls: int) -> float:
    """Return the time that a call takes on a core, which other work on the machine does not change much."""
    start = time.process_time()
    for _ in range(calls):
        function()
    return (time.process_time() - start) / calls


@pytest.mark.parametrize("bodies", [1, 2])
def test_ntu_file(benchmark: BenchmarkFixture, bodies: int) -> None:
    content = skeleton_file(FRAMES, bodies)
    count, tracks = ntu.parse(content)
    assert (count, len(tracks)) == (FRAMES, bodies)
    clock = Clock(benchmark, CPU)
    median = clock(lambda: ntu.parse(content), "read a .skeleton file", [FRAMES, bodies, 25, 3])
    speed = 1 / core_seconds(lambda: ntu.parse(content), calls=20)
    benchmark.extra_info |= {"files_per_second": round(1 / median), "files_per_core_second": round(speed)}
    if bodies == 1:
        assert speed >= TARGET


def test_pku_stream(benchmark: BenchmarkFixture) -> None:
    stream = np.random.default_rng(0).normal(size=(5000, 150))
    content = "\n".join(" ".join(f"{value:.6f}" for value in row) for row in stream).encode()
    assert pku.parse(content).shape == (5000, 2, 25, 3)
    clock = Clock(benchmark, CPU)
    median = clock(lambda: pku.parse(content), "read a PKU-MMD stream", [5000, 2, 25, 3], rounds=5)
    benchmark.extra_info |= {
        "files_per_second": round(1 / median, 1),
        "megabytes": round(len(content) / 1e6, 1),
    }


def write_poses(folder: Path, form: str, frames: int) -> Path:
    """Write a video of one person as a pose tool does: a file a frame, or a document."""
    points = np.random.default_rng(0).uniform(1, 999, (frames, 33, 2)).round(3)
    flat = np.concatenate([points, np.full((frames, 33, 1), 0.9)], axis=2)
    if form == "openpose":
        for frame in range(frames):
            people = [{"person_id": [-1], "pose_keypoints_2d": flat[frame, :25].ravel().tolist()}]
            (folder / f"v_{frame:012d}_keypoints.json").write_text(
                json.dumps({"version": 1.3, "people": people})
            )
        return folder
    if form == "yolo-txt":
        for frame in range(frames):
            words = [0, 0.5, 0.5, 1, 1, *(flat[frame, :17] / [1000, 1000, 1]).round(6).ravel().tolist(), 1]
            (folder / f"v_{frame}.txt").write_text(" ".join(map(str, words)))
        return folder
    documents: dict[str, list[Any]] = {
        "mmpose": [
            {"frame_id": frame, "instances": [{"keypoints": rows[:17], "keypoint_scores": [0.9] * 17}]}
            for frame, rows in enumerate(points.tolist())
        ],
        "yolo": [
            [{"name": "person", "keypoints": {"x": rows[0][:17], "y": rows[1][:17], "visible": [0.9] * 17}}]
            for rows in points.swapaxes(1, 2).tolist()
        ],
        "mediapipe": [
            [{"x": x, "y": y, "z": -0.1, "visibility": 0.9} for x, y in rows]
            for rows in (points / 1000).tolist()
        ],
    }
    (folder / "v.json").write_text(json.dumps(documents[form]))
    return folder / "v.json"


@pytest.mark.parametrize("form", ["openpose", "yolo-txt", "mmpose", "yolo", "mediapipe"])
def test_pose_tools(benchmark: BenchmarkFixture, tmp_path: Path, form: str) -> None:
    frames = 1000
    path = write_poses(tmp_path, form, frames)
    told: list[str] = []
    assert read(path, say=told.append).num_frames == frames
    clock = Clock(benchmark, CPU)
    median = clock(lambda: read(path, say=told.append), f"read {form}", [frames], rounds=3)
    benchmark.extra_info |= {"frames_per_second": round(frames / median)}


def write_arrays(folder: Path, form: str, count: int) -> Path:
    """Write ``count`` clips of FRAMES frames of 25 joints in one of the forms of arrays."""
    x = np.random.default_rng(0).normal(size=(count, FRAMES, 1, 25, 3)).astype(np.float32)
    names = [f"S001C001P{place // 60 + 1:03d}R001A{place % 60 + 1:03d}" for place in range(count)]
    if form == "npz":
        offsets = np.arange(count + 1) * FRAMES
        seen = np.ones((count * FRAMES, 1, 25), bool)
        np.savez(
            folder / "a.npz", x=x.reshape(-1, 1, 25, 3), offsets=offsets, visible=seen, name=np.array(names)
        )
        return folder / "a.npz"
    if form == "st-gcn":
        np.save(folder / "train_data_joint.npy", x.transpose(0, 4, 1, 3, 2))
        (folder / "train_label.pkl").write_bytes(
            pickle.dumps((names, [place % 60 for place in range(count)]))
        )
        return folder / "train_data_joint.npy"
    annotations = [
        {"frame_dir": name, "label": place % 60, "keypoint": x[place].swapaxes(0, 1), "total_frames": FRAMES}
        for place, name in enumerate(names)
    ]
    (folder / "a.pkl").write_bytes(pickle.dumps({"annotations": annotations, "split": {"train": names}}))
    return folder / "a.pkl"


@pytest.mark.parametrize("form", ["npz", "st-gcn", "pyskl"])
def test_arrays(benchmark: BenchmarkFixture, tmp_path: Path, form: str) -> None:
    count = 500
    path = write_arrays(tmp_path, form, count)
    told: list[str] = []
    assert read(path, layout="ntu25", say=told.append).num_clips == count
    clock = Clock(benchmark, CPU)
    median = clock(
        lambda: read(path, layout="ntu25", say=told.append), f"read {form}", [count, FRAMES, 25, 3], rounds=3
    )
    benchmark.extra_info |= {"clips_per_second": round(count / median)}


@pytest.mark.parametrize(
    ("kind", "workers"),
    [("folder", 1), ("zip", 1), ("zip", 2), pytest.param("folder", 2, marks=pytest.mark.long_case)],
)
def test_prepare(benchmark: BenchmarkFixture, tmp_path: Path, kind: str, workers: int) -> None:
    """256 files from the source to the packed file, processes started anew each time."""
    count = 256
    content = skeleton_file(FRAMES, 1)
    names = [f"S001C001P{place // 60 + 1:03d}R001A{place % 60 + 1:03d}.skeleton" for place in range(count)]
    raw = tmp_path / "raw"
    if kind == "zip":
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name in names:
                archive.writestr(name, content)
    else:
        raw.mkdir()
        (raw / names[0]).write_bytes(content)
        for name in names[1:]:
            os.link(raw / names[0], raw / name)
    out = tmp_path / "out.safetensors"
    speed = count / core_seconds(lambda: prepare("ntu60", raw, out), calls=1) if workers == 1 else None
    clock = Clock(benchmark, CPU)
    median = clock(
        lambda: prepare("ntu60", raw, out, workers=workers), "prepare", [count], rounds=1, warmup=0
    )
    assert PackedSkeletons.load(out).num_clips == count
    benchmark.extra_info |= {"files_per_second": round(count / median), "workers": workers, "source": kind}
    if speed is not None:
        benchmark.extra_info["files_per_core_second"] = round(speed)
        assert speed >= TARGET


def test_bvh(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """A chain of 31 joints, from angles to positions."""
    joints, frames = 31, 1000
    head = "".join(
        f"{'JOINT' if joint else 'ROOT'} j{joint}\n{{\nOFFSET 0 1 0\nCHANNELS 3 Zrotation Xrotation Yrotation\n"
        for joint in range(joints)
    )
    angles = np.random.default_rng(0).uniform(-90, 90, (frames, 3 * joints))
    rows = "\n".join(" ".join(f"{value:.4f}" for value in row) for row in angles)
    text = f"HIERARCHY\n{head}{'}' * joints}\nMOTION\nFrames: {frames}\nFrame Time: 0.01\n{rows}\n"
    path = tmp_path / "chain.bvh"
    path.write_text(text, encoding="utf-8")
    assert read(path, say=lambda _: None).coords.shape == (frames, joints, 3)
    clock = Clock(benchmark, CPU)
    median = clock(lambda: read(path, say=lambda _: None), "read BVH", [frames, 1, joints, 3], rounds=5)
    benchmark.extra_info |= {
        "frames_per_second": round(frames / median),
        "megabytes": round(len(text) / 1e6, 1),
    }


@pytest.mark.parametrize("form", ["a row a joint", "a row a frame"])
def test_table(benchmark: BenchmarkFixture, tmp_path: Path, form: str) -> None:
    """Both forms of the same 17 joints with their confidence."""
    frames, joints = 2000, 17
    names = get_layout("coco17").joints
    points = np.random.default_rng(0).uniform(1, 600, (frames, joints, 2))
    if form == "a row a joint":
        lines = ["frame,joint,x,y,score"]
        lines += [
            f"{f},{names[j]},{points[f, j, 0]:.2f},{points[f, j, 1]:.2f},0.9"
            for f, j in np.ndindex(frames, joints)
        ]
    else:
        lines = [",".join(["frame", *(f"{name}_{value}" for name in names for value in ("x", "y", "score"))])]
        lines += [
            f"{frame}," + ",".join(f"{x:.2f},{y:.2f},0.9" for x, y in pose)
            for frame, pose in enumerate(points)
        ]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert read(path, say=lambda _: None).coords.shape == (frames, joints, 2)
    clock = Clock(benchmark, CPU)
    median = clock(
        lambda: read(path, say=lambda _: None), f"read CSV, {form}", [frames, 1, joints, 2], rounds=5
    )
    benchmark.extra_info |= {"frames_per_second": round(frames / median)}
