"""What attention over the visible tokens means, in plain PyTorch: the truth that the op and its tests compare with."""
