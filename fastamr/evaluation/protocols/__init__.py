"""The protocols of ``fastamr evaluate``, one file each: frozen, supervised, transfer, fusion and detection.

A protocol turns data and a model into scores; what is written and printed is :mod:`fastamr.evaluation.report`'s matter.
"""
