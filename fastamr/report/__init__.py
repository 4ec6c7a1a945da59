"""The page of ``fastamr report``: what runs and benchmarks have left in files, read with care and put side by side.

``inputs`` finds out what a path is, ``runs`` and ``results`` read it, ``noise`` tells a difference from chance,
``charts`` and ``pictures`` draw, and ``run_parts``, ``result_parts`` and ``page`` say what stands on the page.
"""

from .page import ReportOptions, build_report

__all__ = ["ReportOptions", "build_report"]
