"""Pictures of runs and results; matplotlib comes with ``pip install 'fastamr[viz]'``."""

from .comparison import Curve, draw_comparison

__all__ = ["Curve", "draw_comparison"]
