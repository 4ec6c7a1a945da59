"""A worker of ``fastamr tune`` for a CPU in which Triton's interpreter counts as a GPU, and the library is slow."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

from torch import Tensor

import fastamr.ops
from fastamr.ops.common.backends import _TABLE, declare
from fastamr.tuning import worker


def plant() -> None:
    """Let ``fastamr tune`` compare the kernel that takes four weights at once, also on a CPU."""
    own = _TABLE["weight_gradient"]
    reference = replace(own["reference"], is_baseline=True)  # faster than the interpreter at small sizes
    declare("weight_gradient", replace(own["triton"], automatic_on=None), own["torch"], reference)


if __name__ == "__main__":
    plant()
    module: Any = sys.modules[fastamr.ops.weight_gradient.__module__]
    library = module._library_product

    def slow(upstream: Tensor, x: Tensor, out: Tensor | None) -> Tensor:
        """The library's product, late."""
        time.sleep(0.5)
        return library(upstream, x, out)

    module._library_product = slow
    worker.main()
