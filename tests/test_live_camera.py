"""The examples that name actions in a video: their parts everywhere, the whole where MediaPipe is installed."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from fastamr.data import read, synthetic_actions
from fastamr.export import Predictor
from fastamr.models import ActionClassifier, build_model
from fastamr.skeleton import SkeletonLayout, get_layout

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("wave", "squat", "walk")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def short() -> ModuleType:
    """The example of one page."""
    return load("live_camera")


@pytest.fixture(scope="module")
def live(short: ModuleType) -> ModuleType:
    """The whole tool, which imports the page."""
    return load("camera_tool")


def classifier(layout: str | SkeletonLayout, channels: int = 3, **more) -> ActionClassifier:
    """An untrained one: what it says does not matter here."""
    torch.manual_seed(0)
    encoder = build_model(
        "amr", layout=layout, channels=channels, frames=16, width=16, depth=1, heads=2, decoder_width=8,
        decoder_depth=1, decoder_heads=2, target_patches=1,
    )  # fmt: skip
    facts = {"fps": 30.0, "median_frames": 30, "median_seconds": 1.0}
    return ActionClassifier(encoder, 3, hidden=0, class_names=CLASSES, training_data=facts, **more)


@pytest.fixture
def person(live):
    """Stands upright in MediaPipe's coordinates, the left ankle hidden."""
    joints = live.LANDMARKS.joints
    world = np.zeros((33, 3), dtype=np.float32)
    for place, joint in enumerate(joints):
        side = 0.15 if joint.startswith("left") else -0.15 if joint.startswith("right") else 0.0
        height = {"shoulder": -0.5, "hip": 0.0, "knee": 0.4, "ankle": 0.8}.get(joint.split("_")[-1], -0.6)
        world[place] = (side, height, 0.1)
    visibility = np.ones(33, dtype=np.float32)
    visibility[joints.index("left_ankle")] = 0.2
    return live.Person(world, 100 * world[:, :2] + 200, visibility)


class TestBody:
    def test_landmarks_as_they_are(self, live, person) -> None:
        body = live.body_of(person, Predictor(classifier("mediapipe33")))
        assert body[live.LANDMARKS.joints.index("left_ankle")] is None
        assert body[live.LANDMARKS.joints.index("left_knee")] == pytest.approx([0.15, 0.4, 0.1])

    def test_pixels_for_2d_data(self, live, person) -> None:
        body = live.body_of(person, Predictor(classifier("mediapipe33", 2)))
        assert body[live.LANDMARKS.joints.index("left_knee")] == pytest.approx([215, 240])

    def test_another_layout_by_the_joints_names_and_upright(self, live, person) -> None:
        layout = get_layout("ntu25")
        body = live.body_of(person, Predictor(classifier(layout)))
        assert body[layout.joints.index("left_knee")] == pytest.approx([-0.15, -0.4, 0.1])
        assert body[layout.joints.index("base_of_spine")] == pytest.approx([0, 0, 0.1], abs=1e-6)
        assert body[layout.joints.index("left_ankle")] is None

    def test_a_classifier_of_converted_landmarks_gets_them_as_they_are(self, live, person) -> None:
        layout = get_layout("ntu25")
        model = classifier(layout, steps=[{"name": "convert", "layout": "ntu25"}])
        body = live.body_of(person, Predictor(model))
        assert body[layout.joints.index("left_knee")] == pytest.approx([0.15, 0.4, 0.1])


def test_the_table_is_read_by_import(live, person, tmp_path) -> None:
    path = tmp_path / "landmarks.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(live.columns(3))
        for frame in range(5):
            table.writerows(live.rows_of(frame, frame / 30, person, 3))
    data = read(path)
    assert data.layout == live.LANDMARKS
    assert (data.num_frames, data.num_bodies) == (5, 1)
    np.testing.assert_allclose(data.coords[2].numpy()[:-8], person.world[:-8], atol=1e-4)


def mannequin(body: np.ndarray) -> np.ndarray:
    """Draw a body ``(25, 3)`` of layout ntu25 as a picture ``(640, 480, 3)`` that a detector takes for a person."""
    import cv2

    image = np.full((640, 480, 3), (200, 205, 200), dtype=np.uint8)
    places = body[:, :2] / body[:, 2:] * [810, -810]
    places = (places - places[0] + [240, 320]).astype(int)
    at = {
        joint: tuple(map(int, place)) for joint, place in zip(get_layout("ntu25").joints, places, strict=True)
    }
    skin, shirt, trousers, shoes = (120, 160, 215), (160, 60, 40), (70, 50, 40), (30, 30, 30)

    def limb(first: str, second: str, width: int, color: tuple[int, int, int]) -> None:
        cv2.line(image, at[first], at[second], color, width, cv2.LINE_AA)

    for side in ("left", "right"):
        limb(f"{side}_hip", f"{side}_knee", 34, trousers)
        limb(f"{side}_knee", f"{side}_ankle", 26, trousers)
        limb(f"{side}_ankle", f"{side}_foot", 20, shoes)
    corners = [at[joint] for joint in ("left_shoulder", "right_shoulder", "right_hip", "left_hip")]
    cv2.fillPoly(image, [np.array(corners)], shirt)
    cv2.polylines(image, [np.array(corners)], True, shirt, 40)
    for side in ("left", "right"):
        limb(f"{side}_shoulder", f"{side}_elbow", 26, shirt)
        limb(f"{side}_elbow", f"{side}_wrist", 20, skin)
        cv2.circle(image, at[f"{side}_hand"], 12, skin, -1)
    limb("neck", "head", 18, skin)
    x, y = at["head"]
    cv2.ellipse(image, (x, y), (24, 32), 0, 0, 360, skin, -1)
    cv2.ellipse(image, (x, y - 12), (25, 24), 0, 180, 360, (30, 40, 50), -1)
    for eye in (x - 9, x + 9):
        cv2.circle(image, (eye, y - 4), 3, (20, 20, 20), -1)
    cv2.ellipse(image, (x, y + 15), (8, 3), 0, 0, 180, (60, 60, 150), 2)
    return image


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Two seconds of somebody who squats."""
    for name in ("cv2", "mediapipe"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install mediapipe==0.10.21")
    import cv2

    data = synthetic_actions(2, seed=3, actions=["squat"], drop_joints=0.0, noise=0.0, camera_angle=0.1)
    path = tmp_path_factory.mktemp("video") / "squat.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, (480, 640))
    for body in data.coords[:60].numpy():
        writer.write(mannequin(body))
    writer.release()
    return path


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["mediapipe33", "ntu25"])
def test_a_video_from_pixels_to_actions(short, live, video, layout, tmp_path, capsys) -> None:
    import cv2

    classifier(layout).save_pretrained(tmp_path / "classifier")
    out, table = tmp_path / "out.mp4", tmp_path / "landmarks.csv"
    words = [
        "--video",
        str(video),
        "--model",
        str(tmp_path / "classifier"),
        "--out",
        str(out),
        "--csv",
        str(table),
    ]
    assert live.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "60 of 60 frames show a person"
    assert lines[0].startswith("stream  0.00-1.00 s  ")
    assert any(name in lines[0] for name in CLASSES)
    data = read(table, fps=30)
    assert data.layout == live.LANDMARKS
    assert data.num_frames == 60
    nose, ankle = (data.coords[:, live.LANDMARKS.joints.index(joint), 1] for joint in ("nose", "left_ankle"))
    assert bool((nose < -0.3).all())
    assert bool((ankle > 0.1).all())
    capture = cv2.VideoCapture(str(out))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 60
    plain = cv2.VideoCapture(str(video))
    last = [[one.read()[1] for _ in range(60)][-1].astype(int) for one in (capture, plain)]
    assert (np.abs(last[0] - last[1]).max(-1) > 100).sum() > 500
    if layout == "mediapipe33":
        short.main(str(tmp_path / "classifier"), str(video))
        assert capsys.readouterr().out.splitlines() == lines[:-1], "the page answers as the tool does"


class StandIns:
    """OpenCV and MediaPipe for three frames, of which the second shows nobody."""

    CAP_PROP_FPS = 5

    def __init__(self, person) -> None:
        self.person, self.taken = person, 0

    def VideoCapture(self, source: str | int) -> StandIns:
        self.source = source
        return self

    def isOpened(self) -> bool:
        return self.source != "none.mp4"

    def get(self, what: int) -> float:
        return 10.0 if what == self.CAP_PROP_FPS else 0.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.taken += 1
        return (True, np.full((400, 200, 3), self.taken, np.uint8)) if self.taken <= 3 else (False, None)

    def Pose(self, model_complexity: int) -> StandIns:
        assert model_complexity == 1
        return self

    def process(self, image: np.ndarray) -> SimpleNamespace:
        if image[0, 0, 0] == 2:
            return SimpleNamespace(pose_landmarks=None)
        world, pixels, seen = (part.tolist() for part in self.person)
        flat = [
            SimpleNamespace(x=x / 200, y=y / 400, visibility=v)
            for (x, y), v in zip(pixels, seen, strict=True)
        ]
        deep = [SimpleNamespace(x=x, y=y, z=z) for x, y, z in world]
        return SimpleNamespace(
            pose_landmarks=SimpleNamespace(landmark=flat), pose_world_landmarks=SimpleNamespace(landmark=deep)
        )


@pytest.fixture
def stand_ins(monkeypatch, person) -> StandIns:
    made = StandIns(person)
    package = SimpleNamespace(solutions=SimpleNamespace(pose=made))
    monkeypatch.setitem(sys.modules, "cv2", made)
    monkeypatch.setitem(sys.modules, "mediapipe", package)
    return made


@pytest.mark.parametrize("channels", [2, 3])
def test_the_page_sends_what_the_tool_sends(short, live, person, stand_ins, channels: int) -> None:
    found = short.bodies(stand_ins, np.ones((400, 200, 3), np.uint8), channels)
    expected = live.body_of(person, Predictor(classifier("mediapipe33", channels)))
    assert [place is None for place in found[0]] == [place is None for place in expected]
    seen = [place for place in expected if place is not None]
    assert np.allclose([place for place in found[0] if place is not None], seen, atol=1e-4)
    assert short.bodies(stand_ins, np.full((400, 200, 3), 2, np.uint8), channels) == []


def test_the_page_answers(short, stand_ins, tmp_path, capsys) -> None:
    classifier("mediapipe33").save_pretrained(tmp_path / "classifier")
    short.main(str(tmp_path / "classifier"), "in.mp4")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("stream  0.00-0.30 s  ")
    assert any(name in line for name in CLASSES)
    assert stand_ins.source == "in.mp4"
    assert [moment for _, moment in short.images("in.mp4")] == []  # it is at its end
    with pytest.raises(OSError, match=r"none\.mp4' cannot be opened: name a video"):
        next(short.images("none.mp4"))
    stand_ins.taken = 0
    assert len(list(short.images("7"))) == 3
    assert stand_ins.source == 7


def test_errors_are_one_line(live, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    monkeypatch.setitem(sys.modules, "cv2", ModuleType("cv2"))
    assert live.main(["--video", str(tmp_path / "none.mp4")]) == 1
    assert 'pip install "mediapipe==0.10.21"' in capsys.readouterr().err


@pytest.mark.slow
def test_a_video_that_is_none(live, video, tmp_path, capsys) -> None:
    assert live.main(["--video", str(tmp_path / "none.mp4")]) == 1
    assert "none.mp4' cannot be opened" in capsys.readouterr().err


def test_lines_are_those_of_the_stream(live, person, monkeypatch) -> None:
    """Frames without a person are lines too, so that times stay right."""
    found = iter([person, None])
    monkeypatch.setattr(live, "find_person", lambda pose, image: next(found))
    monkeypatch.setattr(live, "draw", lambda image, person, text: None)
    rows: list = []
    watcher = live.Watcher(None, Predictor(classifier("mediapipe33")), rows.extend, lambda image: True, 3)
    lines = [
        json.loads(line)
        for line in watcher.lines(iter([(np.zeros((4, 4, 3)), 0.0), (np.zeros((4, 4, 3)), 0.1)]))
    ]
    assert [(line["time"], len(line["bodies"])) for line in lines] == [(0.0, 1), (0.1, 0)]
    assert (len(rows), watcher.people, watcher.frames) == (33, 1, 2)
