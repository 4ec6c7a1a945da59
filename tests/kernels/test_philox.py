"""The kernels' random words against the reference, bit for bit."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from fastamr.kernels.launch import Config, launch
from fastamr.kernels.philox import philox_row, philox_words
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastamr.reference import philox

# Kernels see the generator's constants only as their own.
STREAM = tl.constexpr(philox.STREAM_ROTATE)


@triton.jit
def _write_row(seed, rows, out, BLOCK: tl.constexpr):
    # seed (2,) int64; rows (R,) int64; out (R, BLOCK) int64
    program = tl.program_id(0)
    words = philox_row(seed, tl.load(rows + program), STREAM, BLOCK)
    tl.store(out + program * BLOCK + tl.arange(0, BLOCK), words.to(tl.int64))


@triton.jit
def _write_first(seed, rows, out):
    # seed (2,) int64; rows (R,) int64; out (R, 4) int64
    program = tl.program_id(0)
    a, b, c, d = philox_words(seed, tl.load(rows + program), 0, STREAM)
    tl.store(out + 4 * program, a.to(tl.int64))
    tl.store(out + 4 * program + 1, b.to(tl.int64))
    tl.store(out + 4 * program + 2, c.to(tl.int64))
    tl.store(out + 4 * program + 3, d.to(tl.int64))


def check(key: int, counter: int, rows: list[int], block: int, device: torch.device) -> None:
    seed = torch.tensor([key, counter], device=device)
    names = torch.tensor(rows, device=device)
    expected = philox.philox_words(seed, names, block, philox.STREAM_ROTATE)
    found = torch.full_like(expected, -1)
    config = Config({"BLOCK": block}, num_warps=1)
    launch(_write_row, (len(rows),), device, config, seed=seed, rows=names, out=found)
    assert torch.equal(found, expected)
    first = torch.full_like(expected[:, :4], -1).contiguous()
    launch(_write_first, (len(rows),), device, Config(num_warps=1), seed=seed, rows=names, out=first)
    assert torch.equal(first, expected[:, :4])


@pytest.mark.parametrize("block", [4, 16, 256])
def test_layout_of_a_row(block: int, device: torch.device) -> None:
    check(1, 0, [0, 1, 2], block, device)


@given(
    key=st.integers(-(2**63), 2**63 - 1),
    counter=st.integers(0, 2**56 - 1),
    row=st.integers(-(2**63), 2**63 - 1),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_bit_of_the_seed_counts(key: int, counter: int, row: int, device: torch.device) -> None:
    check(key, counter, [row], 8, device)
