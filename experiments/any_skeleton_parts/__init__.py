"""The parts of experiments/any_skeleton.py: sets, runs, encoders and tables, one module each."""
