"""The same bits twice: asked where programs run beside one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


def assert_repeats(found: Sequence[torch.Tensor], again: Callable[[], Sequence[torch.Tensor]]) -> None:
    """On a GPU ``again()`` gives the bits of ``found``. The interpreter, which has one order only, is not run again."""
    if found[0].is_cuda:
        for value, other in zip(found, again(), strict=True):
            assert torch.equal(value, other), "the same bits twice"
