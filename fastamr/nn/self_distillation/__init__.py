"""What a student needs that learns from a slow copy of itself: rotary SwiGLU blocks, a head of prototypes, the losses.

Only :mod:`fastamr.models.slim` uses them so far; the losses have a plain form in :mod:`fastamr.reference`.
"""
