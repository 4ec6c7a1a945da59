"""What every op needs and no op is: argument checks, choice of a back end, registration, precision, seeds, Triton."""
