"""The whole of examples/live_camera.py: records landmarks, draws skeleton and action, serves other layouts too.

    pip install "mediapipe==0.10.21"       (brings OpenCV and its own model; Python 3.9 to 3.12)
    python examples/camera_tool.py --camera 0 --csv wave.csv                              record landmarks to train on
    python examples/camera_tool.py --video in.mp4 --model runs/classifier --out out.mp4   draw skeleton and action
    python examples/camera_tool.py --camera 0 --model runs/classifier --show              the same in a window; q ends

``fastamr import wave.csv wave.safetensors`` reads the landmarks. A classifier of layout mediapipe33 gets just these.
Any other layout is made from them by joint names, and turned upright as most data is (y up, z away from the camera),
unless the classifier's own pre-processing converts layouts. A classifier of 2-D data gets pixels. MediaPipe's 3-D
landmarks are metres about the hips: how a person moves through the room is not in them. It sees one person.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
from live_camera import images

from fastamr.data import PackedSkeletons
from fastamr.data.preprocessing.convert_layout import convert
from fastamr.export import Answer, Predictor, load_predictor, predict_stream
from fastamr.skeleton import get_layout

LANDMARKS = get_layout("mediapipe33")
SEEN = 0.5
INSTALL = 'pip install "mediapipe==0.10.21"'


class Person(NamedTuple):
    """What MediaPipe finds in one frame.

    Attributes:
        world: ``(33, 3)`` metres, the hips' middle at the origin, y down, z away from the camera.
        pixels: ``(33, 2)``.
        visibility: ``(33,)``, 0 to 1.
    """

    world: np.ndarray
    pixels: np.ndarray
    visibility: np.ndarray


def coordinates(person: Person, channels: int) -> np.ndarray:
    """Return the landmarks ``(33, channels)`` as they are recorded and as a classifier of mediapipe33 gets them."""
    return person.world if channels == 3 else person.pixels


def body_of(person: Person, predictor: Predictor) -> list[list[float] | None]:
    """Return a person as a body of a stream: a list of numbers a joint of the classifier's layout, None = not seen."""
    coords = coordinates(person, predictor.channels)
    seen = person.visibility >= SEEN
    if predictor.layout.joints != LANDMARKS.joints:
        if predictor.channels == 3 and not any(step.name == "convert" for step in predictor.steps):
            coords = coords * np.array([-1, -1, 1])
        one = PackedSkeletons.from_clips([coords[None, None]], layout=LANDMARKS, valid=[seen[None, None]])
        made = convert(one, predictor.layout)
        coords, seen = made.coords[0].numpy(), np.ones(len(made.coords[0]), dtype=bool)
        if made.valid is not None:
            seen = made.valid[0].numpy()
    return [place.tolist() if known else None for place, known in zip(coords, seen, strict=True)]


def rows_of(frame: int, moment: float, person: Person, channels: int) -> Iterator[list[Any]]:
    """Return a person as rows of the table, a row a landmark, in the order of :func:`columns`."""
    places = coordinates(person, channels)
    for joint, place, seen in zip(LANDMARKS.joints, places, person.visibility, strict=True):
        yield [frame, f"{moment:.4f}", 0, joint, *(f"{value:.5f}" for value in place), f"{seen:.3f}"]


def columns(channels: int) -> list[str]:
    """Return the names of the table's columns."""
    return ["frame", "time", "body", "joint", *"xyz"[:channels], "confidence"]


def draw(image: np.ndarray, person: Person | None, text: str) -> None:
    """Draw a skeleton and a line of text into an image ``(H, W, 3)`` uint8."""
    import cv2

    if person is not None:
        points = [tuple(int(value) for value in place) for place in person.pixels]
        for joint, parent in enumerate(LANDMARKS.parents):
            if parent >= 0 and min(person.visibility[[joint, parent]]) >= SEEN:
                cv2.line(image, points[parent], points[joint], (60, 220, 60), 2, cv2.LINE_AA)
        for point, seen in zip(points, person.visibility, strict=True):
            if seen >= SEEN:
                cv2.circle(image, point, 3, (40, 40, 230), -1, cv2.LINE_AA)
    for color, width in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(image, text, (12, 32), cv2.FONT_HERSHEY_SIMPLEX, 0.8, color, width, cv2.LINE_AA)


def find_person(pose: Any, image: np.ndarray) -> Person | None:
    """Run MediaPipe on an image in OpenCV's order of colours."""
    found = pose.process(np.ascontiguousarray(image[..., ::-1]))
    if found.pose_landmarks is None:
        return None
    height, width = image.shape[:2]
    flat, deep = found.pose_landmarks.landmark, found.pose_world_landmarks.landmark
    return Person(
        np.array([[point.x, point.y, point.z] for point in deep], dtype=np.float32),
        np.array([[point.x * width, point.y * height] for point in flat], dtype=np.float32),
        np.array([point.visibility for point in flat], dtype=np.float32),
    )


class Watcher:
    """Looks at each image: finds the person, records, draws, and hands the body on as a line of a stream.

    Args:
        pose: MediaPipe's ``Pose``.
        predictor: the classifier, or None.
        record: takes the rows of the table of each frame.
        show: takes each image that was drawn on; False ends the stream.
        channels: of the table.
    """

    def __init__(
        self,
        pose: Any,
        predictor: Predictor | None,
        record: Callable[[Iterator[list[Any]]], object],
        show: Callable[[np.ndarray], bool],
        channels: int,
    ) -> None:
        self.pose, self.predictor, self.record, self.show = pose, predictor, record, show
        self.channels = channels
        self.text = ""
        self.frames = self.people = 0

    def lines(self, frames: Iterator[tuple[np.ndarray, float]]) -> Iterator[str]:
        """Return a line of JSON a frame, as ``fastamr predict -`` reads them."""
        for image, moment in frames:
            person = find_person(self.pose, image)
            if person is not None:
                self.record(rows_of(self.frames, moment, person, self.channels))
            self.frames, self.people = self.frames + 1, self.people + (person is not None)
            draw(image, person, self.text)
            if not self.show(image):
                return
            known = person is not None and self.predictor is not None
            yield json.dumps({"time": moment, "bodies": [body_of(person, self.predictor)] if known else []})

    def tell(self, answer: Answer) -> None:
        """Print an answer, and draw it from now on."""
        self.text = (
            f"{answer.top[0].name} {100 * answer.top[0].probability:.0f} %" if answer.top else "nobody"
        )
        print(answer, flush=True)


def main(words: list[str] | None = None) -> int:
    """Run the example; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--video", metavar="FILE", help="a video")
    source.add_argument("--camera", type=int, metavar="N", help="a camera by its number, as 0")
    parser.add_argument("--model", metavar="MODEL", help="a classifier's folder, or an exported file *.onnx")
    parser.add_argument("--csv", metavar="FILE", help="write the landmarks, for fastamr import")
    parser.add_argument("--out", metavar="FILE", help="write the video with skeleton and action (*.mp4)")
    parser.add_argument("--show", action="store_true", help="show it in a window; q ends")
    parser.add_argument("--window", type=int, metavar="FRAMES", help="by default the training clips' time")
    parser.add_argument("--stride", type=int, metavar="FRAMES", help="by default a quarter of a window")
    given = parser.parse_args(words)
    try:
        return run(given)
    except ImportError as error:
        print(f"error: {error}: {INSTALL}", file=sys.stderr)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
    return 1


def run(given: argparse.Namespace) -> int:
    """Watch the video or the camera to its end."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    import cv2
    import mediapipe

    predictor = load_predictor(given.model) if given.model else None
    channels = 3 if predictor is None else predictor.channels
    with ExitStack() as stack:
        record: Callable[..., object] = list
        if given.csv:
            table = csv.writer(stack.enter_context(open(given.csv, "w", newline="", encoding="utf-8")))
            table.writerow(columns(channels))
            record = table.writerows
        frames = images(str(given.camera) if given.video is None else given.video)
        writer: list[Any] = []

        def show(image: np.ndarray) -> bool:
            if given.out:
                if not writer:
                    height, width = image.shape[:2]
                    code = cv2.VideoWriter_fourcc(*"mp4v")
                    writer.append(cv2.VideoWriter(given.out, code, rate_of(given.video), (width, height)))
                    stack.callback(writer[0].release)
                writer[0].write(image)
            if given.show:
                cv2.imshow("fastamr", image)
                return cv2.waitKey(1) != ord("q")
            return True

        # Complexity 1 is the model that the package holds; the others would be downloaded.
        pose = stack.enter_context(mediapipe.solutions.pose.Pose(model_complexity=1))
        watcher = Watcher(pose, predictor, record, show, channels)
        lines = watcher.lines(frames)
        if predictor is None:
            for _ in lines:
                pass
        else:
            options = {"window": given.window, "stride": given.stride}
            for answer in predict_stream(predictor, lines, top=3, **options):
                watcher.tell(answer)
    print(f"{watcher.people} of {watcher.frames} frames show a person")
    return 0


def rate_of(video: str | None) -> float:
    """Return the frames a second of a video, 30 of a camera."""
    import cv2

    if video is None:
        return 30.0
    capture = cv2.VideoCapture(video)
    try:
        return capture.get(cv2.CAP_PROP_FPS) or 30.0
    finally:
        capture.release()


if __name__ == "__main__":
    sys.exit(main())
