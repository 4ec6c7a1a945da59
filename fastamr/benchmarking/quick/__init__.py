"""AMR against SkeletonMAE and against plain AMR on this machine, in less than two minutes.

``turns`` times the rungs that the answer needs until the time is up, ``report`` adds what a whole run of NTU RGB+D 60
would take here.
"""

from .report import as_text, projections, to_json
from .turns import QuickOptions, run_quick

__all__ = ["QuickOptions", "as_text", "projections", "run_quick", "to_json"]
