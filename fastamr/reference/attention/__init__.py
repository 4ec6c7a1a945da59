"""What attention over the visible tokens means, in plain PyTorch."""
