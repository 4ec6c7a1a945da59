"""How many nodes the CUDA graph of an update has, counted without a GPU: :mod:`.rules` counts, :mod:`.trace` lists."""

from .rules import NodeCount
from .trace import count_classifier_nodes, count_nodes

__all__ = ["NodeCount", "count_classifier_nodes", "count_nodes"]
