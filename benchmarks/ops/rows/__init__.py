"""Benchmarks of the ops on flat rows, each under the op's name."""
