"""Draw which residual branches each sequence keeps, in one launch: a program has the branches of one sequence.

Bit-identical to ``fastamr.reference.drop_path_scales``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, launch
from .philox import STREAM_DROP_PATH, philox_row


@triton.jit
def _drop_path_scales(
    seed,  # (2,) int64; SHIFTED: (3,) with the number of the first sequence
    table,  # (2, R) float64: bounds of the words, factors
    scales,  # (R, S) float32
    branches, sequences, SHIFTED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program a sequence; BLOCK >= R."""
    row = tl.program_id(0).to(tl.int64)
    branch = tl.arange(0, BLOCK)
    inside = branch < branches
    number = row
    if SHIFTED:
        number = row + tl.load(seed + 2)
    words = philox_row(seed, number, STREAM_DROP_PATH, BLOCK)
    bounds = tl.load(table + branch, mask=inside, other=0.0)
    factors = tl.load(table + branches + branch, mask=inside, other=0.0)
    values = tl.where(words.to(tl.float64) >= bounds, factors, 0.0).to(tl.float32)
    tl.store(scales + branch.to(tl.int64) * sequences + row, values, mask=inside)


def drop_path_scales(seed: Tensor, table: Tensor, sequences: int) -> Tensor:
    """``(R, S)`` float32 factors.

    Args:
        seed: ``(2,)`` or ``(3,)`` int64.
        table: ``(2, R)`` float64, of ``fastamr.reference.drop_path_scales.rate_table``.
        sequences: S.
    """
    branches = table.shape[1]
    scales = torch.empty((branches, sequences), dtype=torch.float32, device=seed.device)
    if branches == 0:
        return scales
    launch(
        _drop_path_scales,
        (sequences,),
        seed.device,
        Config({"BLOCK": max(triton.next_power_of_2(branches), 16)}, num_warps=1),
        seed=seed.contiguous(),
        table=table,
        scales=scales,
        branches=branches,
        sequences=sequences,
        SHIFTED=len(seed) == 3,
    )
    return scales
