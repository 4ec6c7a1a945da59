"""The audit of a data set: what is in it, what is wrong with it, and whether it leaks.

It reads packed data in blocks and changes nothing; findings have names that ``fastamr check --fail-on`` knows.
"""

from .leaks import Duplicates, find_duplicates
from .near import NearOptions, NearPairs, near_pairs
from .page import format_page
from .quality import Quality, QualityOptions, check_quality
from .report import KINDS, Finding, audit
from .text import format_audit

__all__ = [
    "KINDS",
    "Duplicates",
    "Finding",
    "NearOptions",
    "NearPairs",
    "Quality",
    "QualityOptions",
    "audit",
    "check_quality",
    "find_duplicates",
    "format_audit",
    "format_page",
    "near_pairs",
]
