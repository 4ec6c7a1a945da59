"""Data: the packed format, readers of foreign files, pre-processing, preparation, generated motion and the audit.

Each is a wing of its own; public names are handed on here and stay importable from here wherever they live.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .labelling.labels import label_clips
from .labelling.splits import make_split
from .load import concatenate, import_file, load, read
from .packed.bodies import split_bodies
from .packed.dataset import PackedSkeletons, Split
from .packed.sequences import to_sequences
from .preprocessing.apply import apply_missing, parse_steps, preprocess
from .readers.common.arrays import from_batch

if TYPE_CHECKING:
    from .synthetic.dataset import synthetic_actions

__all__ = [
    "PackedSkeletons",
    "Split",
    "apply_missing",
    "concatenate",
    "from_batch",
    "import_file",
    "label_clips",
    "load",
    "make_split",
    "parse_steps",
    "preprocess",
    "read",
    "split_bodies",
    "synthetic_actions",
    "to_sequences",
]


def __getattr__(name: str) -> Any:
    # The generator is not needed to read files.
    if name == "synthetic_actions":
        from .synthetic.dataset import synthetic_actions

        return synthetic_actions
    raise AttributeError(f"module 'fastamr.data' has no attribute {name!r}")
