"""Generated motion: actions, people who do them, and cameras; nothing here reads a file.

The numbers that a seed gives are part of the interface: tests, the demonstration and published figures rest on them.
"""
