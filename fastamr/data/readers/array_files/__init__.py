"""Formats of arrays: npz archives and pickles. Pickles are interpreted, never unpickled."""
