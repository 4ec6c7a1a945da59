"""Formats of the tools that estimate poses: frames of people, in one document or in a folder with a file a frame.

A format is a :class:`~.tool.Tool` (how a person is recognised and read); :mod:`.frames` finds the frames of a document,
:mod:`.numbering` numbers them, :mod:`.points` reads key points in any spelling, :mod:`.people` packs what was found.
"""
