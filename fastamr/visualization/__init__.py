"""Pictures of data, runs and results; matplotlib comes with ``pip install 'fastamr[viz]'``.

Nothing here computes what it shows, beyond what a model says of one clip; everything else imports no matplotlib.
"""

from .animation import draw_animation
from .clip import Clip, Overlay, find_clip, read_clip
from .comparison import Curve, draw_comparison
from .strip import draw_strip

__all__ = [
    "Clip",
    "Curve",
    "Overlay",
    "draw_animation",
    "draw_comparison",
    "draw_strip",
    "find_clip",
    "read_clip",
]
