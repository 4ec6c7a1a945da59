"""What the ``config.yaml`` of a run says of its data, for everything that shows the run's model the same input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..documents import load_yaml
from ..weights import PREPROCESS, find_model, read_description

RUN_CONFIG = "config.yaml"


def run_config(checkpoint: str | Path) -> dict[str, Any] | None:
    """Return what a run's ``config.yaml`` holds; None where there is no such file.

    Args:
        checkpoint: the run's folder, or what else :func:`fastamr.weights.find_model` takes.

    Raises:
        ValueError: the file is damaged.
    """
    path = find_model(checkpoint) / RUN_CONFIG
    if not path.is_file():
        return None
    try:
        values = load_yaml(path)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): restore it, or evaluate a copy of the model without it"
        ) from None
    return values if isinstance(values, dict) else {}


def run_steps(checkpoint: str | Path) -> list[Any]:
    """Return the pre-processing steps that a model's training data went through; none where nothing says.

    A run's ``config.yaml`` lists them (older runs as ``steps``), else the model's ``config.json``.

    Args:
        checkpoint: the run's folder, or what else :func:`fastamr.weights.find_model` takes.

    Raises:
        FileNotFoundError: there is no model.
        ValueError: a file is damaged.
    """
    folder = find_model(checkpoint)
    settings = run_config(folder)
    if settings is None:
        return list(read_description(folder).get(PREPROCESS) or [])
    return list(settings.get("preprocess", settings.get("steps")) or [])
