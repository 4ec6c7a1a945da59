"""Data sets of many raw files, read in parallel by ``fastamr prepare``, and what only they need: bodies, protocols.

A reader here is a frozen dataclass (see :class:`.raw.RawReader`), because it is sent to worker processes.
"""
