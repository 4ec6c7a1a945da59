"""Retrieval: rank the training clips by similarity to a test clip."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .checks import check_features


def average_precision(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, *, chunk: int = 256
) -> Tensor:
    """Return the average precision of each test clip as a query among the training clips.

    All training clips are ranked by cosine similarity. The precision at a rank is the share of the query's class
    up to there; its mean over the ranks of the clips of that class is the average precision. Choices: of equally
    similar clips the earlier one ranks first; a query whose class has no training clip has 0, as the nearest
    neighbours count it as wrong.

    Args:
        train_x: ``(N, D)`` features of the gallery.
        train_y: ``(N,)`` int64 class indices.
        test_x: ``(M, D)`` features of the queries.
        test_y: ``(M,)`` int64 class indices.
        chunk: queries ranked at a time, so that memory stays at a few times ``chunk * N`` values.

    Returns:
        ``(M,)`` float64 from 0 to 1, on the device of the features.

    Raises:
        ValueError: shapes that do not fit, an empty set, features that are not finite, chunk below 1.
    """
    check_features(train_x, train_y, test_x, test_y)
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be at least 1 query")
    train_y, test_y = train_y.to(train_x.device), test_y.to(test_x.device)
    gallery = functional.normalize(train_x.float(), dim=1).T.contiguous()
    rank = torch.arange(1, len(train_x) + 1, device=train_x.device, dtype=torch.float64)
    found = []
    for queries, labels in zip(test_x.split(chunk), test_y.split(chunk), strict=True):
        similarity = functional.normalize(queries.float(), dim=1) @ gallery
        order = similarity.argsort(dim=1, descending=True, stable=True)
        relevant = train_y[order] == labels[:, None]
        precision = torch.where(relevant, relevant.cumsum(1) / rank, 0.0)
        found.append(precision.sum(1) / relevant.sum(1).clamp(min=1))
    return torch.cat(found)


def mean_average_precision(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, *, chunk: int = 256
) -> float:
    """Return the mean of :func:`average_precision` over the test clips, in percent."""
    return 100.0 * float(average_precision(train_x, train_y, test_x, test_y, chunk=chunk).mean())
