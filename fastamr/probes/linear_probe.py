"""Linear probes of frozen features: one layer trained by SGD (AMR's protocol), and logistic regression."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .checks import check_features, percent_equal

# Updates of AMR's linear protocol on NTU-60 xsub: 100 epochs of 40,091 training clips in batches of 256.
NTU_UPDATES = 15_700
# Rows that are scaled at a time.
_ROWS = 4096


class LinearProbeResult(NamedTuple):
    """What a linear probe reached.

    Attributes:
        accuracy: percent on the test clips after the last epoch: the result.
        best_accuracy: percent at the best epoch. It is chosen on the test clips, so it is no result.
        best_epoch: that epoch, counted from 1.
        train_loss: mean cross-entropy of the last epoch, nats.
        predicted: the class of each test clip after the last epoch.
    """

    accuracy: float
    best_accuracy: float
    best_epoch: int
    train_loss: float
    predicted: tuple[int, ...]


class LinearFit(NamedTuple):
    """One linear layer trained on features.

    Attributes:
        weight: ``(classes, D)`` float32.
        bias: ``(classes,)`` float32.
        train_loss: mean cross-entropy of the last epoch, nats.
    """

    weight: Tensor
    bias: Tensor
    train_loss: float

    def scores(self, x: Tensor) -> Tensor:
        """Return the probability of each class ``(M, classes)`` for features ``(M, D)``."""
        return functional.linear(x.float(), self.weight, self.bias).softmax(1)


def standardize_features(train_x: Tensor, *others: Tensor, floor: float = 1e-6) -> tuple[Tensor, ...]:
    """Scale features by the training clips' mean and standard deviation per dimension.

    Args:
        train_x: ``(N, D)``.
        others: more features ``(M, D)``, scaled alike.
        floor: a dimension whose deviation is below this share of the largest one is constant but for
            rounding, and becomes 0 everywhere (choice).

    Returns:
        ``train_x`` and the others, float32.
    """
    mean, scale = feature_scaling(train_x, floor)
    return tuple(
        # A few rows at a time: thousands of values of each of many clips are large in float64.
        torch.cat([((rows.double() - mean) * scale).float() for rows in x.split(_ROWS)])
        for x in (train_x, *others)
    )


def feature_scaling(train_x: Tensor, floor: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Return mean and inverse standard deviation of each dimension, both ``(D,)`` float64.

    Args:
        train_x: ``(N, D)``.
        floor: as of :func:`standardize_features`; a constant dimension has the inverse 0.
    """
    exact = train_x.double()
    mean, deviation = exact.mean(0), exact.var(0, correction=0).sqrt()
    constant = deviation <= floor * deviation.max()
    return mean, torch.where(constant, 0.0, 1 / deviation)


def linear_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    standardize: bool = False,
    **settings: Any,
) -> LinearProbeResult:
    """Train one linear layer on frozen features (AMR's protocol) and test it after the last epoch.

    SGD with momentum 0.9, 100 epochs, batch 256, learning rate 0.01 falling to 0 by a cosine. MAMP's protocol
    is ``batch_size=128, lr=0.1``. Choices: the cosine falls with every update; the weights start normal with
    standard deviation 0.01, the bias 0 (MAE's); no weight decay; the last, smaller batch of an epoch is used.

    Args:
        train_x: ``(N, D)`` features of the training clips.
        train_y: ``(N,)`` int64 class indices.
        test_x: ``(M, D)`` features of the test clips.
        test_y: ``(M,)`` int64 class indices; a class without training clips counts as wrong.
        standardize: scale the features by the training clips' statistics first (MAE puts a BatchNorm without
            affine there). Choice: off, the features as they are; with few updates on small features the layer
            is then far from converged, which is the protocol's, not the encoder's, limit.
        settings: options of :func:`fit_linear`: ``epochs``, ``batch_size``, ``lr``, ``momentum``, ``weight_decay``,
            ``min_updates`` and ``seed``.

    Raises:
        ValueError: shapes that do not fit, an empty set, features that are not finite, a setting out of
            range.
    """
    check_features(train_x, train_y, test_x, test_y)
    scaled = standardize_features(train_x, test_x) if standardize else (train_x.float(), test_x.float())
    train_x, test_x = scaled
    test_y = test_y.to(train_x.device)
    curve: list[float] = []
    predicted = train_y.new_empty(0)

    def test(weight: Tensor, bias: Tensor) -> None:
        nonlocal predicted
        predicted = functional.linear(test_x, weight, bias).argmax(1)
        curve.append(percent_equal(predicted, test_y))

    fit = fit_linear(train_x, train_y, after_epoch=test, **settings)
    best = max(range(len(curve)), key=curve.__getitem__)
    return LinearProbeResult(curve[-1], curve[best], best + 1, fit.train_loss, tuple(predicted.tolist()))


def fit_linear(
    train_x: Tensor,
    train_y: Tensor,
    *,
    epochs: int = 100,
    batch_size: int = 256,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    min_updates: int = 0,
    seed: int = 0,
    after_epoch: Callable[[Tensor, Tensor], None] | None = None,
) -> LinearFit:
    """Train one linear layer on frozen features; :func:`linear_probe` says how.

    Args:
        train_x: ``(N, D)`` features of the training clips.
        train_y: ``(N,)`` int64 class indices; there are as many classes as the largest one plus 1.
        epochs: passes over the training clips.
        batch_size: clips in an update.
        lr: learning rate of the first update.
        momentum: of SGD.
        weight_decay: of SGD.
        min_updates: more epochs than ``epochs``, and the cosine with them, where these have fewer updates. 100 epochs
            of NTU-60 have :data:`NTU_UPDATES`, of a thousand clips 400 only. Choice: 0, the epochs decide.
        seed: fixes the first weights and the order of the clips.
        after_epoch: called with weight and bias after every epoch, without autograd.

    Raises:
        ValueError: shapes that do not fit, an empty set, features that are not finite, a setting out of
            range.
    """
    check_features(train_x, train_y, train_x[:0])
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("lr", lr)):
        if value <= 0:
            raise ValueError(f"{name}={value} must be positive")
    if min_updates < 0:
        raise ValueError(f"min_updates={min_updates} must be 0 (the epochs decide) or more")
    # A copy made outside inference mode, so that autograd may save it.
    train_x = train_x.float().detach().clone()
    train_y = train_y.to(train_x.device)
    generator = torch.Generator().manual_seed(seed)
    classes = int(train_y.max()) + 1
    weight = (
        (0.01 * torch.randn(classes, train_x.shape[1], generator=generator))
        .to(train_x.device)
        .requires_grad_()
    )
    bias = torch.zeros(classes, device=train_x.device, requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr=lr, momentum=momentum, weight_decay=weight_decay)
    per_epoch = math.ceil(len(train_x) / batch_size)
    epochs = max(epochs, math.ceil(min_updates / per_epoch))
    total = epochs * per_epoch
    update, loss_sum = 0, train_x.new_zeros(())
    for _ in range(epochs):
        loss_sum = train_x.new_zeros(())
        for rows in torch.randperm(len(train_x), generator=generator).to(train_x.device).split(batch_size):
            optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * update / total))
            loss = functional.cross_entropy(functional.linear(train_x[rows], weight, bias), train_y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(rows)
            update += 1
        if after_epoch is not None:
            with torch.no_grad():
                after_epoch(weight, bias)
    return LinearFit(weight.detach(), bias.detach(), float(loss_sum) / len(train_x))


def logistic_regression(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    **settings: Any,
) -> float:
    """Return the test accuracy of :func:`logistic_scores`, which takes the ``settings``, in percent.

    Args:
        train_x: ``(N, D)`` features of the training clips.
        train_y: ``(N,)`` int64 class indices, at least two classes.
        test_x: ``(M, D)`` features of the test clips.
        test_y: ``(M,)`` int64 class indices.
        settings: ``C``, ``standardize`` and ``max_iter``.

    Raises:
        ImportError, ValueError: as :func:`logistic_scores`; also no test clip.
    """
    check_features(train_x, train_y, test_x, test_y)
    scores = logistic_scores(train_x, train_y, test_x, **settings)
    return percent_equal(scores.argmax(1), test_y.cpu())


def logistic_scores(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    *,
    C: float = 1.0,
    standardize: bool = True,
    max_iter: int = 1000,
) -> Tensor:
    """Return the class probabilities of multinomial logistic regression (scikit-learn, L-BFGS).

    Unlike :func:`linear_probe` it adapts to the scale of the features and depends on no seed. It stops at
    scikit-learn's default tolerance (1e-4), shortly before the optimum, so a build of another BLAS may move a
    clip or two.

    Args:
        train_x: ``(N, D)`` features of the training clips.
        train_y: ``(N,)`` int64 class indices, at least two classes.
        test_x: ``(M, D)`` features of the test clips.
        C: inverse strength of the L2 penalty. Choice: 1.
        standardize: scale the features by the training clips' statistics first. Choice: on, so that the
            penalty means the same for every encoder.
        max_iter: bound of the iterations.

    Returns:
        ``(M, classes)`` float64 on the CPU, 0 for classes without a training clip.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: shapes that do not fit, an empty set, one class only, C not positive.
    """
    check_features(train_x, train_y, test_x)
    scaled = standardize_features(train_x, test_x) if standardize else (train_x, test_x)
    train, test = (x.detach().double().cpu().numpy() for x in scaled)
    fitted = fit_logistic(train, train_y, C, max_iter)
    scores = torch.zeros(len(test), int(train_y.max()) + 1, dtype=torch.float64)
    scores[:, torch.from_numpy(fitted.classes_)] = torch.from_numpy(fitted.predict_proba(test))
    return scores


def fit_logistic(train_x: np.ndarray, train_y: Tensor, C: float, max_iter: int) -> Any:
    """Return scikit-learn's logistic regression fitted to features ``(N, D)`` float64.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: one class only, C not positive.
    """
    if C <= 0:
        raise ValueError(f"C={C} must be positive, for example 1.0")
    if len(train_y.unique()) < 2:
        raise ValueError(f"train_y holds only class {int(train_y[0])}, expected at least two classes")
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError("logistic regression needs scikit-learn: pip install 'fastamr[eval]'") from error
    return LogisticRegression(C=C, max_iter=max_iter).fit(train_x, train_y.cpu().numpy())
