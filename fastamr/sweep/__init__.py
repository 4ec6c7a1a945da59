"""Several pre-training runs that differ in their seed or in a few settings: which ones, how they are made one after the
other or as an array of SLURM jobs, and how far each of them is."""

from .carry_out import Outcome, carry_out
from .plan import Member, parse_grid, plan_runs
from .slurm import array_script
from .state import RunState, state_of

__all__ = [
    "Member",
    "Outcome",
    "RunState",
    "array_script",
    "carry_out",
    "parse_grid",
    "plan_runs",
    "state_of",
]
