"""Who else hears of a run beside ``metrics.jsonl``: TensorBoard, MLflow, Weights & Biases, and a class of one's own.

A tracker is a class with ``log(record)`` and ``close()``, see :class:`Tracker`. Nothing here knows what trains.
"""

from .choose import NAMES, check_names, check_trackers, wanted
from .delivery import Tracking
from .tracker import TrackedRun, Tracker, numbers

__all__ = ["NAMES", "TrackedRun", "Tracker", "Tracking", "check_names", "check_trackers", "numbers", "wanted"]
