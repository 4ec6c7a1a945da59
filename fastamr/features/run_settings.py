"""What the ``config.yaml`` of a run says of its data, for everything that shows the run's model the same input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..documents import load_yaml

RUN_CONFIG = "config.yaml"


def run_config(checkpoint: str | Path) -> dict[str, Any] | None:
    """Return what a run's ``config.yaml`` holds; None where there is no such file.

    Raises:
        ValueError: the file is damaged.
    """
    path = Path(checkpoint) / RUN_CONFIG
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
    """Return the pre-processing steps that a run's ``config.yaml`` lists; none where there is no such file.

    Older runs list them as ``steps``.

    Raises:
        ValueError: the file is damaged.
    """
    settings = run_config(checkpoint) or {}
    return list(settings.get("preprocess", settings.get("steps")) or [])
