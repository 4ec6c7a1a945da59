"""What several readers share: text, JSON, arrays and pickles without code, bodies, poses, and the choice of a layout.

Nothing here knows a format as a whole; :mod:`.unpickle` is the only place that looks into a pickle.
"""
