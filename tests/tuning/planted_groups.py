"""A worker of ``fastamr tune`` for a CPU in which Triton's interpreter counts as a GPU, and the library is slow.

Asked for blocks, its kernels choose by a clock on which every candidate is faster than the one before it.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
import triton
from fastamr.kernels import launch
from torch import Tensor

import fastamr.ops
from fastamr.ops.common.backends import _TABLE, declare
from fastamr.tuning import worker


def plant() -> None:
    """Let ``fastamr tune`` compare the kernel that takes four weights at once, also on a CPU."""
    own = _TABLE["weight_gradient"]
    reference = replace(own["reference"], is_baseline=True)  # faster than the interpreter at small sizes
    declare("weight_gradient", replace(own["triton"], automatic_on=None), own["torch"], reference)


def choose_the_last() -> None:
    """Time blocks as on a GPU: the last candidate wins."""
    clock = itertools.count(1000, -1)

    def bench(function: Callable[[], object]) -> int:
        function()
        return next(clock)

    triton.testing.do_bench = bench
    launch._tuning = lambda device: True
    torch.cuda.get_device_capability = lambda device=None: (9, 0)
    torch.cuda.device = lambda device: nullcontext()  # type: ignore[assignment, misc]


if __name__ == "__main__":
    plant()
    if os.environ["FASTAMR_AUTOTUNE"] == "1":
        choose_the_last()
    module: Any = sys.modules[fastamr.ops.weight_gradient.__module__]
    library = module._library_product

    def slow(upstream: Tensor, x: Tensor, out: Tensor | None) -> Tensor:
        """The library's product, late."""
        time.sleep(0.5)
        return library(upstream, x, out)

    module._library_product = slow
    worker.main()
