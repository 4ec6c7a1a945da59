"""What attention over the visible tokens means, in plain PyTorch; dense attention has a file of its own."""
