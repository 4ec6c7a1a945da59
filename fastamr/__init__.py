"""fastamr: fast self-supervised pre-training of skeleton-action encoders.

The public names load when they are first used, so that ``import fastamr`` needs no GPU, no Triton, no compiler.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .version import __version__

_LAZY = {
    "AMRModel": "fastamr.models",
    "ActionClassifier": "fastamr.models",
    "ASMaModel": "fastamr.models",
    "GFPModel": "fastamr.models",
    "MAMPModel": "fastamr.models",
    "SkeletonMAEModel": "fastamr.models",
    "SLiMModel": "fastamr.models",
    "SkeletonLayout": "fastamr.skeleton",
    "get_layout": "fastamr.skeleton",
    "PackedSkeletons": "fastamr.data",
    "backend": "fastamr.ops",
    "from_pretrained": "fastamr.models",
}
_SUBPACKAGES = (
    "benchmarking",
    "data",
    "evaluation",
    "export",
    "info",
    "kernels",
    "models",
    "native",
    "nn",
    "ops",
    "reference",
    "skeleton",
    "testing",
    "training",
    "visualization",
    "weights",
)

__all__ = [
    "AMRModel",
    "ASMaModel",
    "ActionClassifier",
    "GFPModel",
    "MAMPModel",
    "PackedSkeletons",
    "SLiMModel",
    "SkeletonLayout",
    "SkeletonMAEModel",
    "__version__",
    "backend",
    "from_pretrained",
    "get_layout",
]

if TYPE_CHECKING:
    from .data import PackedSkeletons
    from .models import (
        ActionClassifier,
        AMRModel,
        ASMaModel,
        GFPModel,
        MAMPModel,
        SkeletonMAEModel,
        SLiMModel,
        from_pretrained,
    )
    from .ops import backend
    from .skeleton import SkeletonLayout, get_layout


class _CheckoutKernels:
    """Finds ``fastamr.kernels`` in the sibling folder ``kernels/`` of a checkout, and nothing else."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "fastamr.kernels":
            return None
        root = Path(__file__).resolve().parent.parent
        folder = root / "kernels"
        # Beside an installed package the sibling could be another project's folder of that name.
        if not (root / "pyproject.toml").is_file() or not (folder / "__init__.py").is_file():
            return None
        return importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )


# First, so that a checkout finds its own kernels even where another checkout is installed in editable mode.
sys.meta_path.insert(0, _CheckoutKernels)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"fastamr.{name}")
    raise AttributeError(f"module 'fastamr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_SUBPACKAGES})
