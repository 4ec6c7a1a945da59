"""What several readers share: the protocol, text, JSON, arrays and pickles without code, poses, choice of a layout.

Nothing here knows a format as a whole; :mod:`.unpickle` is the only place that looks into a pickle.
"""
