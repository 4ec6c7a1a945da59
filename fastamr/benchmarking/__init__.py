"""Benchmarks: the ladder of training steps, the whole recipe, the profile of a step, and how its cost grows.

``fastamr bench`` and ``pytest benchmarks/ --benchmark-only`` both run what is here.
"""

from ..training.update.profiling import Profile
from .ladder import Ladder, LadderOptions, run_ladder
from .nodes import NodeCount, count_nodes
from .ntu_sized import PRESETS, ntu_sized
from .profiling import profile_step
from .recipe import RecipeOptions, run_recipe
from .rungs import RUNGS, Rung
from .scaling import Scaling, ScalingOptions, run_scaling
from .step import FastStep

__all__ = [
    "PRESETS",
    "RUNGS",
    "FastStep",
    "Ladder",
    "LadderOptions",
    "NodeCount",
    "Profile",
    "RecipeOptions",
    "Rung",
    "Scaling",
    "ScalingOptions",
    "count_nodes",
    "ntu_sized",
    "profile_step",
    "run_ladder",
    "run_recipe",
    "run_scaling",
]
