"""What the ops on flat rows mean, in plain PyTorch: a file for each op of :mod:`fastamr.ops.rows`."""
