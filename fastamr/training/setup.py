"""What a run starts from: device, data, body sequences, length and model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..skeleton import SkeletonLayout, get_layout
from .config import DEFAULT_EPOCHS, DEFAULT_WARMUP_EPOCHS, PretrainConfig

if TYPE_CHECKING:
    from ..data import PackedSkeletons
    from ..models import SkeletonModel

DEFAULT_SPLIT = "official"


def pick_device(name: str) -> torch.device:
    """Return the device to train on; ``auto`` is the GPU where there is one.

    Raises:
        ValueError: no such device, or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used: {reason}; expected auto, cpu or cuda") from None
    return device


def load_data(sources: Sequence[str], steps: Sequence[str]) -> PackedSkeletons:
    """Load files as one data set and apply the pre-processing that they lack.

    Args:
        sources: packed files of one layout, or ``synthetic``.
        steps: pre-processing steps, see :func:`apply_steps`.

    Raises:
        ValueError: no data is named, or the files do not fit together.
        FileNotFoundError: a file does not exist.
    """
    from .. import data

    if not sources:
        raise ValueError("data is missing: name packed files, or pass --data synthetic")
    sets = [apply_steps(data.load(source), steps) for source in sources]
    return sets[0] if len(sets) == 1 else data.concatenate(sets)


def apply_steps(data: PackedSkeletons, steps: Sequence[str]) -> PackedSkeletons:
    """Apply the pre-processing steps that the data has not been through yet.

    Args:
        data: packed data; ``data.steps`` lists what was applied.
        steps: names of steps, with or without parameters (``center``, ``center:frame=every``). A bare name is
            content with whatever parameters the data was processed with.

    Raises:
        ValueError: an unknown step or parameter.
    """
    from ..data import parse_steps, preprocess

    done = list(data.steps)
    names = {step["name"] for step in done}
    missing = [
        step
        for text, step in zip(steps, parse_steps(steps), strict=True)
        if step.to_dict() not in done and not (text == step.name and text in names)
    ]
    return preprocess(data, missing) if missing else data


def pick_split(name: str | None, data: PackedSkeletons) -> str | None:
    """Return the split's name: the given one, else ``official`` where the data has it, else None.

    Raises:
        ValueError: the data has no split of the given name.
    """
    if name is None:
        return DEFAULT_SPLIT if DEFAULT_SPLIT in data.splits else None
    data.split(name)
    return name


def training_sequences(data: PackedSkeletons, train_on: str, split: str | None) -> Tensor:
    """Return the ``(B,)`` int64 indices of the body sequences to train on.

    Args:
        data: the packed data.
        train_on: ``train`` for the training clips of the split, ``all`` for every clip.
        split: the split's name; None stands for all clips.
    """
    if train_on == "all" or split is None:
        return torch.arange(data.num_bodies)
    return data.split(split).train[data.body_clip].nonzero().squeeze(1)


def run_lengths(config: PretrainConfig, steps_per_epoch: int) -> tuple[int, int]:
    """Return the updates of the run and of its warm-up.

    Raises:
        ValueError: the warm-up is not shorter than the run.
    """
    epochs = config.epochs or DEFAULT_EPOCHS
    total = config.updates or max(1, round(epochs * steps_per_epoch))
    epochs = total / steps_per_epoch
    warmup_epochs = config.warmup_epochs
    if warmup_epochs is None:
        warmup_epochs = min(DEFAULT_WARMUP_EPOCHS, epochs / 5)
    warmup = round(warmup_epochs * steps_per_epoch)
    if warmup >= total:
        raise ValueError(
            f"warmup_epochs {warmup_epochs:g} must be shorter than the run's {epochs:g} epochs; "
            f"pass --warmup_epochs {epochs / 5:g}"
        )
    return total, warmup


def build_model(config: PretrainConfig, data: PackedSkeletons) -> SkeletonModel:
    """Build the model for the data's layout and channels, with weights that depend on the seed.

    Raises:
        ValueError: the architecture names another layout or channel count than the data's.
    """
    from ..models import MODELS

    channels = data.coords.shape[-1]
    settings = config.model_config(layout=_layout_setting(data.layout), channels=channels)
    torch.manual_seed(config.seed)
    model = MODELS[config.model].from_config(settings)
    if model.layout != data.layout or settings.channels != channels:
        raise ValueError(
            f"the architecture expects layout {model.layout.name!r} with {settings.channels} channels, "
            f"the data has {data.layout.name!r} with {channels}; "
            "leave architecture.layout and architecture.channels out"
        )
    return model


def _layout_setting(layout: SkeletonLayout) -> str | dict[str, Any]:
    """Return a known layout's name, so that the configuration stays readable, or the whole layout."""
    try:
        known = get_layout(layout.name) == layout
    except ValueError:
        known = False
    return layout.name if known else layout.to_dict()
