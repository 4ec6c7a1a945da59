"""Pre-processing: named steps from packed data to packed data, and the recipes made of them.

:mod:`.apply` parses and runs steps; geometry, time and streams hold them. A new step is a class in one of these three
and a line in :mod:`.apply`; a step that exists keeps its meaning, since files and runs name it.
"""
