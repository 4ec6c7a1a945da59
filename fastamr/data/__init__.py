"""Data: the packed format, importers, pre-processing and generated motion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .load import concatenate, import_file, load
from .packed import PackedSkeletons, Split
from .preprocess import apply_missing, parse_steps, preprocess
from .sequences import to_sequences

if TYPE_CHECKING:
    from .synthetic import synthetic_actions

__all__ = [
    "PackedSkeletons",
    "Split",
    "apply_missing",
    "concatenate",
    "import_file",
    "load",
    "parse_steps",
    "preprocess",
    "synthetic_actions",
    "to_sequences",
]


def __getattr__(name: str) -> Any:
    # The generator is not needed to read files.
    if name == "synthetic_actions":
        from .synthetic import synthetic_actions

        return synthetic_actions
    raise AttributeError(f"module 'fastamr.data' has no attribute {name!r}")
