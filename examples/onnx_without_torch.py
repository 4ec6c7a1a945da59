"""Name the action in an array of joints with an exported classifier: NumPy and onnxruntime, nothing else.

    fastamr export runs/classifier --onnx classifier.onnx
    python examples/onnx_without_torch.py classifier.onnx clip.npy

The array is ``(T, V, C)``, one body, or ``(T, M, V, C)``, in metres, zeros where a body is absent and NaN where a joint
was not seen (zeros there would tell the model that it was at the origin). What the graph expects is written in the
file itself; of the pre-processing steps this example knows ``center`` with its defaults.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import onnxruntime

CENTER = {"name": "center", "joint": "root", "frame": "first", "per": "body"}


def center(body: np.ndarray, seen: np.ndarray, root: int) -> np.ndarray:
    """Move the root of the first frame that shows it to the origin; what was not seen stays 0."""
    present = body.any(axis=(1, 2))
    shows = present & seen[:, root]
    origin = body[shows.argmax(), root] if shows.any() else 0
    return np.where((present[:, None] & seen)[..., None], body - origin, 0)


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
    seen = ~np.isnan(array).any(axis=-1)
    array = np.where(seen[..., None], array, 0)
    shown = [body for body in range(array.shape[1]) if array[:, body].any()]
    if not shown:
        raise SystemExit(f"{clip} shows no body")
    bodies, masks = [array[:, body] for body in shown], [seen[:, body] for body in shown]
    if about["steps"]:
        bodies = [center(body, mask, root) for body, mask in zip(bodies, masks, strict=True)]
    sizes = about["frames"], about["crop"]
    clips = np.stack([sample(body, *sizes) for body in bodies])[None].astype(np.float32)
    # A resized joint counts as seen when both frames that it comes from show it.
    valid = np.stack([sample(mask[..., None], *sizes)[..., 0] for mask in masks])[None] > 1 - 1e-6
    present = np.ones(clips.shape[:2], dtype=bool)
    (logits,) = session.run(["logits"], {"clips": clips, "present": present, "valid": valid})
    odds = np.exp(logits[0] - logits[0].max())
    for label in odds.argsort()[::-1]:
        name = about["class_names"][label] if about["class_names"] else f"class {label}"
        print(f"{name}: {odds[label] / odds.sum():.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Name the action in an array of joints.")
    parser.add_argument("model", help="a classifier, as fastamr export --onnx writes it")
    parser.add_argument("clip", help="a .npy file (T, V, C) or (T, M, V, C): metres, NaN = joint not seen")
    given = parser.parse_args()
    main(given.model, given.clip)
