"""``fastamr tune``: which back end of each op is right and fast on this device.

:mod:`.tune` asks worker processes (:mod:`.worker`, started by :mod:`.processes`), which check one back end each against
float64 and then time those that passed (:mod:`.clock`), and makes a record of it. :mod:`fastamr.ops.common.tuned` reads
the record.
"""

from .tune import TuneOptions, saved, tune

__all__ = ["TuneOptions", "saved", "tune"]
