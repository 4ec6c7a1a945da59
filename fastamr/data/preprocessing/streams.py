"""Pre-processing steps that turn joints into the other input streams of the field: bones and motion.

They come last: what they make are differences, which have neither a place nor a trunk to align.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..packed.dataset import PackedSkeletons
from ..packed.ragged import row_owner
from .body_frame import present_frames
from .geometry import Step
from .rebuild import transform


@dataclass(frozen=True)
class Bone(Step):
    """Replace each joint by the bone that leads to it from its parent: ``x[joint] - x[parent]``; the root is 0.

    A bone is seen where both of its ends are. Source: 2s-AGCN's bone stream, with the parents of the layout.
    """

    name: ClassVar[str] = "bone"

    def __call__(self, data: PackedSkeletons) -> PackedSkeletons:
        """Return the data set with bones."""
        ends = list(enumerate(data.layout.parents))
        parents = torch.tensor(
            [joint if parent < 0 else parent for joint, parent in ends], device=data.device
        )
        if data.valid is not None:
            data = dataclasses.replace(data, valid=data.valid & data.valid[:, parents])
        return transform(data, lambda coords, rows: coords - coords[:, parents])


@dataclass(frozen=True)
class Motion(Step):
    """Replace each frame by the motion that follows it: ``x[t + stride] - x[t]``, 0 on the last ``stride`` frames.

    A joint's motion is seen where the joint is in both frames, and 0 where the body is absent from one of them. The
    last frames, being 0, look as if the body were absent, which is what the field's own motion streams do.

    Args:
        stride: frames between the two.

    Raises:
        ValueError: a stride that is not a positive whole number.
    """

    stride: int = 1
    name: ClassVar[str] = "motion"

    def __post_init__(self) -> None:
        if not isinstance(self.stride, int) or self.stride < 1:
            raise ValueError(f"stride of step 'motion' is {self.stride!r}, expected a positive whole number")

    def __call__(self, data: PackedSkeletons) -> PackedSkeletons:
        """Return the data set with motion."""
        rows = torch.arange(data.num_frames, device=data.device)
        # The row itself stands for a later frame that the body does not have.
        later = rows + self.stride
        later = torch.where(later < data.offsets[row_owner(data.offsets) + 1], later, rows)
        if data.valid is not None:
            data = dataclasses.replace(data, valid=data.valid & data.valid[later])
        present, coords = present_frames(data), data.coords
        later = torch.where(present[later], later, rows)
        return transform(data, lambda block, part: coords[later[part]].float() - block)


def stream_of(steps: Iterable[str | Mapping[str, Any]]) -> str:
    """Return which stream a list of steps makes: ``"joint"``, ``"bone"``, ``"motion"`` or ``"bone motion"``."""
    names = [(step if isinstance(step, str) else str(step.get("name"))).partition(":")[0] for step in steps]
    return " ".join(name for name in (Bone.name, Motion.name) if name in names) or "joint"
