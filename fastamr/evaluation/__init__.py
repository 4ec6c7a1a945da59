"""Evaluation: frozen features and their probes, retrieval, fine-tuning, detection, and the baselines beside them."""

from .baselines import input_features, random_encoder, raw_features
from .comparison import compare_runs
from .detection import DetectionConfig, compare_detection
from .detection_metrics import Segment, frame_map, segment_map
from .features import extract_features
from .finetune import FinetuneConfig, FinetuneResult, finetune
from .fusion import EncodedStream, compare_streams, fuse_scores
from .knn import knn_accuracy, knn_predict
from .linear_probe import LinearProbeResult, linear_probe, logistic_regression, standardize_features
from .protocols import compare, labelled_split, probe_features
from .retrieval import average_precision, mean_average_precision
from .semi_supervised import labelled_subset
from .supervised import compare_supervised
from .table import format_table
from .transfer import to_layout

__all__ = [
    "DetectionConfig",
    "EncodedStream",
    "FinetuneConfig",
    "FinetuneResult",
    "LinearProbeResult",
    "Segment",
    "average_precision",
    "compare",
    "compare_detection",
    "compare_runs",
    "compare_streams",
    "compare_supervised",
    "extract_features",
    "finetune",
    "format_table",
    "frame_map",
    "fuse_scores",
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
    "segment_map",
    "standardize_features",
    "to_layout",
]
