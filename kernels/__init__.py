"""Triton kernels and their launchers; the folder ships as ``fastamr.kernels``.

Nothing is imported here: the ops load a kernel's module when they run it, so that a machine without Triton can import
the package.
"""
