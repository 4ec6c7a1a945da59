"""Pre-processing as explicit steps that compose and are recorded in the data set.

:func:`preprocess` applies a list of steps, each given as a :class:`~fastamr.data.preprocessing.geometry.Step`, as a
name, or as a dictionary (from YAML)::

    preprocess(data, ["center", "align_body", {"name": "scale", "factor": 0.001}, "center:frame=every"])
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ...documents import parse_yaml
from ...errors import unknown_name
from ..packed.dataset import PackedSkeletons
from .convert_layout import ConvertLayout
from .geometry import AlignBody, Center, DropEmptyBodies, DropEmptyFrames, FitBox, Flip, Scale, Step
from .streams import Bone, Motion
from .time import CloseGaps, Resample

__all__ = [
    "STEPS",
    "AlignBody",
    "Bone",
    "Center",
    "CloseGaps",
    "ConvertLayout",
    "DropEmptyBodies",
    "DropEmptyFrames",
    "FitBox",
    "Flip",
    "Motion",
    "Resample",
    "Scale",
    "Step",
    "apply_missing",
    "missing_steps",
    "parse_steps",
    "preprocess",
]

_STEPS: tuple[type[Step], ...] = (
    *(Center, AlignBody, Scale, Flip, FitBox),
    *(DropEmptyFrames, DropEmptyBodies, CloseGaps, Resample, ConvertLayout, Bone, Motion),
)
STEPS: dict[str, type[Step]] = {step.name: step for step in _STEPS}
"""The steps by name."""


def preprocess(data: PackedSkeletons, steps: Iterable[str | Mapping[str, Any] | Step]) -> PackedSkeletons:
    """Apply pre-processing steps in order and record them in ``steps`` of the result.

    Args:
        data: a data set; it is left as it is.
        steps: see :func:`parse_steps`.

    Raises:
        ValueError: an unknown step or parameter, or a step that does not suit the data.
    """
    for step in parse_steps(steps):
        done = (*data.steps, step.to_dict(), *step.notes(data))
        data = dataclasses.replace(step(data), steps=done)
    return data


def apply_missing(data: PackedSkeletons, steps: Iterable[str | Mapping[str, Any] | Step]) -> PackedSkeletons:
    """Apply those pre-processing steps that the data has not been through yet.

    Args:
        data: packed data; ``data.steps`` lists what was applied.
        steps: see :func:`parse_steps`. A bare name (``"center"``) is content with whatever parameters the data was
            processed with; a step with parameters wants just those.

    Raises:
        ValueError: an unknown step or parameter.
    """
    missing = missing_steps(data, steps)
    return preprocess(data, missing) if missing else data


def missing_steps(data: PackedSkeletons, steps: Iterable[str | Mapping[str, Any] | Step]) -> tuple[Step, ...]:
    """Return the steps that :func:`apply_missing` applies; the arguments are its own."""
    steps, done = list(steps), list(data.steps)
    names = {step["name"] for step in done}
    return tuple(
        step
        for given, step in zip(steps, parse_steps(steps), strict=True)
        if step.to_dict() not in done and not (given == step.name and step.name in names)
    )


def parse_steps(steps: Iterable[str | Mapping[str, Any] | Step]) -> tuple[Step, ...]:
    """Turn names, dictionaries and steps into steps.

    Args:
        steps: each is a :class:`Step`, a name (``"center"``), a name with parameters
            (``"center:joint=hips,frame=every"``), or a dictionary (``{"name": "scale", "factor": 0.001}``).

    Raises:
        ValueError: an unknown name or parameter (with the nearest one), or a bad value.
        TypeError: an entry of another type.
    """
    if isinstance(steps, (str, Mapping, Step)):
        steps = [steps]
    return tuple(_parse_step(step) for step in steps)


def _parse_step(step: Any) -> Step:
    if isinstance(step, Step):
        return step
    if isinstance(step, str):
        name, _, text = step.partition(":")
        pairs = [item.partition("=") for item in text.split(",") if item]
        step = {"name": name.strip(), **{key.strip(): _value(value) for key, _, value in pairs}}
    if not isinstance(step, Mapping) or "name" not in step:
        raise TypeError(f"step {step!r}: expected a name, a dictionary with a 'name', or a Step")
    name = step["name"]
    if name not in STEPS:
        raise unknown_name("pre-processing step", name, STEPS)
    parameters = {key: value for key, value in step.items() if key != "name"}
    known = [item.name for item in dataclasses.fields(STEPS[name])]  # type: ignore[arg-type]
    for key in parameters:
        if key not in known:
            if not known:
                raise ValueError(f"pre-processing step {name!r} takes no parameter, got {key!r}")
            raise unknown_name(f"parameter of step {name!r}", key, known)
    return STEPS[name](**parameters)


def _value(text: str) -> Any:
    """Return the value of a parameter."""
    return parse_yaml(text, f"the value {text!r}")
