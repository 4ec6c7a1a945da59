"""The built-in skeleton layouts as plain text: trees, parts of the body, other names of joints, who uses them.

:mod:`fastamr.skeleton` makes :data:`~fastamr.skeleton.LAYOUTS` of it. Nothing here computes with coordinates.
"""

from .parts import PARTS
from .trees import TREES

__all__ = ["PARTS", "TREES"]
