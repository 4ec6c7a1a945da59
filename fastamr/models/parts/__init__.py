"""Parts that several models share: encoder, masking, mask tokens, pooling; and those of ASMa and of SLiM alone."""
