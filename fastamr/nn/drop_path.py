"""Drop path: whole residual branches are left out of some sequences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .. import ops
from ..ops.common.checks import check_device


class _Source:
    """Where the seeds of the draws inside :func:`drop_path_seed` come from."""

    def __init__(self, seed: Tensor) -> None:
        self.seed, self.draws = seed, 0


# Process-wide, as the choice of back ends is: encoders of any kind draw between the caller and the blocks.
_source: _Source | None = None


@contextmanager
def drop_path_seed(seed: Tensor | None) -> Iterator[None]:
    """Inside a ``with`` block, draw what drop path drops from this seed instead of PyTorch's generators.

    Each stack of blocks, and each :class:`DropPath` that is called on its own, draws once in a forward pass; the n-th
    draw inside the block has a seed of its own, derived from this one. Nothing waits for a GPU, so that a CUDA graph
    can record it; a replay then reads the seed as it is at that time.

    Args:
        seed: ``(2,)`` int64 on the device of the activations, or ``(3,)`` with the number of the first sequence: a
            process that holds the sequences from 64 on drops what one process would drop of them. None changes nothing.
    """
    global _source
    before = _source
    _source = before if seed is None else _Source(seed)
    try:
        yield
    finally:
        _source = before


def draw_seed(device: torch.device) -> Tensor:
    """The seed of the next draw: of :func:`drop_path_seed`, or ``(2,)`` from PyTorch's default generator.

    Raises:
        ValueError: the seed lies on another device than the activations.
    """
    if _source is None:
        return ops.make_seed(None, device)
    check_device("seed", _source.seed, device, "the activations")
    number, _source.draws = _source.draws, _source.draws + 1
    return ops.derive_seed(_source.seed, number) if number else _source.seed


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016) as ViT and MAE use it; the identity in evaluation mode.

    Each sequence loses the branch with probability ``rate``; where it stays it is divided by ``1 - rate``, so
    that its expectation is what evaluation computes.

    Args:
        rate: share of dropped sequences, 0 <= rate < 1. It may be changed later.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate={rate} must be at least 0 and below 1, for example 0.1")
        self.rate = rate

    @property
    def active(self) -> bool:
        """Whether a branch can be dropped."""
        return self.training and self.rate > 0

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """``(S, ...)`` to ``(S, ...)``.

        Args:
            x: the branch.
            scale: ``(S,)`` float32, its factors as a stack of blocks drew them; None draws here, from the seed of
                :func:`drop_path_seed` or from PyTorch's default generator.
        """
        if not self.active:
            return x
        shape = (x.shape[0], *[1] * (x.ndim - 1))
        if scale is None and _source is not None:
            scale = ops.drop_path_scales(draw_seed(x.device), [self.rate], x.shape[0])[0]
        if scale is None:
            stays = torch.rand(shape, device=x.device) >= self.rate
            return x * (stays / (1 - self.rate)).to(x.dtype)
        return (x * scale.view(shape)).to(x.dtype)

    def extra_repr(self) -> str:
        """Return the rate, for ``repr``."""
        return f"rate={self.rate:g}"
