"""Name the action in an array of joints with an exported classifier: NumPy and onnxruntime, nothing else.

    fastamr export runs/classifier --onnx classifier.onnx
    python examples/onnx_without_torch.py classifier.onnx clip.npy

The array is ``(T, V, C)``, one body, or ``(T, M, V, C)``, in metres, zeros where a body is absent. What the graph
expects is written in the file itself; of the pre-processing steps this example knows ``center`` with its defaults.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime

CENTER = {"name": "center", "joint": "root", "frame": "first", "per": "body"}


def center(body: np.ndarray, root: int) -> np.ndarray:
    """Move the root of the first frame with the body to the origin; frames without the body stay 0."""
    present = body.any(axis=(1, 2))
    first = int(present.argmax())
    return np.where(present[:, None, None], body - body[first, root], 0)


def sample(body: np.ndarray, frames: int, share: float) -> np.ndarray:
    """Resize the central share of the frames linearly, as a picture's rows are (align_corners=False)."""
    one = 1 << 24
    skip = ((one - round(share * one)) * len(body)) >> 25
    count = len(body) - 2 * skip
    place = ((2 * np.arange(frames) + 1) * count - frames).clip(0)
    left = np.minimum(place // (2 * frames), count - 1)
    right = np.minimum(left + 1, count - 1)
    weight = ((place - left * 2 * frames) / (2 * frames))[:, None, None]
    return body[skip + left] * (1 - weight) + body[skip + right] * weight


def main(model: str, clip: str) -> None:
    """Print the classes, the most probable one first."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["fastamr"])
    if any(step != CENTER for step in about["steps"]):
        raise SystemExit(
            f"this example only knows the step {CENTER}, the model was trained with {about['steps']}"
        )
    root = about["layout"]["parents"].index(-1)
    array = np.load(clip, allow_pickle=False)
    array = array[:, None] if array.ndim == 3 else array
    bodies = [array[:, body] for body in range(array.shape[1]) if array[:, body].any()]
    if about["steps"]:
        bodies = [center(body, root) for body in bodies]
    clips = np.stack([sample(body, about["frames"], about["crop"]) for body in bodies])[None].astype(
        np.float32
    )
    present, valid = np.ones(clips.shape[:2], dtype=bool), np.ones(clips.shape[:4], dtype=bool)
    (logits,) = session.run(["logits"], {"clips": clips, "present": present, "valid": valid})
    odds = np.exp(logits[0] - logits[0].max())
    for label in odds.argsort()[::-1]:
        name = about["class_names"][label] if about["class_names"] else f"class {label}"
        print(f"{name}: {odds[label] / odds.sum():.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
