"""Name what a person does in front of a camera or in a video: MediaPipe finds the pose, a classifier the action.

pip install "mediapipe==0.10.21", then, with the number of a camera or the name of a video:
python examples/live_camera.py runs/classifier 0

The classifier is one of layout mediapipe33. examples/camera_tool.py records landmarks to train it on; it also draws,
and converts to other layouts. MediaPipe sees one person, and not how a person moves through the room.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from fastamr.export import load_predictor, predict_stream


def bodies(pose: Any, image: Any, channels: int) -> list[list[list[float] | None]]:
    """Return MediaPipe's landmarks of who is in an image, in metres or pixels, y down; None = joint not seen."""
    found = pose.process(image[..., ::-1].copy())  # OpenCV has blue first
    if found.pose_landmarks is None:
        return []
    flat, (height, width) = found.pose_landmarks.landmark, image.shape[:2]
    places = [[one.x * width, one.y * height] for one in flat]
    if channels == 3:
        places = [[one.x, one.y, one.z] for one in found.pose_world_landmarks.landmark]
    return [[place if one.visibility >= 0.5 else None for place, one in zip(places, flat, strict=True)]]


def images(source: str) -> Iterator[tuple[Any, float]]:
    """Return the frames of a video or a camera, and when each was taken, in seconds."""
    import cv2

    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not capture.isOpened():
        raise OSError(f"{source!r} cannot be opened: name a video that OpenCV reads, or another camera")
    rate, start, count = capture.get(cv2.CAP_PROP_FPS) or 30.0, time.monotonic(), 0
    while (found := capture.read())[0]:
        yield found[1], time.monotonic() - start if source.isdigit() else count / rate
        count += 1


def main(model: str, source: str) -> None:
    """Print an answer for each window of the stream, as soon as its last frame has come."""
    import mediapipe

    predictor = load_predictor(model)
    pose = mediapipe.solutions.pose.Pose(model_complexity=1)  # the model that the package holds
    frames = ((bodies(pose, image, predictor.channels), moment) for image, moment in images(source))
    lines = (json.dumps({"time": moment, "bodies": found}) for found, moment in frames)
    for answer in predict_stream(predictor, lines, top=3):
        print(answer, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
