"""The models by name: for pre-training, saved files and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import check_name, naming, shortened
from ..weights import CONFIG_FILE, find_model, read_description
from .amr import AMRModel
from .asma import ASMaModel
from .base import CLASSIFIER, SkeletonModel
from .gfp import GFPModel
from .mamp import MAMPModel
from .parts.config import ModelConfig
from .skeleton_mae import SkeletonMAEModel
from .slim import SLiMModel

MODELS: dict[str, type[SkeletonModel]] = {
    model.name: model for model in (AMRModel, SkeletonMAEModel, MAMPModel, GFPModel, ASMaModel, SLiMModel)
}


def register_model(model: type[SkeletonModel]) -> type[SkeletonModel]:
    """Make a model known by its ``name``, as a class decorator: for pre-training, evaluation and the command line.

    A saved model holds its name only, so it loads where the class was registered before; no file is ever imported
    because a checkpoint names it.

    Args:
        model: a subclass of :class:`SkeletonModel` with a ``name`` of its own.

    Returns:
        The class.

    Raises:
        TypeError: it is not a subclass of :class:`SkeletonModel`, or has no ``name``.
        ValueError: another class has the name.
    """
    if not (isinstance(model, type) and issubclass(model, SkeletonModel)):
        raise TypeError(f"register_model: got {model!r}, expected a subclass of fastamr.models.SkeletonModel")
    name = vars(model).get("name")
    if not isinstance(name, str) or not name:
        raise TypeError(
            f"register_model: {model.__qualname__}.name is {name!r}, expected a name such as 'my_method'"
        )
    known = MODELS.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (model.__module__, model.__qualname__):
        raise ValueError(
            f"register_model: the name {name!r} of {model.__qualname__} is that of {known.__qualname__}: "
            "choose another"
        )
    MODELS[name] = model
    return model


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
    return MODELS[check_model(name)].from_config(model_config(name, config, **overrides))


def model_config(
    name: str, config: ModelConfig | dict[str, Any] | None = None, **overrides: Any
) -> ModelConfig:
    """Return the configuration that :func:`build_model` builds from; the arguments are its own.

    Raises:
        ValueError: an unknown model or option, or a value out of range.
    """
    values = config.to_dict() if isinstance(config, ModelConfig) else dict(config or {})
    return MODELS[check_model(name)].Config.from_dict({**values, **overrides})


def check_model(name: str) -> str:
    """Return the name of a model, or raise ``ValueError`` where there is none of that name."""
    if not isinstance(name, str):
        raise ValueError(f"model is {shortened(name)}, expected one of {', '.join(MODELS)}")
    check_name("model", name, MODELS)
    return name


def load_pretrained(directory: str | Path, *, revision: str | None = None) -> SkeletonModel:
    """Load a saved model of any architecture from its folder.

    Args:
        directory: the folder, a shipped model or a repository, see :func:`fastamr.weights.find_model`.
        revision: branch, tag or commit of a repository.

    Raises:
        FileNotFoundError: the folder holds no model.
        ValueError: an unknown architecture, a classifier, or damaged files.
    """
    directory = find_model(directory, revision=revision)
    name = read_description(directory)["model"]
    if name == CLASSIFIER:
        raise ValueError(
            f"{directory} holds a classifier, whose encoder has no pre-training parts left: continue it with "
            "fastamr finetune, or load it with ActionClassifier.from_pretrained; expected the folder of a pre-training "
            "run"
        )
    with naming(Path(directory) / CONFIG_FILE, "expected a folder written by save_pretrained"):
        model = MODELS[check_model(name)]
    return model.from_pretrained(directory)
