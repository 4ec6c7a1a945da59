"""The files of a model's folder, and what its ``config.json`` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..documents import load_json_text
from ..errors import shortened

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "MODEL_CARD.md"
FILES = (CONFIG_FILE, WEIGHTS_FILE)
"""What a model is loaded from; nothing else is read."""

BODY_SIZE = "body_size"
PREPROCESS = "preprocess"


def describe(folder: Path) -> dict[str, Any]:
    """Read ``config.json`` of a model's folder.

    Returns:
        ``{"model": name, "config": {...}}``, perhaps with ``body_size`` and ``preprocess``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or describes no model of this library.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no {CONFIG_FILE}: expected a folder written by save_pretrained"
        )
    try:
        description = load_json_text(path)
    except ValueError as error:
        raise ValueError(f"{error}: the file is damaged") from None
    if not isinstance(description, dict) or not {"model", "config"} <= description.keys():
        raise ValueError(f"{path} describes no fastamr model: expected the fields 'model' and 'config'")
    if not isinstance(description["config"], dict) or not isinstance(description["model"], str):
        raise ValueError(
            f"{path} is damaged: model is {shortened(description['model'])} and config is "
            f"{shortened(description['config'])}, expected a name and a mapping"
        )
    size = description.get(BODY_SIZE)
    if size is not None and not (isinstance(size, (int, float)) and 0 < size < float("inf")):
        raise ValueError(f"{path} is damaged: {BODY_SIZE} is {shortened(size)}, expected a positive number")
    steps = description.get(PREPROCESS)
    if steps is not None and not (isinstance(steps, list) and all(isinstance(step, str) for step in steps)):
        raise ValueError(
            f"{path} is damaged: {PREPROCESS} is {shortened(steps)}, expected a list of pre-processing steps"
        )
    return description
