"""Probes of features ``(N, D)``: nearest neighbours, linear, retrieval, and subsets of labels.

They see tensors, not clips and not models; protocols that combine them live in :mod:`fastamr.evaluation.protocols`.
"""

from .knn import knn_accuracy, knn_predict
from .linear_probe import LinearProbeResult, linear_probe, logistic_regression, standardize_features
from .retrieval import average_precision, mean_average_precision
from .semi_supervised import labelled_subset

__all__ = [
    "LinearProbeResult",
    "average_precision",
    "knn_accuracy",
    "knn_predict",
    "labelled_subset",
    "linear_probe",
    "logistic_regression",
    "mean_average_precision",
    "standardize_features",
]
