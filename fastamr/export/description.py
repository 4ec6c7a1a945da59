"""What an exported file expects, as JSON in its metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..data import parse_steps
from ..documents import parse_json_text
from ..errors import STRAY, shortened
from ..features.sampling import CENTRAL_SHARE
from ..models import ActionClassifier, SkeletonModel
from ..models.parts.config import LARGEST
from ..skeleton import SkeletonLayout
from ..version import __version__

KEY = "fastamr"
FORMAT = "fastamr-export-1"
_NUMBERS = {
    "frames": (1, LARGEST["frames"]),
    "channels": (2, 3),
    "patch_frames": (1, LARGEST["patch_frames"]),
    "classes": (0, LARGEST["classes"]),
}
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
        "layout": clip_layout(model).to_dict(),
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


def clip_layout(model: ActionClassifier | SkeletonModel) -> SkeletonLayout:
    """Return the layout of the clips that an exported model takes.

    A classifier with an encoder of ``body`` that was trained on clips of one layout takes clips of that.
    """
    if isinstance(model, SkeletonModel):
        return model.layout
    return model.encoder.layout if model.source is None else model.source


def read_text(text: str | None, source: object) -> dict[str, Any]:
    """Return the description in a file's metadata.

    Raises:
        ValueError: there is none, or it is of another version.
    """
    if text is None:
        raise ValueError(f"{source} holds no description of fastamr: write it with fastamr export")
    try:
        description = parse_json_text(text, "it")
        if description["format"] != FORMAT:
            raise ValueError(f"it is of format {shortened(description['format'])}, expected {FORMAT}")
        _check(description)
    except (ValueError, *STRAY) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{source} has a damaged description ({reason}): export the model again") from None
    return description


def _check(description: dict[str, Any]) -> None:
    """Raise ``ValueError``, or what Python does, where a field is missing or of another kind."""
    SkeletonLayout.from_dict(description["layout"])
    parse_steps(description["steps"])
    for name, (least, most) in _NUMBERS.items():
        value = description[name]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{name} is {shortened(value)}, expected a whole number from {least} to {most}")
    names, classes = description["class_names"], description["classes"]
    if not isinstance(names, list) or len(names) not in (0, classes):
        raise ValueError(f"class_names is {shortened(names)}, expected {classes} names, or none")
    if description["kind"] not in ("encoder", "classifier"):
        raise ValueError(f"kind is {shortened(description['kind'])}, expected encoder or classifier")
    if not isinstance(description["crop"], (int, float)):
        raise ValueError(f"crop is {shortened(description['crop'])}, expected a share")
    size = description.get("body_size")
    if size is not None and not (isinstance(size, (int, float)) and 0 < size < float("inf")):
        raise ValueError(f"body_size is {shortened(size)}, expected a positive number")
    if not isinstance(description.get("training_data", {}), dict):
        raise ValueError(f"training_data is {shortened(description['training_data'])}, expected a mapping")
