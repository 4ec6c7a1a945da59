"""Tiles of contiguous matrices and products of them, for every kernel with a matrix product inside.

A matrix reaches a kernel either as a tensor descriptor, whose tiles the tensor memory accelerator moves (compute
capabilities 9 and 10, rows of a multiple of 16 bytes), or as a plain pointer. ``TMA`` says which; the kernels are
otherwise the same.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from triton.tools.tensor_descriptor import TensorDescriptor

from .launch import architecture, interpreted

_ALIGNMENT = 16


@triton.jit
def tile_at(
    source, row, column, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # pointers (ROWS, COLUMNS) into a contiguous matrix
    """Addresses of the tile whose first value is at ``(row, column)``."""
    start = source + tl.cast(row, tl.int64) * columns + column
    return start + tl.arange(0, ROWS)[:, None] * columns + tl.arange(0, COLUMNS)[None, :]


@triton.jit
def load_tile(
    source,  # (rows, columns) contiguous: descriptor or pointer
    row, column, rows, columns,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """The tile at ``(row, column)``, 0 outside the matrix."""
    if TMA:
        tile = source.load([row, column])
    else:
        inside = (row + tl.arange(0, ROWS) < rows)[:, None] & (column + tl.arange(0, COLUMNS) < columns)[
            None, :
        ]
        tile = tl.load(tile_at(source, row, column, columns, ROWS, COLUMNS), mask=inside, other=0.0)
    return tile


@triton.jit
def store_tile(
    target,  # (rows, columns) contiguous: descriptor or pointer
    values,  # (ROWS, COLUMNS)
    row, column, rows, columns,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Write the part of the tile that lies in the matrix, in the matrix's dtype."""
    if TMA:
        target.store([row, column], values.to(target.dtype))
    else:
        inside = (row + tl.arange(0, ROWS) < rows)[:, None] & (column + tl.arange(0, COLUMNS) < columns)[
            None, :
        ]
        place = tile_at(target, row, column, columns, ROWS, COLUMNS)
        tl.store(place, values.to(target.dtype.element_ty), mask=inside)


@triton.jit
def multiply(left, right, total, UPCAST: tl.constexpr):
    """``total + left @ right`` in float32; ``UPCAST`` for the interpreter, which has no bfloat16 products."""
    if UPCAST:
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, total, input_precision="ieee")


@triton.jit
def product_tile(
    left,  # (rows, inner)
    right,  # (inner, columns), or (columns, inner) if TRANSPOSED
    row, column, rows, inner, columns,
    TRANSPOSED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
    TMA: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """The tile at ``(row, column)`` of ``left @ right`` or ``left @ right.T``, float32; 0 outside."""
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in tl.range(0, inner, INNER):
        part = load_tile(left, row, start, rows, inner, ROWS, INNER, TMA)
        if TRANSPOSED:
            other = load_tile(right, column, start, columns, inner, COLUMNS, INNER, TMA).T
        else:
            other = load_tile(right, start, column, inner, columns, INNER, COLUMNS, TMA)
        total = multiply(part, other, total, UPCAST)
    return total


def aligned(*matrices: Tensor | None) -> bool:
    """Whether every row of these contiguous matrices starts at a multiple of 16 bytes, and none is empty."""
    return all(
        matrix.numel() > 0
        and matrix.shape[1] * matrix.element_size() % _ALIGNMENT == 0
        and (isinstance(matrix, FakeTensor) or matrix.data_ptr() % _ALIGNMENT == 0)
        for matrix in matrices
        if matrix is not None
    )


def moves_tiles(device: torch.device) -> bool:
    """Whether descriptors pay: Hopper and the large Blackwells, whose products read shared memory."""
    return 90 <= architecture(device) < 120


def as_tiles(matrix: Tensor | None, rows: int, columns: int, tma: bool) -> Any:
    """What a kernel gets: the matrix with tiles of this size as a descriptor, or the matrix itself."""
    if matrix is None or not tma:
        return matrix
    return TensorDescriptor.from_tensor(matrix, [rows, columns])


def needs_upcast(matrix: Tensor) -> bool:
    """Whether products must be taken in float32 because the interpreter gets bfloat16 wrong."""
    return matrix.dtype == torch.bfloat16 and interpreted(matrix.device)
