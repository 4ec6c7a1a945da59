"""Attention over the few visible tokens: the op, and its argument checks, registration and compiled back ends.

:mod:`.visible_attention` is the op; every other file is a part of it.
"""
