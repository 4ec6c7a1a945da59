"""What people add to data that has none: labels, subjects and splits, from folders, tables or by a rule.

:mod:`.labels` gives clips their classes, :mod:`.table` reads the table that says so, :mod:`.splits` parts the clips.
"""
