"""One benchmark for each op, under the op's name."""
