"""A stack of blocks as one autograd function, beside the blocks that it stands for.

:mod:`.transformer_stack` chooses the path; :mod:`.functions` and :mod:`.layers` are the fused one; parameters are the
blocks' own, so that a ``state_dict`` does not depend on the path.
"""
