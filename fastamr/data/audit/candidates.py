"""Pairs of bodies whose descriptors are close, by blocked matrix products."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .blocks import Index
from .motion import Described

# Choices of the search.
_DIMENSIONS = 64
_NEAREST = 32
_TILE = (1024, 8192)
# Frames cut off a sequence of T frames move its descriptor by up to 4 / T of its motion each (99 % of the clips of
# four data sets); more than most of the motion would propose everything.
_CUT, _FAR = 4.0, 0.8


def candidate_pairs(described: Described, residual: float, max_shift: int) -> tuple[Index, int]:
    """Return the pairs that may be near duplicates.

    Args:
        described: the bodies.
        residual: what two copies may differ by, as a share of their motion.
        max_shift: frames by which one may start, and end, earlier than the other.

    Returns:
        ``(P, 2)`` int64 positions in ``described``, the lower first, and for how many bodies only the 32 nearest
        candidates are among them.
    """
    # Sorted by length, those that can match are neighbours.
    order = np.argsort(described.frames, kind="stable")
    frames = described.frames[order]
    reach = described.motion * np.minimum(residual + _CUT * max_shift / described.frames, _FAR)
    left, right, rounding = _factors(described.features[order], reach[order])
    pairs, limited = [], 0
    for top in range(0, len(order), _TILE[0]):
        stop = min(top + _TILE[0], len(order))
        last = int(np.searchsorted(frames, frames[stop - 1] + 2 * max_shift, side="right"))
        found, values = _within(left[top:stop], right[:, :last], top, rounding)
        kept, over = _nearest(found, values)
        limited += over
        pairs.append(kept)
    places = order[torch.cat(pairs).numpy()].reshape(-1, 2)
    close = np.abs(np.diff(described.frames[places], axis=1))[:, 0] <= 2 * max_shift
    return np.sort(places[close], axis=1), limited


def _factors(features: np.ndarray, reach: np.ndarray) -> tuple[Tensor, Tensor, float]:
    """Return two matrices whose product is ``|a - b|^2 - reach_a^2``, so that a tile is read once.

    The features are projected on their first principal axes, which brings them closer, never further apart.

    Returns:
        ``(n, d)``, ``(d, n)``, and what rounding may add to a product.
    """
    unit = float(np.abs(features).max()) or 1.0
    x = torch.from_numpy(features / unit).double()
    x = x - x.mean(0)
    if x.shape[1] > _DIMENSIONS:
        x = x @ torch.linalg.eigh(x.T @ x).eigenvectors[:, -_DIMENSIONS:]
    squares, limit = x.square().sum(1), torch.from_numpy(reach / unit).double().square()
    ones = torch.ones_like(squares)
    left = torch.cat([-2 * x, (squares - limit)[:, None], ones[:, None]], dim=1).float()
    right = torch.cat([x, ones[:, None], squares[:, None]], dim=1).float().T.contiguous()
    return left, right, 4e-7 * float(squares.max())


def _within(rows: Tensor, right: Tensor, top: int, rounding: float) -> tuple[Tensor, Tensor]:
    """Return the pairs of some rows with later ones that are within reach, and how far inside they are."""
    pairs, values = [], []
    for start in range(top, right.shape[1], _TILE[1]):
        distance = rows @ right[:, start : start + _TILE[1]]
        inside = (distance <= rounding).nonzero()
        values.append(distance[inside[:, 0], inside[:, 1]])
        pairs.append(inside + torch.tensor([top, start]))
    found, distances = torch.cat(pairs), torch.cat(values)
    later = found[:, 1] > found[:, 0]
    return found[later], distances[later]


def _nearest(pairs: Tensor, values: Tensor) -> tuple[Tensor, int]:
    """Keep the nearest candidates of each first body; also return how many bodies lost some."""
    order = values.argsort(stable=True)
    order = order[pairs[order, 0].argsort(stable=True)]
    pairs = pairs[order]
    counts = pairs[:, 0].unique_consecutive(return_counts=True)[1]
    starts = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return pairs[torch.arange(len(pairs)) - starts < _NEAREST], int((counts > _NEAREST).sum())
