"""The compiled extension: how it is built (:mod:`.build`) and where a process gets it from (:mod:`.load`).

The sources lie in ``csrc/``; :mod:`.build` runs without torch, since ``setup.py`` uses it too.
"""

from .load import has_matrix_unit, status, watch_mapping, why_not, without_compiling

__all__ = ["has_matrix_unit", "status", "watch_mapping", "why_not", "without_compiling"]
