"""The precision that a training step computes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float16")


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype that autocast computes in; float32 means no autocast.

    Args:
        precision: ``auto`` (bfloat16 on GPUs that have it, float32 elsewhere), ``float32``, ``tf32`` (float32 too, see
            :func:`matmul_precision_of`), ``bfloat16``, ``float16``.
        device: where the model is.
    """
    if precision == "auto":
        supported = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if supported else torch.float32
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision, torch.float32)


def precision_name(precision: str, device: torch.device) -> str:
    """Return what ``auto`` means on a device, and every other precision as it is; see :func:`autocast_dtype`."""
    return str(autocast_dtype("auto", device)).removeprefix("torch.") if precision == "auto" else precision


def matmul_precision_of(precision: str) -> str | None:
    """How products of float32 matrices are computed, in the words of ``torch.set_float32_matmul_precision``.

    Args:
        precision: as for :func:`autocast_dtype`.

    Returns:
        ``high`` for ``tf32``: TF32 on a GPU, sums of two bfloat16 values on a CPU's matrix unit; else None, which
        leaves the process's setting (PyTorch's default is ``highest``).
    """
    return "high" if precision == "tf32" else None


@contextmanager
def matmul_precision(name: str | None) -> Iterator[None]:
    """Set ``torch.set_float32_matmul_precision`` inside a ``with`` block; None leaves it."""
    if name is None:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
