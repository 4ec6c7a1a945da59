"""Evaluation: frozen features and their probes, retrieval, fine-tuning, and the baselines beside them."""

from .baselines import input_features, random_encoder, raw_features
from .features import extract_features
from .finetune import FinetuneConfig, FinetuneResult, finetune
from .knn import knn_accuracy, knn_predict
from .linear_probe import LinearProbeResult, linear_probe, logistic_regression, standardize_features
from .protocols import compare, labelled_split, probe_features
from .retrieval import average_precision, mean_average_precision
from .semi_supervised import labelled_subset
from .supervised import compare_supervised
from .table import format_table

__all__ = [
    "FinetuneConfig",
    "FinetuneResult",
    "LinearProbeResult",
    "average_precision",
    "compare",
    "compare_supervised",
    "extract_features",
    "finetune",
    "format_table",
    "input_features",
    "knn_accuracy",
    "knn_predict",
    "labelled_split",
    "labelled_subset",
    "linear_probe",
    "logistic_regression",
    "mean_average_precision",
    "probe_features",
    "random_encoder",
    "raw_features",
    "standardize_features",
]
