"""Sizes at which the benchmarks run in a moment."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastamr import devices
from fastamr.benchmarking import rungs

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
def every_16_bit_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that multiplies 16-bit values, without a matrix unit; a GPU that has bfloat16."""
    monkeypatch.setattr(devices, "processor_features", lambda: {"avx512_bf16": True, "avx512_fp16": True})
    monkeypatch.setattr(rungs, "processor_features", dict)
    monkeypatch.setattr(rungs.native, "has_matrix_unit", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)


@pytest.fixture
def architecture() -> list[str]:
    """The same as command-line words."""
    return [
        word for name, value in TINY.items() for word in (f"--model.{name.replace('_', '-')}", str(value))
    ]
