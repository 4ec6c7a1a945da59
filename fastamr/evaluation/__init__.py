"""Evaluation: ``fastamr evaluate``, its protocols and its reports.

Features, probes and fine-tuning have rooms of their own; their public names are handed on here.
"""

from ..features.baselines import input_features, random_encoder, raw_features
from ..features.extract import extract_features
from ..features.splits import labelled_split
from ..finetuning.finetune import FinetuneConfig, FinetuneResult, finetune
from ..probes.knn import knn_accuracy, knn_predict
from ..probes.linear_probe import LinearProbeResult, linear_probe, logistic_regression, standardize_features
from ..probes.retrieval import average_precision, mean_average_precision
from ..probes.semi_supervised import labelled_subset
from .protocols.detection import DetectionConfig, compare_detection
from .protocols.detection_metrics import Segment, frame_map, segment_map
from .protocols.frozen import compare, probe_features
from .protocols.fusion import EncodedStream, compare_streams, fuse_scores
from .protocols.supervised import compare_supervised
from .protocols.transfer import to_layout
from .report.comparison import compare_runs
from .report.table import format_table

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
