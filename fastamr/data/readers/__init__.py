"""Readers: one file per source, each with ``matches(keys)`` and ``read(path)``."""
