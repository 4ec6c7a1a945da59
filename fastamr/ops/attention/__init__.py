"""Attention over the few visible tokens: the op, its checks, its registration and its compiled back ends."""
