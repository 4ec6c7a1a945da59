"""What an exported file expects, as JSON in its metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..data import parse_steps
from ..features.sampling import CENTRAL_SHARE
from ..models import ActionClassifier, SkeletonModel
from ..skeleton import SkeletonLayout
from ..version import __version__

KEY = "fastamr"
FORMAT = "fastamr-export-1"
_CLIPS = (
    "float32 {shape}: per body the central {share:g} of its frames, resized linearly (align_corners=False) to T "
    "after the steps; metres"
)
_TEXTS = {
    "present": "bool (B, M): whether the slot holds a body",
    "logits": "float32 (B, classes); softmax gives probabilities",
    "features": "float32 (S, D): mean over the valid tokens",
    "tokens": "float32 (S, N, D), token = time_patch * V + joint",
}


def check_ending(path: str | Path, ending: str) -> None:
    """Raise ``ValueError`` for a file whose name does not end as readers expect."""
    found = Path(path).suffix
    if found != ending:
        raise ValueError(f"{path} ends in {found or 'nothing'!r}, expected {ending}: rename the file")


def describe(
    model: ActionClassifier | SkeletonModel,
    inputs: Iterable[str],
    outputs: Iterable[str],
    steps: Iterable[str | Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return what the user of an exported file has to know.

    Args:
        model: what was exported.
        inputs: names of the graph's inputs.
        outputs: names of its outputs.
        steps: pre-processing of the clips, for an encoder; a classifier knows its own.
    """
    classifier = model if isinstance(model, ActionClassifier) else None
    encoder = classifier.encoder if classifier is not None else model
    assert isinstance(encoder, SkeletonModel)
    shape = "(S, T, V, C)" if classifier is None else "(B, M, T, V, C)"
    texts = _TEXTS | {
        "clips": _CLIPS.format(shape=shape, share=CENTRAL_SHARE),
        "valid": f"bool {shape.replace(', C)', ')')}: whether the joint was seen",
    }
    known = steps if classifier is None else classifier.steps
    return {
        "format": FORMAT,
        "fastamr": __version__,
        "kind": "encoder" if classifier is None else "classifier",
        "model": encoder.name,
        "inputs": {name: texts[name] for name in inputs},
        "outputs": {name: texts[name] for name in outputs},
        "layout": encoder.layout.to_dict(),
        "frames": encoder.frames,
        "channels": encoder.config.channels,
        "patch_frames": encoder.config.patch_frames,
        "steps": [step.to_dict() for step in parse_steps(known)],
        "crop": CENTRAL_SHARE,
        "classes": 0 if classifier is None else classifier.classes,
        "class_names": [] if classifier is None else list(classifier.class_names),
        "training_data": {} if classifier is None else dict(classifier.training_data),
        "body_size": model.body_size,
    }


def read_text(text: str | None, source: object) -> dict[str, Any]:
    """Return the description in a file's metadata.

    Raises:
        ValueError: there is none, or it is of another version.
    """
    if text is None:
        raise ValueError(f"{source} holds no description of fastamr: write it with fastamr export")
    try:
        description = json.loads(text)
        layout = SkeletonLayout.from_dict(description["layout"])
        frames = int(description["frames"])
        sound = description["format"] == FORMAT and layout.num_joints > 0 and frames > 0
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{source} has a damaged description ({error}): export the model again") from None
    if not sound:
        raise ValueError(
            f"{source} is of format {description['format']!r}, expected {FORMAT}: export it again"
        )
    return description
