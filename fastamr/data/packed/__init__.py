"""The packed format: clips of any length in flat tensors, their file, their checks, and what is said of them.

:mod:`.dataset` holds :class:`PackedSkeletons`; everything else in ``data`` makes one, changes one or
reads one. A change of the file's format starts in :mod:`.file` and needs a reader for older files.
"""
