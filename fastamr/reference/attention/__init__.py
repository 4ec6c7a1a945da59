"""What attention over the visible tokens means, in plain PyTorch: the op's forms, and dense attention in a file of its own."""
