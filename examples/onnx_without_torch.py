"""Name the action in an array of joints with an exported classifier: NumPy and onnxruntime, nothing else.

    fastamr export runs/classifier --onnx classifier.onnx
    python examples/onnx_without_torch.py classifier.onnx clip.npy

The array is ``(T, V, C)``, one body, or ``(T, M, V, C)``, in metres, zeros where a body is absent and NaN where a joint
was not seen (zeros there would tell the model that it was at the origin). What the graph expects is written in the
file itself; of the pre-processing steps this example knows ``center`` with its defaults, ``flip`` and ``scale`` (also
with ``unit=torso``): what the documentation recommends for 2-D points of images.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import onnxruntime

KNOWN = {
    "center": {"joint": "root", "frame": "first", "per": "body"},
    "flip": {},
    "scale": {"per": "body"},
}


def prepare(body: np.ndarray, seen: np.ndarray, steps: list[dict], layout: dict) -> np.ndarray:
    """Apply pre-processing steps to a body ``(T, V, C)``; what was not seen ``(T, V)`` is 0 and stays so."""
    for step in steps:
        present = body.any(axis=(1, 2))
        if step["name"] == "center":
            body = center(body, seen & present[:, None], layout["parents"].index(-1))
        elif step["name"] == "flip":
            body = body * [-1 if axis in step["axes"] else 1 for axis in "xyz"[: body.shape[2]]]
        else:
            size = torso(body, seen & present[:, None], layout) if step["unit"] == "torso" else 1
            body = body * step["factor"] / size
    return body


def center(body: np.ndarray, seen: np.ndarray, root: int) -> np.ndarray:
    """Move the root of the first frame that shows it to the origin."""
    origin = body[seen[:, root].argmax(), root] if seen[:, root].any() else 0
    return np.where(seen[..., None], body - origin, 0)


def torso(body: np.ndarray, seen: np.ndarray, layout: dict) -> float:
    """Return the median length of the trunk, or 1 where it is never seen.

    It is the spine of the layout, or reaches from between the hips to between the shoulders.
    """
    if layout["spine"]:
        ends = [[joint] * 2 for joint in layout["spine"]]
    else:
        names = layout["joints"]
        ends = [layout["hips"], [names.index("left_shoulder"), names.index("right_shoulder")]]
    low, high = (body[:, pair].mean(axis=1) for pair in ends)
    length = np.linalg.norm(high - low, axis=1)[seen[:, [*ends[0], *ends[1]]].all(axis=1)]
    length = np.sort(length[length > 0])
    return length[(len(length) - 1) // 2] if len(length) else 1.0


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
    for step in about["steps"]:
        if any(step[option] != value for option, value in KNOWN.get(step["name"], {"name": ""}).items()):
            raise SystemExit(
                f"this example knows the steps {', '.join(KNOWN)} with their defaults, not {step}"
            )
    array = np.load(clip, allow_pickle=False)
    array = array[:, None] if array.ndim == 3 else array
    seen = ~np.isnan(array).any(axis=-1)
    array = np.where(seen[..., None], array, 0)
    shown = [body for body in range(array.shape[1]) if array[:, body].any()]
    if not shown:
        raise SystemExit(f"{clip} shows no body")
    bodies, masks = [array[:, body] for body in shown], [seen[:, body] for body in shown]
    steps = about["steps"], about["layout"]
    bodies = [prepare(body, mask, *steps) for body, mask in zip(bodies, masks, strict=True)]
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
