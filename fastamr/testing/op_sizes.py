"""Sizes and tensors that the ops' cases are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.synthetic.random_clips import random_clips


@dataclass(frozen=True)
class Sizes:
    """What the arguments of a case are made of; the defaults are small.

    Attributes:
        label: name in a report.
        sequences, frames, joints: of clips, which have three channels.
        target_frames: frames of a target patch of AMR.
        windows: lengths of the guidance's windows.
        rows, width, hidden: of flat rows and of the layers on them.
        queries, keys, heads, size: of attention; as many queries as keys are self-attention.
        tensors, values: of an optimizer's parameters; no values are three small tensors.
        low: dtype of activations and working weights.
        stored: dtype of packed coordinates.
        device: where tensors lie.
        grad: whether the tensors that receive gradients ask for them.
        filled: False leaves floating tensors uninitialised, for launches that are only written down.
    """

    label: str = "small"
    sequences: int = 2
    frames: int = 8
    joints: int = 3
    target_frames: int = 8
    windows: tuple[int, ...] = (4, 5)
    rows: int = 5
    width: int = 16
    hidden: int = 24
    queries: int = 6
    keys: int = 6
    heads: int = 2
    size: int = 16
    tensors: int = 3
    values: int = 0
    low: torch.dtype = torch.float32
    stored: torch.dtype = torch.float16
    device: str = "cpu"
    grad: bool = False
    filled: bool = True

    @property
    def parameters(self) -> list[tuple[int, ...]]:
        """Shapes of an optimizer's parameters: a third of them matrices, which hold nearly all values."""
        if not self.values:
            return [(self.width, 4 * self.width), (self.width,), (3,)]
        large = max(self.tensors // 3, 1)
        small = min(256, self.values // (2 * self.tensors))
        rest = self.values - small * (self.tensors - large)
        sizes = [rest // large + (place < rest % large) for place in range(large)]
        return [(size,) for size in (*sizes, *[small] * (self.tensors - large))]

    @property
    def tokens(self) -> int:
        """Tokens of a clip in patches of four frames."""
        return self.frames // 4 * self.joints

    @property
    def visible(self) -> int:
        """How many of them are visible."""
        return max(self.tokens // 10, 3)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values of a normal distribution."""
        make = torch.randn if self.filled else torch.empty
        return make(shape, dtype=dtype, device=self.device)

    def leaf(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """The same, asking for a gradient if ``grad``."""
        return self.normal(*shape, dtype=dtype).requires_grad_(self.grad)

    def lows(self, *shape: int) -> Tensor:
        """The same without a gradient, in the dtype of activations."""
        return self.normal(*shape, dtype=self.low)

    def flags(self, *shape: int) -> Tensor:
        """Bools, about four of five True."""
        return torch.rand(shape, device=self.device) > 0.2

    def whole(self, *values: int) -> Tensor:
        """These values as int64."""
        return torch.tensor(values, device=self.device)

    def clips(self) -> Tensor:
        """``(S, T, V, 3)``."""
        return random_clips(self.sequences, self.frames, self.joints, device=self.device)

    def valid(self) -> Tensor:
        """``(S, T, V)`` bool."""
        return self.flags(self.sequences, self.frames, self.joints)

    def keep(self) -> Tensor:
        """``(S, K)`` int32 ids, ascending."""
        chosen = torch.rand(self.sequences, self.tokens).argsort(1)[:, : self.visible]
        return chosen.sort(1).values.to(self.device, torch.int32)


SMALL = Sizes()
# The papers' sizes, a whole body of 133 joints, a long clip, and flat rows that differ in dtype and width.
PAPER = Sizes(
    label="paper",
    sequences=256,
    frames=120,
    joints=25,
    target_frames=24,
    windows=(4, 8, 12),
    rows=32000,
    width=256,
    hidden=1024,
    low=torch.bfloat16,
    filled=False,
)
BODY = replace(PAPER, label="body", sequences=4, frames=64, joints=133)
LONG = replace(PAPER, label="long", sequences=4, frames=300, target_frames=25)
WIDE = replace(PAPER, label="wide float16", width=512, hidden=2048, low=torch.float16)
EXACT = replace(PAPER, label="float32", low=torch.float32)
UNEVEN = replace(PAPER, label="uneven", rows=3000, width=44, hidden=100)
