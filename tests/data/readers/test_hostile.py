"""Numbers, nestings and sizes beyond all bounds: one line that names the file, or the rest is read."""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastamr.data import read
from fastamr.skeleton import get_layout

HUGE = "1" * 400
OPENPOSE = json.dumps({"pose_keypoints_2d": [float(value) for value in range(75)]})
COCO = json.dumps([10, 10, 2] * 17)
TABLE = "frame,nose_x,nose_y,left_eye_x,left_eye_y,neck_x,neck_y"


def openpose(before: str, frames: list[str]) -> str:
    return f'{{{before}"frames": [{", ".join(frames)}]}}'


def coco(video: str) -> str:
    images = ", ".join(f'{{"id": {place}, "video_id": 1, "frame_id": {place}}}' for place in (1, 2))
    found = ", ".join(f'{{"image_id": {place}, "keypoints": {COCO}}}' for place in (1, 2))
    return f'{{"videos": [{{"id": 1, {video}}}], "images": [{images}], "annotations": [{found}]}}'


def rows(*lines: str) -> str:
    return "\n".join((TABLE, *lines)) + "\n"


def bvh(offset: str, joints: int, frames: int) -> str:
    child = f"JOINT j\n{{\nOFFSET {offset} 0 0\nCHANNELS 0\n}}\n" * joints
    head = f"HIERARCHY\nROOT root\n{{\nOFFSET 0 0 0\nCHANNELS 1 Xposition\n{child}}}\nMOTION\n"
    return head + f"Frames: {frames}\nFrame Time: 0.03\n" + "0\n" * frames


def people_with_joints_of_their_own(count: int) -> str:
    names = ",".join(f"person{place}_joint{place}a_{axis}" for place in range(count) for axis in "xy")
    return f"frame,{names}\n" + "\n".join(f"{frame}," + ",".join("12" * count) for frame in range(3))


def annotation(**changed: Any) -> bytes:
    entry = {"label": 1, "total_frames": 5, "keypoint": np.ones((1, 5, 17, 2))} | changed
    return pickle.dumps({"split": {}, "annotations": [entry | {"frame_dir": name} for name in "ab"]})


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("deep.json", "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("deep.json", '{"frames": [{"people": ' + "[" * 1500 + "]" * 1500 + "}]}", "nested too deeply"),
        ("coco.json", coco(f'"fps": {HUGE}'), r"videos\[0\]: 'id', 'label' or 'fps' is no number"),
        (
            "times.json",
            openpose("", [f'{{"time": {t}, "people": [{OPENPOSE}]}}' for t in (0, 0.033, 0.066, 0.1, 1e300)]),
            r"frames\[4\], person 0: frame \d+, but the body begins in frame 0",
        ),
        (
            "over.csv",
            rows(*(f"{frame},1e300,2,3,4,5,6" for frame in range(3))),
            "line 2, joint 0: .*not finite",
        ),
        ("wide.csv", people_with_joints_of_their_own(200), "200 people .* and 200 joints"),
        ("a_s01_e01_skeleton.txt", "1e999 20\n", "nobody"),
        ("a_s01_e01_skeleton.txt", "3 20\n1e999\n", "line 2: frame 0"),
        ("over.bvh", bvh("1e300", 1, 2), "not finite"),
        ("label.pkl", annotation(label=math.inf), "'label' is inf, no class index"),
        ("label.pkl", annotation(label=10**30), "no class index"),
        ("fps.pkl", annotation(fps=10**400), "beyond all bounds"),
    ],
)
def test_one_line_names_the_file(tmp_path: Path, name: str, content: str | bytes, text: str) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(ValueError, match=text) as caught:
        read(path, say=lambda line: None)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x", "keypoints"])
def test_an_array_larger_than_its_file_takes_no_memory(tmp_path: Path, name: str) -> None:
    header, offsets = BytesIO(), BytesIO()
    about = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 1, 17, 3)}
    np.lib.format.write_array_header_1_0(header, about)
    np.save(offsets, np.array([0, 10**12]))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr(f"{name}.npy", header.getvalue())
        archive.writestr("offsets.npy", offsets.getvalue())
    with pytest.raises(ValueError, match=f"array '{name}'.* is more than the file holds"):
        read(tmp_path / "bomb.npz")


def test_joints_without_channels_take_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastamr.data.readers.mocap.bvh.FREE_PLACES", 100)
    path = write(tmp_path, "many.bvh", bvh("1", 300, 20))
    with pytest.raises(ValueError, match="20 frames of 301 joints, but 1 channels a frame"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "fps.json",
            openpose(f'"fps": {HUGE}, ', [f'{{"frame": {n}, "people": [{OPENPOSE}]}}' for n in range(3)]),
        ),
        ("label.json", coco('"label": null')),
        ("label.pkl", annotation(label=math.nan)),
        ("shape.pkl", annotation(img_shape=np.array(3))),
    ],
)
def test_what_is_unknown_stays_unknown(tmp_path: Path, name: str, content: str | bytes) -> None:
    data = read(write(tmp_path, name, content), say=lambda line: None)
    assert bool(data.fps.isnan().all())
    assert set(data.labels.tolist()) <= {-1, 1}


def test_a_strange_class_of_yolo_costs_its_line(tmp_path: Path) -> None:
    line = "{} 0.5 0.5 0.5 0.5 " + " ".join(["0.5 0.5 1"] * 17) + "\n"
    for frame in range(4):
        write(tmp_path, f"f_{frame:03d}.txt", line.format(0) + line.format("inf") * (frame == 2))
    data = read(tmp_path, say=lambda text: None)
    assert data.num_bodies == 1
    assert "class inf" in "".join(data.dropped.values())


@pytest.mark.parametrize("value", ["name", "joints", "parents"])
def test_yaml_that_repeats_itself_is_named_in_no_time(tmp_path: Path, value: str) -> None:
    bomb, inner = "&a0 [x, x, x, x, x, x, x, x, x, x]", "a0"
    for level in range(1, 12):
        bomb = f"&a{level} [{bomb}, {', '.join([f'*{inner}'] * 9)}]"
        inner = f"a{level}"
    fields = {"name": "mine", "joints": "[x, y]", "parents": "[null, x]"} | {value: bomb}
    path = write(tmp_path, "bomb.yaml", "".join(f"{key}: {text}\n" for key, text in fields.items()))
    with pytest.raises(ValueError, match=f"field '{value}'|with its aliases written out"):
        get_layout(str(path))


def test_kinetics_clips_beside_the_halves_are_in_none(tmp_path: Path) -> None:
    frames = [
        {"frame_index": n, "skeleton": [{"pose": [0.1 + n / 100] * 36, "score": [0.5] * 18}]}
        for n in range(3)
    ]
    for folder, name in (("kinetics_train", "a"), ("kinetics_val", "b"), (".", "c")):
        (tmp_path / folder).mkdir(exist_ok=True)
        write(tmp_path / folder, f"{name}.json", json.dumps({"data": frames, "label_index": 10**30}))
    data = read(tmp_path, kind="kinetics-skeleton", say=lambda line: None)
    split = {
        name: (bool(a), bool(b))
        for name, a, b in zip(data.names, *vars(data.splits["official"]).values(), strict=True)
    }
    assert split == {"a": (True, False), "b": (False, True), "c": (False, False)}
    assert data.labels.tolist() == [-1, -1, -1]
