"""From a data set's raw files to one packed file: in parallel, in bounded memory, continued where it stopped.

:mod:`.prepare` is the run, :mod:`.work_folder` its finished blocks on disk; what a raw file means is a reader's matter.
"""

from __future__ import annotations

from ..readers.raw_sets.bodies import BodyChoice
from .prepare import prepare

__all__ = ["BodyChoice", "prepare"]
