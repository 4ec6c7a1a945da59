"""Formats of optical motion capture: skeletons that move by their joints' angles, and markers on the skin."""
