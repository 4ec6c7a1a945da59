"""Parts that several models share: encoder, masking, mask tokens, pooling, and ASMa's back bones."""
