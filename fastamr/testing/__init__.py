"""What tests, benchmarks, tools and ``fastamr tune`` share: comparers, random clips, the table of the ops' cases.

Other product code imports nothing from here.
"""

from ..data.synthetic.random_clips import random_clips
from .comparers import assert_as_good_as, relative_error

__all__ = ["assert_as_good_as", "random_clips", "relative_error"]
