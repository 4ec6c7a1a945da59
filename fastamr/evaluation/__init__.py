"""Evaluation: frozen features, nearest-neighbour and linear probes, and the baselines beside them."""

from .baselines import input_features, random_encoder, raw_features
from .features import extract_features
from .knn import knn_accuracy, knn_predict
from .linear_probe import LinearProbeResult, linear_probe, logistic_regression, standardize_features
from .protocols import compare, labelled_split, probe_features
from .table import format_table

__all__ = [
    "LinearProbeResult",
    "compare",
    "extract_features",
    "format_table",
    "input_features",
    "knn_accuracy",
    "knn_predict",
    "labelled_split",
    "linear_probe",
    "logistic_regression",
    "probe_features",
    "random_encoder",
    "raw_features",
    "standardize_features",
]
