"""What every op needs and no op is: checks, the choice of a back end, precision, seeds, support for Triton."""
