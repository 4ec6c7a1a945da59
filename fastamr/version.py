"""The version of the package; ``pyproject.toml`` names the same."""

__version__ = "0.2.0"
