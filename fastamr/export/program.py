"""``torch.export``: a model as a program for PyTorch without this library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..files import check_folder_of, replaced
from ..models import ActionClassifier, SkeletonModel
from .description import KEY, check_ending, describe
from .graph import trace

EXTRA_FILE = f"{KEY}.json"


def export_program(
    model: ActionClassifier | SkeletonModel,
    path: str | Path,
    *,
    steps: Iterable[str | Mapping[str, Any]] = (),
    pooling: str = "mean",
) -> None:
    """Write a model as a ``.pt2`` file, which ``torch.export.load`` reads without this library.

    The graph is that of :func:`fastamr.export.export_onnx`. What it expects is in the archive's extra file
    ``fastamr.json``.

    Args:
        model: the model; it is left as it is.
        path: the file, ``*.pt2``.
        steps: pre-processing of the clips, for an encoder; a classifier knows its own.
        pooling: of an encoder's features, see :meth:`SkeletonModel.features`; a classifier has its own.

    Raises:
        FileNotFoundError: the folder does not exist.
        TypeError, ValueError: see :func:`fastamr.export.graph.trace`; a file name that does not end in ``.pt2``.
    """
    path = Path(path)
    check_ending(path, ".pt2")
    check_folder_of(path)
    traced = trace(model, pooling)
    text = json.dumps(describe(model, traced.inputs, traced.outputs, steps, pooling))
    with replaced(path) as temporary, temporary.open("wb") as file:
        torch.export.save(traced.program, file, extra_files={EXTRA_FILE: text})
