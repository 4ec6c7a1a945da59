"""Nearest-neighbour probes: cosine similarity, one neighbour or a weighted vote of several."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .checks import check_features, percent_equal


def knn_predict(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    k: int = 1,
    **settings: Any,
) -> Tensor:
    """Return the class that the nearest training clips vote for, see :func:`knn_scores`.

    A draw between classes goes to the lower class index.

    Returns:
        ``(M,)`` int64 predicted classes, on the device of the features.

    Raises:
        ValueError: as :func:`knn_scores`.
    """
    return knn_scores(train_x, train_y, test_x, k, **settings).argmax(1)


def knn_scores(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    k: int = 20,
    *,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> Tensor:
    """Return each class's share of the nearest training clips' votes.

    Each of the ``k`` most similar training clips votes with weight ``exp(similarity / temperature)`` (Wu et
    al. 2018, temperature 0.07).

    Args:
        train_x: ``(N, D)`` features of the training clips.
        train_y: ``(N,)`` int64 class indices; classes may be missing.
        test_x: ``(M, D)`` features of the test clips.
        k: neighbours that vote; more than ``N`` means all of them.
        temperature: of the vote's weights.
        chunk: test clips compared at a time, so that memory stays at ``chunk * N`` similarities.

    Returns:
        ``(M, classes)`` float32, rows that sum to 1, on the device of the features.

    Raises:
        ValueError: shapes that do not fit, no training clip, features that are not finite, k or temperature
            not positive.
    """
    check_features(train_x, train_y, test_x)
    if k < 1:
        raise ValueError(f"k={k} must be at least 1 neighbour")
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be positive, for example 0.07")
    train_y = train_y.to(train_x.device)
    bank = functional.normalize(train_x.float(), dim=1).T.contiguous()
    classes = int(train_y.max()) + 1
    found = []
    for queries in test_x.split(chunk):
        similarity = functional.normalize(queries.float(), dim=1) @ bank
        nearest, index = similarity.topk(min(k, bank.shape[1]), dim=1)
        # The largest weight is set to 1: votes compare the same and cannot overflow at a low temperature.
        weight = ((nearest - nearest[:, :1]) / temperature).exp()
        votes = weight.new_zeros(len(queries), classes).scatter_add_(1, train_y[index], weight)
        found.append(votes / votes.sum(1, keepdim=True))
    return torch.cat(found) if found else bank.new_empty(0, classes)


def knn_accuracy(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    k: int = 1,
    **settings: Any,
) -> float:
    """Return the accuracy of :func:`knn_predict` in percent.

    Args:
        train_x: ``(N, D)`` features of the training clips.
        train_y: ``(N,)`` int64 class indices.
        test_x: ``(M, D)`` features of the test clips.
        test_y: ``(M,)`` int64 class indices; a class without training clips counts as wrong.
        k: neighbours that vote.
        settings: ``temperature`` and ``chunk``, see :func:`knn_scores`.

    Raises:
        ValueError: as :func:`knn_scores`; also no test clip.
    """
    check_features(train_x, train_y, test_x, test_y)
    return percent_equal(knn_predict(train_x, train_y, test_x, k, **settings), test_y)
