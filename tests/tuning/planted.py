"""A worker of ``fastamr tune`` in which ``row_norm`` has five more back ends, four of them bad."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

from torch import Tensor

from fastamr import ops
from fastamr.ops.common import backends
from fastamr.ops.common.backends import _TABLE, Backend, can_always, choose, declare
from fastamr.ops.rows.checks import problem_of
from fastamr.tuning import worker

BAD = ("hangs", "aborts", "segfaults", "wrong")
_real = ops.row_norm
_FAULTS = {
    "hangs": lambda: time.sleep(3600),
    "aborts": os.abort,
    "segfaults": lambda: ctypes.string_at(0),
    "slow": lambda: time.sleep(0.02),
}


def row_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5) -> tuple[Tensor, ...]:
    """The op with faults: what the planted names compute is the reference's."""
    name = choose("row_norm", problem_of(x, rows=x.shape[0], width=x.shape[1]))
    _FAULTS.get(name, lambda: None)()
    normed, mean, rstd = _real(x, gamma, beta, eps)
    return normed * (1.001 if name == "wrong" else 1.0), mean, rstd


def plant(set_attribute: Any = setattr) -> None:
    """Put the planted names first in the op's list, where ``auto`` would take them."""
    set_attribute(backends, "NAMES", (*backends.NAMES, *BAD, "slow"))
    own = list(_TABLE["row_norm"].values())
    declare("row_norm", *(Backend(name, can_always) for name in (*BAD, "slow")), *own)


if __name__ == "__main__":
    plant()
    ops.row_norm = row_norm  # type: ignore[assignment]
    worker.main()
