"""One function that loads whatever was saved: an encoder, or a classifier."""

from __future__ import annotations

from pathlib import Path

from ..weights import find_model, read_description
from .base import CLASSIFIER, SkeletonModel
from .classifier import ActionClassifier
from .registry import load_pretrained


def from_pretrained(source: str | Path, *, revision: str | None = None) -> SkeletonModel | ActionClassifier:
    """Load a model by its name; nothing is unpickled, and no code of it runs.

    Args:
        source: a folder; a model that comes with the package (``fastamr models``); or ``owner/name`` or
            ``owner/name@REVISION``, a repository of the Hugging Face Hub. See :func:`fastamr.weights.find_model`.
        revision: branch, tag or commit of a repository.

    Returns:
        An encoder with its pre-training parts, or an :class:`ActionClassifier`, on the CPU. The steps that its clips go
        through first are in ``preprocess`` of an encoder and in ``steps`` of a classifier.

    Raises:
        FileNotFoundError: there is no such model, with the nearest name; the Hub's without huggingface_hub.
        ValueError: the files are damaged, do not fit each other, or are not those that were shipped.
        ConnectionError: the Hub cannot be reached.
    """
    folder = find_model(source, revision=revision)
    if read_description(folder)["model"] == CLASSIFIER:
        return ActionClassifier.from_pretrained(folder)
    return load_pretrained(folder)
