"""Where an evaluation's JSON goes, so that it never replaces the results of other settings."""

from __future__ import annotations

import dataclasses
import json
from itertools import count
from pathlib import Path
from typing import Any

from ...documents import load_json_text
from ...files import check_writable
from ...models.base import model_files
from ...weights import own_folder
from ..protocols.config import EvaluateConfig

# Settings that change where and how fast something is computed, not what.
_INCIDENTAL = ("out", "batch_size", "device", "cache")


def pick_target(config: EvaluateConfig) -> Path:
    """Return the JSON file of an evaluation: the one that is asked for, else one in the checkpoint's folder.

    There it is the file of :attr:`EvaluateConfig.file_name`, or, where that one holds something else than an earlier
    evaluation with the same settings, the first of ``-2``, ``-3``, ... that is free or does.

    Args:
        config: the evaluation.

    Raises:
        OSError: it cannot be written, see :func:`fastamr.files.check_writable`.
        ValueError: none is asked for, and the checkpoint is not a folder of one's own.
    """
    if config.out is not None:
        target = Path(config.out)
    elif own_folder(config.checkpoint) is None:
        raise ValueError(
            f"checkpoint {config.checkpoint!r} is no folder that results may be written into: name their file with "
            "--out FILE.json"
        )
    else:
        plain = Path(config.checkpoint) / config.file_name
        numbered = (plain.with_name(f"{plain.stem}-{number}.json") for number in count(2))
        target = plain if _is_free(plain, config) else next(one for one in numbered if _is_free(one, config))
    runs = [file for run in (config.checkpoint, *config.fuse) for file in model_files(run)]
    check_writable(target, *config.data, *runs)
    return target


def _is_free(path: Path, config: EvaluateConfig) -> bool:
    """Return whether there is no such file, or one of the same evaluation."""
    if not path.exists():
        return True
    try:
        settings = load_json_text(path)["config"]
        return _essence(settings) == _essence(json.loads(json.dumps(dataclasses.asdict(config))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not a file of an evaluation
        return False


def _essence(settings: dict[str, Any]) -> dict[str, Any]:
    # Files of before this setting have none, which is 0.
    essence = {"min_updates": 0} | settings
    return {name: value for name, value in essence.items() if name not in _INCIDENTAL}
