"""Sizes at which the benchmarks run in a moment."""

from __future__ import annotations

from typing import Any

import pytest

TINY: dict[str, Any] = {
    "frames": 24,
    "width": 16,
    "depth": 1,
    "heads": 2,
    "decoder_width": 16,
    "decoder_depth": 2,
    "decoder_heads": 2,
}


@pytest.fixture
def tiny() -> dict[str, Any]:
    """Settings of a tiny model."""
    return dict(TINY)


@pytest.fixture
def architecture() -> list[str]:
    """The same as command-line words."""
    return [
        word for name, value in TINY.items() for word in (f"--model.{name.replace('_', '-')}", str(value))
    ]
