"""A classifier from a frozen encoder: its features as they are, and a linear head fitted to them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.to_body import for_layout, source_layout
from ..errors import check_name
from ..features.extract import extract_features, model_channels
from ..models import ActionClassifier
from ..models.classifier import HEAD_BODIES
from ..probes.checks import check_features
from ..probes.linear_probe import feature_scaling, fit_logistic
from .finetune import count_classes, names_of, own_steps
from .training_data import describe_training

if TYPE_CHECKING:
    from ..data import PackedSkeletons
    from ..models import SkeletonModel

# The logit of a class that has no training clip: it is never predicted, and its soft label is 0.
_NEVER = -1e4


def fit_linear_head(
    train_x: Tensor, train_y: Tensor, classes: int, *, C: float = 1.0, max_iter: int = 1000
) -> tuple[Tensor, Tensor]:
    """Fit multinomial logistic regression (scikit-learn, L-BFGS) and return it as one linear layer.

    The features are scaled by their statistics for the fit, as in :func:`logistic_regression`; the scaling is folded
    into the layer, so that it takes the features as they are.

    Args:
        train_x: ``(N, D)`` features.
        train_y: ``(N,)`` int64 class indices, at least two different ones.
        classes: rows of the layer; a class without clips is never predicted.
        C: inverse strength of the L2 penalty (choice: 1).
        max_iter: bound of the iterations.

    Returns:
        Weight ``(classes, D)`` and bias ``(classes,)``, float32, on the device of the features.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: shapes that do not fit, one class only, a label beyond the classes, C not positive.
    """
    check_features(train_x, train_y, train_x)
    if int(train_y.max()) >= classes:
        raise ValueError(f"train_y holds class {int(train_y.max())}, expected 0 to {classes - 1}")
    mean, scale = (part.cpu() for part in feature_scaling(train_x))
    scaled = (train_x.detach().double().cpu() - mean) * scale
    fitted = fit_logistic(scaled.numpy(), train_y, C, max_iter)
    found, offset = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
    if len(fitted.classes_) == 2:
        # One row for two classes: that of the second, the first one's logit being 0.
        found = torch.cat([torch.zeros_like(found), found])
        offset = torch.cat([torch.zeros_like(offset), offset])
    weight = torch.zeros(classes, train_x.shape[1], dtype=torch.float64)
    bias = torch.full((classes,), _NEVER, dtype=torch.float64)
    rows = torch.from_numpy(fitted.classes_)
    weight[rows] = found * scale
    bias[rows] = offset - (found * scale) @ mean
    return weight.float().to(train_x.device), bias.float().to(train_x.device)


def linear_classifier(
    model: SkeletonModel,
    data: PackedSkeletons,
    train: Tensor,
    *,
    batch_size: int = 256,
    C: float = 1.0,
    pooling: str = "mean",
    bodies: str = "mean",
) -> ActionClassifier:
    """Return a classifier of a frozen copy of an encoder and a linear head fitted to the training clips' features.

    Args:
        model: the encoder; it is left as it is. The work is done on its device.
        data: packed data, pre-processed as for the pre-training.
        train: ``(N,)`` bool, the clips to fit the head to, all labelled.
        batch_size: body sequences encoded at a time.
        C: see :func:`fit_linear_head`.
        pooling: of the tokens, see :meth:`fastamr.models.SkeletonModel.features`.
        bodies: ``"mean"`` or ``"ordered"``, see :class:`fastamr.models.ActionClassifier`.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: data that the model does not fit, one class only, or a pooling that the model does not allow.
    """
    data = for_layout(data, model.layout, channels=model_channels(model))
    check_name("bodies", bodies, HEAD_BODIES)
    together = "ordered" if bodies == "ordered" else "existing"
    features = extract_features(model, data, batch_size=batch_size, pooling=pooling, bodies=together)
    mask = train.to(features.device)
    labels = data.labels.to(features.device)[mask]
    classes = count_classes(labels)
    weight, bias = fit_linear_head(features[mask], labels, classes, C=C)
    encoder = copy.deepcopy(model).requires_grad_(False)
    classifier = ActionClassifier(
        encoder,
        classes,
        pooling=pooling,
        bodies=bodies,
        hidden=0,
        dropout=0.0,
        drop_path=0.0,
        label_smoothing=0.0,
        class_names=names_of(data, classes),
        steps=own_steps(data),
        training_data=describe_training(data, train),
        source=source_layout(data),
    )
    classifier.head.load_state_dict({"0.weight": weight, "0.bias": bias})
    return classifier.eval()
