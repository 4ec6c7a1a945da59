"""Frozen features: extraction, cache, windows over streams, and the baselines beside an encoder's.

It stands below everything that uses features (probes, fine-tuning, evaluation, export) and imports none of them.
"""

from .baselines import input_features, random_encoder, raw_features
from .extract import extract_features
from .splits import labelled_split

__all__ = [
    "extract_features",
    "input_features",
    "labelled_split",
    "random_encoder",
    "raw_features",
]
