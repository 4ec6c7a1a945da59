"""Numbers that stand for frames: steps between frame numbers, and times of day, dates and Unix times in names.

Nothing here knows a format or a pose; the readers' common parts build clips from what is told here.
"""
