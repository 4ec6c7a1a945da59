"""What the ops on flat rows mean, in plain PyTorch: the truth that the ops and their tests compare with."""
