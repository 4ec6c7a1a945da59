"""The masked models; a new method is one more file, and one more line in :mod:`.registry`.

Parts that several of them share lie in :mod:`.parts`; the names in a ``state_dict`` are part of the file format.
A training loop of one's own on a CPU calls :func:`fastamr.memory.keep_freed_memory` once, as ``fastamr``'s commands do.
"""

from __future__ import annotations

import sys
from importlib import import_module

from .amr import AMRConfig, AMRModel
from .asma import ASMaConfig, ASMaModel
from .base import PretrainOutput, SkeletonModel
from .classifier import ActionClassifier
from .flops import count_flops
from .gfp import GFPConfig, GFPModel
from .mamp import MAMPConfig, MAMPModel
from .parts.config import ModelConfig
from .pretrained import from_pretrained
from .registry import MODELS, build_model, load_pretrained, register_model
from .skeleton_mae import SkeletonMAEConfig, SkeletonMAEModel
from .slim import SLiMConfig, SLiMModel

# Modules that the documentation of earlier releases named.
for _name in ("encoder", "masking"):
    sys.modules[f"{__name__}.{_name}"] = import_module(f".parts.{_name}", __name__)

__all__ = [
    "MODELS",
    "AMRConfig",
    "AMRModel",
    "ASMaConfig",
    "ASMaModel",
    "ActionClassifier",
    "GFPConfig",
    "GFPModel",
    "MAMPConfig",
    "MAMPModel",
    "ModelConfig",
    "PretrainOutput",
    "SLiMConfig",
    "SLiMModel",
    "SkeletonMAEConfig",
    "SkeletonMAEModel",
    "SkeletonModel",
    "build_model",
    "count_flops",
    "from_pretrained",
    "load_pretrained",
    "register_model",
]
