"""Whether Triton kernels can run here."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace

import torch

from .backends import Backend, Problem

# Read once: torch.compile cannot trace a search for packages or a look at the environment.
_INSTALLED = importlib.util.find_spec("triton") is not None
_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def triton_why_not(problem: Problem) -> str | None:
    """Why the Triton kernels cannot run a call, or None if they can."""
    if not _INSTALLED:
        return "Triton is not installed: pip install 'fastamr[triton]'"
    if problem.device_type == "cpu" and not _INTERPRETED:
        return (
            "Triton needs a GPU (with TRITON_INTERPRET=1 its interpreter runs the kernels on a CPU, slowly)"
        )
    if problem.device_type not in ("cpu", "cuda"):
        return f"the kernels are written for CUDA, the tensors are on {problem.device_type!r}"
    if problem.dtype not in _DTYPES:
        return (
            f"the kernels compute in float32; {str(problem.dtype).removeprefix('torch.')} takes the reference"
        )
    if problem.refusals:
        return f"the kernels do not cover {' and '.join(problem.refusals)}"
    return None


# The interpreter is for tests: on a CPU the kernels run only when named.
TRITON = Backend("triton", triton_why_not, automatic_on=("cuda",))


def _products_slower_because(problem: Problem) -> str | None:
    if problem.dtype == torch.float32:
        return "exact float32 products are the library's ground: the kernels' win is on tensor cores"
    return None


# Kernels with a matrix product inside: only fastamr tune puts them before the library's products.
TRITON_PRODUCTS = Backend(
    "triton", triton_why_not, automatic_on=("cuda",), slower_because=_products_slower_because
)


def _rows_why_not(problem: Problem) -> str | None:
    """Why a kernel cannot pass over rows that a library's product made; what its own product refuses is no reason."""
    if problem.sizes.get("width", 0) > MOST_ROW_WIDTH:
        return f"its pass covers rows of up to {MOST_ROW_WIDTH} values, not {problem.sizes['width']}"
    return triton_why_not(replace(problem, refusals=()))


# The widest row that the kernels over finished rows hold in registers.
MOST_ROW_WIDTH = 4096

# PyTorch's product, and one Triton kernel that passes over it.
TORCH_PRODUCTS = Backend(
    "torch", _rows_why_not, automatic_on=("cuda",), slower_because=_products_slower_because
)

# A Triton kernel over whole rows without a product.
TRITON_ROWS = Backend("triton", _rows_why_not, automatic_on=("cuda",))
