"""What the ops on flat rows mean, in plain PyTorch."""
