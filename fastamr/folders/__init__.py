"""Folders that runs, classifiers and evaluations write into: one writer at a time, and a list of what was written."""

from .lock import FolderLock
from .manifest import MANIFEST, note_written, remove_written, written

__all__ = ["MANIFEST", "FolderLock", "note_written", "remove_written", "written"]
