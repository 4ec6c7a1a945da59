"""The example does what it says: somebody else's model trains with the drop-in modules, on kernels too."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

import fastamr

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def plain_mae() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plain_mae", ROOT / "examples" / "plain_mae.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_plain_mae_learns(plain_mae: ModuleType) -> None:
    losses = plain_mae.train(30, "cpu")
    assert sum(losses[-10:]) / 10 < 0.9 * losses[0]


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="on a GPU machine Triton compiles and takes no CPU tensors"
)
def test_plain_mae_takes_the_same_steps_on_the_kernels(plain_mae: ModuleType) -> None:
    torch.manual_seed(0)
    expected = plain_mae.train(3, "cpu", batch=4)
    torch.manual_seed(0)
    with fastamr.backend("triton"):
        found = plain_mae.train(3, "cpu", batch=4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
