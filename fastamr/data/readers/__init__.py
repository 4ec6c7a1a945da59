"""Readers: one file per format.

What several of them need lies in :mod:`.common`. A reader returns packed data or refuses with the way on; it never
guesses in silence and never runs code from a file.
"""
