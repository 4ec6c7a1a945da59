"""The masked models; a new method is one more file and one more line here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import check_name
from .amr import AMRConfig, AMRModel
from .asma import ASMaConfig, ASMaModel
from .base import PretrainOutput, SkeletonModel, read_description
from .classifier import ActionClassifier
from .config import ModelConfig
from .flops import count_flops
from .gfp import GFPConfig, GFPModel
from .mamp import MAMPConfig, MAMPModel
from .skeleton_mae import SkeletonMAEConfig, SkeletonMAEModel

MODELS: dict[str, type[SkeletonModel]] = {
    model.name: model for model in (AMRModel, SkeletonMAEModel, MAMPModel, GFPModel, ASMaModel)
}


def build_model(
    name: str, config: ModelConfig | dict[str, Any] | None = None, **overrides: Any
) -> SkeletonModel:
    """Build a freshly initialised model by name.

    Args:
        name: one of ``MODELS``.
        config: its configuration, as dataclass or dictionary; None takes the defaults.
        overrides: options that replace those of the configuration.

    Raises:
        ValueError: an unknown model or option, with the nearest valid name.
    """
    check_name("model", name, MODELS)
    values = config.to_dict() if isinstance(config, ModelConfig) else dict(config or {})
    cls = MODELS[name]
    return cls.from_config(cls.Config.from_dict({**values, **overrides}))


def load_pretrained(directory: str | Path) -> SkeletonModel:
    """Load a saved model of any architecture from its folder.

    Raises:
        FileNotFoundError: the folder holds no model.
        ValueError: an unknown architecture, a classifier, or damaged files.
    """
    name = read_description(directory)["model"]
    if name == ActionClassifier.name:
        raise ValueError(
            f"{directory} holds a classifier, whose encoder has no pre-training parts left: load it with "
            "ActionClassifier.from_pretrained; expected the folder of a pre-training run"
        )
    check_name("model", name, MODELS)
    return MODELS[name].from_pretrained(directory)


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
    "SkeletonMAEConfig",
    "SkeletonMAEModel",
    "SkeletonModel",
    "build_model",
    "count_flops",
    "load_pretrained",
]
