"""The compiled extension: how it is built (:mod:`.build`) and where a process gets it from (:mod:`.load`)."""

from .load import status, why_not

__all__ = ["status", "why_not"]
