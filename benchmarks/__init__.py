"""Benchmarks; run with ``pytest benchmarks/ --benchmark-only``."""

from fastamr.host import share_cpus

share_cpus()  # as fastamr's commands do; before torch is imported
