"""The built-in skeleton layouts as plain text: trees, parts of the body, other names of joints, who uses them.

:mod:`fastamr.skeleton` makes :data:`~fastamr.skeleton.LAYOUTS` of it. ``names`` and ``bone_names`` tell what a joint's
name says, ``body`` which part and region of the body a joint is, ``file`` reads a layout from YAML or JSON. Nothing
here computes with coordinates.
"""

from .parts import PARTS
from .synonyms import SYNONYMS
from .trees import TREES

__all__ = ["PARTS", "SYNONYMS", "TREES"]
