"""Readers: one file a format, in folders by what they are made of; :mod:`.registry` lists them all.

What several of them need lies in :mod:`.common`, the protocol in :mod:`.common.reader`. A reader returns packed data or
refuses with the way on; it never guesses in silence and never runs code from a file.
"""

from __future__ import annotations

from .common.reader import Reader, Reading, Source
from .registry import register_reader

__all__ = ["Reader", "Reading", "Source", "register_reader"]
