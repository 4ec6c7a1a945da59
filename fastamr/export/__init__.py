"""Trained models in use: files for other runtimes, and actions named in skeleton files and streams.

What a written file expects of its input stands in its metadata (:mod:`.description`); older files rely on it.
"""

from .onnx_file import OnnxModel, export_onnx
from .predictor import Answer, Predictor, load_predictor
from .program import export_program
from .stream import StreamReader, predict_stream

__all__ = [
    "Answer",
    "OnnxModel",
    "Predictor",
    "StreamReader",
    "export_onnx",
    "export_program",
    "load_predictor",
    "predict_stream",
]
