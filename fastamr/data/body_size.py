"""How large bodies are, and the warning where their unit cannot be the one that is expected."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .packed.dataset import PackedSkeletons
from .preprocessing.apply import Step, missing_steps

METRES = 0.5
"""The trunk of a person, in metres."""
FACTOR = 3.0
"""A size that differs by this factor or more is not that of the same unit."""

_ROWS = 4096
# After these there is no size: each body is divided by its own, stretched, or no longer a place in space.
_NORMALISED = ("fit_box",)
_NO_PLACES = ("bone", "motion")
# Metres in an inch and a foot; whatever else people use is a power of ten of a metre.
_UNITS = (0.0254, 0.3048)


def median_trunk(data: PackedSkeletons, rows: int = _ROWS) -> float | None:
    """Return the median length of the trunk, in the unit of the coordinates.

    It is the length of the layout's spine; where it has none, from between the hips to between the shoulders; where it
    lacks these too, the diagonal of the box about the joints (see :func:`has_trunk`).

    Args:
        data: the data set; float16, NaN and joints that were not seen are fine.
        rows: it reads so many frames of bodies at most, evenly spaced.

    Returns:
        The length; None where no frame shows it.
    """
    places = torch.arange(min(rows, data.num_frames), device=data.device)
    if data.num_frames > rows:
        places = places * (data.num_frames - 1) // (rows - 1)
    coords = data.coords[places].float()
    seen = torch.isfinite(coords).all(-1) & (coords != 0).any(-1).any(-1, keepdim=True)
    if data.valid is not None:
        seen &= data.valid[places]
    ends = _ends(data)
    if ends is None:
        lengths, known = _diagonal(coords, seen)
    else:
        low, high = (coords[:, list(end)].mean(1) for end in ends)
        known = seen[:, [joint for end in ends for joint in end]].all(1)
        lengths = (high - low).norm(dim=-1)
    lengths = lengths[known & (lengths > 0)]
    return float(lengths.median()) if lengths.numel() else None


def has_trunk(data: PackedSkeletons) -> bool:
    """Return whether the layout has a spine, or hips and shoulders: whether it is a body that has a size in metres."""
    return _ends(data) is not None


def body_size(data: PackedSkeletons, steps: Iterable[str | Mapping[str, Any] | Step] = ()) -> float | None:
    """Return the median trunk as pre-processing leaves it, without doing the pre-processing.

    Args:
        data: the data set, with the steps that it has been through.
        steps: further ones, of which those that it lacks count, as :func:`fastamr.data.apply_missing` applies them.

    Returns:
        The length; None where no frame shows it, where a step takes sizes out (``scale:unit=torso``, ``fit_box``), and
        where the file holds bones or motion instead of places.
    """
    done, coming = _flat(data.steps), [step.to_dict() for step in missing_steps(data, steps)]
    if any(_normalises(step) for step in [*done, *coming]) or any(s["name"] in _NO_PLACES for s in done):
        return None
    size = median_trunk(data)
    for step in coming:
        if size is not None and step["name"] == "scale":
            size *= step["factor"]
    return size


def size_warning(
    data: PackedSkeletons,
    reference: float | None = None,
    *,
    steps: Iterable[str | Mapping[str, Any] | Step] = (),
    where: str = "the data",
) -> str | None:
    """Return a warning where bodies are larger or smaller than expected by a factor of 3 or more.

    Args:
        data: the data set.
        reference: the size that is expected, see :func:`body_size`: that of the training data. None = half a metre,
            for three channels; without one, image coordinates have no size that could be expected.
        steps: pre-processing that the data will go through.
        where: what the data is called.

    Returns:
        One line that names the step which mends it; None where there is nothing to warn of, or nothing to compare.
    """
    if reference is None and (data.coords.shape[-1] != 3 or not has_trunk(data)):
        return None
    if reference is not None and any(_normalises(step) for step in _flat(data.steps)):
        return (
            f"{where}: its bodies were made of one size (scale:unit=torso or fit_box), those of the training were not: "
            f"their median trunk had {reference:.3g}; make the file again without that step"
        )
    size, wanted = body_size(data, steps), METRES if reference is None else reference
    if size is None or 1 / FACTOR < size / wanted < FACTOR:
        return None
    expected = "metres give 0.5" if reference is None else f"those of the training had {wanted:.3g}"
    factor = mending(wanted / size, data, inverse=reference is not None)
    return (
        f"{where}: the median trunk is {size:.3g} long, {expected}: if only the unit differs, the step "
        f"scale:factor={factor} mends it (fastamr convert IN OUT --preprocess scale:factor={factor}, or of a "
        f"pre-training --preprocess center scale:factor={factor})"
    )


def mending(ratio: float, data: PackedSkeletons, *, inverse: bool = True) -> str:
    """Return the factor of a step ``scale`` that gives bodies another size.

    Args:
        ratio: the wanted size over the size that there is.
        data: the data set; in three dimensions the factor is that of a known unit, where one fits.
        inverse: whether units may be small ones: inches made of metres.

    Returns:
        The factor as a step is written, without an exponent.
    """
    units = [*(10.0**power for power in range(-9, 10)), *_UNITS]
    units += [1 / unit for unit in _UNITS] if inverse else []
    nearest = min(units, key=lambda unit: abs(math.log(unit / ratio)))
    if data.coords.shape[-1] == 3 and abs(math.log(nearest / ratio)) < math.log(2):
        return _written(f"{nearest:.4g}")
    return _written(f"{ratio:.2g}")


def _written(number: str) -> str:
    """Return a number without an exponent."""
    return f"{float(number):.12f}".rstrip("0").rstrip(".")


def _normalises(step: Mapping[str, Any]) -> bool:
    return step["name"] in _NORMALISED or (step["name"] == "scale" and step.get("unit") is not None)


def _flat(steps: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return steps with those of joined sets, which have been through different ones."""
    found: list[Mapping[str, Any]] = []
    for step in steps:
        found += (
            [one for own in step["steps"] for one in _flat(own)] if step["name"] == "concatenate" else [step]
        )
    return found


def _ends(data: PackedSkeletons) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the joints between which the trunk begins and ends."""
    layout = data.layout
    if layout.spine is not None:
        return layout.spine[:1], layout.spine[1:]
    if layout.hips is not None and layout.shoulders is not None:
        return layout.hips, layout.shoulders
    return None


def _diagonal(coords: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the diagonal of the box about the joints of each frame, and where at least two were seen."""
    high = coords.masked_fill(~seen[..., None], -math.inf).amax(1)
    low = coords.masked_fill(~seen[..., None], math.inf).amin(1)
    return (high - low).norm(dim=-1), seen.sum(1) >= 2
