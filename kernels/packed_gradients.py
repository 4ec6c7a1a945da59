"""Gradients of attention's inputs, written side by side as a packed projection's, with their column sums.

A program takes one input's rows and owns all its heads, so that a column's partial sum is written once; the parts are
added by a second launch, in a fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from .columns import Columns, Parts
from .launch import Config, launch


@triton.jit
def _copy_rows(
    source, target, row, rows, tokens, source_s, source_h, source_n, target_s, target_n, total,
    width: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Copy ROWS rows from ``(S, H, N, E)`` to ``(S, N, H*E)``; the sums so far with those of the rows."""
    line, column = row + tl.arange(0, ROWS), tl.arange(0, PADDED)
    mask = (line < rows)[:, None] & (column < width)[None, :]
    sequence, token = (line // tokens).to(tl.int64)[:, None], (line % tokens).to(tl.int64)[:, None]
    head, place = (column // SIZE)[None, :], (column % SIZE)[None, :]
    values = tl.load(
        source + sequence * source_s + head * source_h + token * source_n + place, mask=mask, other=0.0
    )
    tl.store(target + sequence * target_s + token * target_n + column[None, :], values, mask=mask)
    return total + values.to(tl.float32)


@triton.jit
def _packed_gradients(
    # Of each input (S, H, N, E): pointer and strides over S, H, N; those that are not there repeat the first.
    source0, source0_s, source0_h, source0_n,
    source1, source1_s, source1_h, source1_n,
    source2, source2_s, source2_h, source2_n,
    target,  # (S, N, P, H, E), strides over S, N, P; H and E are one contiguous row
    target_s, target_n, target_p,
    sums,  # (programs, P, H*E) float32
    rows,  # S*N
    tokens,  # N
    width: tl.constexpr, SIZE: tl.constexpr, SHARE: tl.constexpr, ROWS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """One program: SHARE rows of one input. Rows outside are 0 and add nothing."""
    part = tl.program_id(1)
    place = target + part.to(tl.int64) * target_p
    total = tl.zeros((ROWS, PADDED), tl.float32)
    for start in tl.range(0, SHARE, ROWS):
        row = tl.program_id(0) * SHARE + start
        if part == 0:
            total = _copy_rows(source0, place, row, rows, tokens, source0_s, source0_h, source0_n,
                               target_s, target_n, total, width, SIZE, ROWS, PADDED)  # fmt: skip
        elif part == 1:
            total = _copy_rows(source1, place, row, rows, tokens, source1_s, source1_h, source1_n,
                               target_s, target_n, total, width, SIZE, ROWS, PADDED)  # fmt: skip
        else:
            total = _copy_rows(source2, place, row, rows, tokens, source2_s, source2_h, source2_n,
                               target_s, target_n, total, width, SIZE, ROWS, PADDED)  # fmt: skip
    column = tl.arange(0, PADDED)
    line = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + part
    tl.store(sums + line * width + column, tl.sum(total, 0), mask=column < width)


# Inputs of one launch, values of a tile, its most rows, rows of a program.
_MOST, _NUMBERS, _TALLEST, _SHARE = 3, 2048, 16, 64


def packed_gradients(found: Sequence[Tensor], target: Tensor, columns: Columns | None = None) -> Tensor:
    """Write the gradients into the target, and return their column sums ``(P*H*E)`` float32.

    Args:
        found: P tensors ``(S, H, N, E)``, at most three, float16, bfloat16 or float32, contiguous over E, other strides
            free; H*E is at most 4096.
        target: ``(S, N, P, H, E)`` of the same dtype, H and E one contiguous row, with any other strides.
        columns: adds the column sums up later; None adds them up now.
    """
    sequences, tokens, count, heads, size = target.shape
    width, rows = heads * size, sequences * tokens
    padded = max(triton.next_power_of_2(width), 32)
    tall = max(min(_NUMBERS // padded, _TALLEST), 1)
    config = Config({"ROWS": tall, "PADDED": padded}, num_warps=max(padded * 4 // _NUMBERS, 4))
    programs = triton.cdiv(rows, _SHARE)
    sums = Parts(columns, target, programs, count, width)
    sources: dict[str, object] = {}
    for slot in range(_MOST):
        source = found[slot if slot < count else 0]
        sources[f"source{slot}"] = source
        for name, stride in zip("shn", source.stride(), strict=False):
            sources[f"source{slot}_{name}"] = stride
    launch(
        _packed_gradients,
        (programs, count),
        target.device,
        config,
        **sources,
        target=target,
        target_s=target.stride(0),
        target_n=target.stride(1),
        target_p=target.stride(2),
        sums=sums.parts,
        rows=rows,
        tokens=tokens,
        width=width,
        SIZE=size,
        SHARE=_SHARE,
    )
    return sums.added().flatten()
