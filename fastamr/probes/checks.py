"""Checks that all probes share."""

from __future__ import annotations

import torch
from torch import Tensor


def check_features(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor | None = None) -> None:
    """Raise unless features and labels fit together.

    Args:
        train_x: ``(N, D)`` floating point and finite, N at least 1.
        train_y: ``(N,)`` class indices from 0.
        test_x: ``(M, D)`` floating point and finite.
        test_y: ``(M,)`` class indices from 0, M at least 1; None = there are none to compare with.

    Raises:
        ValueError: naming the argument, what it is and what is expected.
    """
    for name, value in (("train_x", train_x), ("test_x", test_x)):
        if value.ndim != 2 or value.shape[1] != train_x.shape[-1]:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, expected (clips, D) with one D for training and test"
            )
        if not bool(torch.isfinite(value).all()):
            clip = int((~torch.isfinite(value)).any(1).nonzero()[0])
            raise ValueError(
                f"{name} is not finite in row {clip}: check this clip's coordinates and the weights"
            )
    if len(train_x) == 0:
        raise ValueError("train_x holds no clip, expected at least one")
    if test_y is not None and len(test_y) == 0:
        raise ValueError("test_y holds no clip, expected at least one")
    for name, labels, features in (("train_y", train_y, train_x), ("test_y", test_y, test_x)):
        if labels is None:
            continue
        if labels.shape != (len(features),):
            raise ValueError(
                f"{name} has shape {tuple(labels.shape)}, expected ({len(features)},): one label a clip"
            )
        if labels.is_floating_point() or bool((labels < 0).any()):
            raise ValueError(
                f"{name} holds {labels.min().item()}, expected class indices from 0: remove unlabelled clips"
            )


def percent_equal(predicted: Tensor, labels: Tensor) -> float:
    """Return the share of equal entries, in percent."""
    return 100.0 * float((predicted == labels.to(predicted.device)).double().mean())
