"""Seeds as tensors: an op takes ``(key, counter)`` on the device, so that a captured step can advance it in place.

A third element, where there is one, is the number of the first sequence: a process that holds the sequences from 64 on
of a larger batch draws for them what a process draws that holds the whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The odd fraction of the golden ratio in 64 bits spreads derived keys far apart.
_GOLDEN = 0x9E3779B97F4A7C15


def make_seed(generator: torch.Generator | None = None, device: torch.device | str = "cpu") -> Tensor:
    """Draw a seed.

    Args:
        generator: source of randomness, on any device; None takes PyTorch's default generator of ``device``.
        device: where the seed shall lie.

    Returns:
        ``(2,)`` int64: a random key and counter 0.
    """
    source = device if generator is None else generator.device
    key = torch.randint(-(2**63), 2**63 - 1, (1,), generator=generator, device=source).to(device)
    return torch.cat([key, torch.zeros_like(key)])


def derive_seed(seed: Tensor, number: int) -> Tensor:
    """A seed for another purpose, independent of ``seed``, with the same counter and first sequence.

    Args:
        seed: ``(2,)`` or ``(3,)`` int64.
        number: names the purpose, at least 1.
    """
    step = (number * _GOLDEN + 2**63) % 2**64 - 2**63
    return torch.cat([seed[:1] + step, seed[1:]])
