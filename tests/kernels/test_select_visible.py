"""The selection kernel against the reference, bit for bit, and the statistics of what it chooses."""

from __future__ import annotations

import math

import pytest
import torch
import triton
import triton.language as tl
from fastamr.kernels.launch import Config, launch
from fastamr.kernels.select_visible import _perturbed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastamr
from fastamr import ops
from fastamr.reference.select_visible import gumbel, ordered_bits

from .repeats import assert_repeats

DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
SHAPES = [(1, 1), (7, 2), (15, 15), (16, 4), (17, 1), (31, 30), (257, 100), (750, 75), (1025, 103)]


def make_seed(
    device: torch.device, key: int = -123456789012345, counter: int = (5 << 32) | 77
) -> torch.Tensor:
    return torch.tensor([key, counter], device=device)


def check(seed: torch.Tensor, sequences: int, tokens: int, visible: int, **options: object) -> None:
    """All three outputs are the reference's, and the same bits twice."""
    arguments = (seed, sequences, tokens, visible)
    found = ops.select_visible(*arguments, **options, return_masked=True, return_inverse=True)
    with fastamr.backend("reference"):
        expected = ops.select_visible(*arguments, **options, return_masked=True, return_inverse=True)
    for value, other in zip(found, expected, strict=True):
        assert value.dtype == torch.int32
        assert torch.equal(value, other)
    assert_repeats(
        found, lambda: ops.select_visible(*arguments, **options, return_masked=True, return_inverse=True)
    )


@pytest.mark.thinned
@pytest.mark.parametrize(("tokens", "visible"), SHAPES)
@pytest.mark.parametrize("sequences", [0, 1, 3])
def test_random_choice(sequences: int, tokens: int, visible: int, device: torch.device) -> None:
    check(make_seed(device), sequences, tokens, visible)


def test_only_the_outputs_asked_for(device: torch.device) -> None:
    keep, masked, inverse = ops.select_visible(
        make_seed(device), 2, 40, 7, return_masked=True, return_inverse=True
    )
    assert torch.equal(ops.select_visible(make_seed(device), 2, 40, 7), keep)
    pair = ops.select_visible(make_seed(device), 2, 40, 7, return_masked=True)
    assert torch.equal(pair[0], keep)
    assert torch.equal(pair[1], masked)
    pair = ops.select_visible(make_seed(device), 2, 40, 7, return_inverse=True)
    assert torch.equal(pair[0], keep)
    assert torch.equal(pair[1], inverse)


@pytest.mark.thinned
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize(("tokens", "visible"), SHAPES[1:5] + SHAPES[-2:])
def test_scores(tokens: int, visible: int, largest: bool, dtype: torch.dtype, device: torch.device) -> None:
    scores = torch.randn(2, tokens, device=device).to(dtype) * 3
    check(make_seed(device), 2, tokens, visible, scores=scores, largest=largest)


@triton.jit
def _write_keys(words, scores, out, BLOCK: tl.constexpr):
    # words (BLOCK,) int64, scores (BLOCK,) float32; out (BLOCK,) int64
    index = tl.arange(0, BLOCK)
    keys = _perturbed(tl.load(words + index).to(tl.uint32), tl.load(scores + index), False)
    tl.store(out + index, keys.to(tl.int64))


def test_noise_of_every_word(device: torch.device) -> None:
    """The float32 noise itself, also of the words at both ends, where float32 logarithms would be infinite."""
    ends = torch.tensor([0, 1, 2, 2**31 - 1, 2**31, 2**32 - 3, 2**32 - 2, 2**32 - 1])
    words = torch.cat([ends, torch.randint(0, 2**32, (504,))]).to(device)
    scores = torch.randn(512, device=device) * (torch.arange(512, device=device) % 3)
    found = torch.full_like(words, -1)
    launch(_write_keys, (1,), device, Config({"BLOCK": 512}), words=words, scores=scores, out=found)
    assert torch.equal(found, ordered_bits(scores + gumbel(words)))


@pytest.mark.thinned
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("scored", [False, True])
def test_invalid_tokens_come_last(scored: bool, share: float, device: torch.device) -> None:
    valid = torch.rand(3, 100, device=device) < share
    scores = torch.randn(3, 100, device=device) if scored else None
    check(make_seed(device), 3, 100, 30, scores=scores, valid=valid)
    keep = ops.select_visible(make_seed(device), 3, 100, 30, scores=scores, valid=valid).long()
    assert torch.equal(valid.gather(1, keep).sum(1), valid.sum(1).clamp(max=30))


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("value", [-math.inf, math.inf])
def test_of_equal_keys_the_lower_tokens_win(value: float, largest: bool, device: torch.device) -> None:
    """Noise does not move an infinite score, so all keys tie."""
    scores = torch.full((2, 37), value, device=device)
    valid = torch.ones(2, 37, dtype=torch.bool, device=device)
    valid[:, [0, 3]] = False
    check(make_seed(device), 2, 37, 11, scores=scores, largest=largest)
    check(make_seed(device), 2, 37, 11, scores=scores, largest=largest, valid=valid)
    keep = ops.select_visible(make_seed(device), 2, 37, 11, scores=scores, largest=largest)
    assert keep.tolist() == [list(range(11))] * 2


def test_ties_among_other_keys(device: torch.device) -> None:
    """Some tokens are sure, some out, and the last places go to the first of those that tie."""
    scores = torch.randn(2, 60, device=device)
    scores[:, 20:50] = math.inf
    scores[:, 5:9] = -math.inf
    for visible in (2, 29, 31, 33, 45, 59, 60):
        check(make_seed(device), 2, 60, visible, scores=scores)
        check(make_seed(device), 2, 60, visible, scores=scores, largest=True)


def test_inputs_of_other_layouts(device: torch.device) -> None:
    scores = torch.randn(50, 3, device=device).T
    valid = (torch.rand(100, 3, device=device) > 0.3).T[:, ::2]
    seed = torch.tensor([[9, 1], [4, 1]], device=device).T[0]
    check(seed, 3, 50, 20, scores=scores, valid=valid)
    check(seed, 3, 50, 20, scores=scores[:1].expand(3, 50))


def test_a_sequence_does_not_depend_on_the_batch(device: torch.device) -> None:
    scores = torch.randn(5, 50, device=device)
    five = ops.select_visible(make_seed(device), 5, 50, 9, scores=scores)
    assert torch.equal(ops.select_visible(make_seed(device), 1, 50, 9, scores=scores[:1]), five[:1])


@given(
    key=st.integers(-(2**63), 2**63 - 1),
    counter=st.integers(0, 2**56 - 1),
    tokens=st.integers(1, 70),
    share=st.floats(0, 1),
    scored=st.booleans(),
    masked=st.booleans(),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_seed_and_size(
    key: int,
    counter: int,
    tokens: int,
    share: float,
    scored: bool,
    masked: bool,
    device: torch.device,
) -> None:
    visible = min(1 + int(share * tokens), tokens)
    # Few different scores, so that float32 sums of score and noise sometimes meet.
    scores = (torch.randint(0, 3, (1, tokens), device=device) * 1e7) if scored else None
    valid = torch.rand(1, tokens, device=device) < 0.5 if masked else None
    check(make_seed(device, key, counter), 1, tokens, visible, scores=scores, valid=valid)


def chosen(device: torch.device, rows: int, tokens: int, visible: int, counter: int) -> torch.Tensor:
    """``(rows, tokens)`` ones where a token is kept."""
    keep = ops.select_visible(make_seed(device, 11, counter), rows, tokens, visible).long().cpu()
    return torch.zeros(rows, tokens).scatter(1, keep, 1.0)


def test_a_uniform_subset(device: torch.device) -> None:
    """Chi-square of inclusion counts and of pair counts, and independence across sequences and steps.

    The interpreter is slow; the same statistics of 20,000 sequences of the reference, to which the kernel is identical,
    are in ``tests/ops``.
    """
    tokens, visible, rows = 12, 4, 60 if device.type == "cpu" else 20000
    one, later = chosen(device, rows, tokens, visible, 0), chosen(device, rows, tokens, visible, 1)
    p = visible / tokens
    # Cov(n_i, n_j) = -p(1-p)/(N-1): the statistic below is chi-square with N-1 degrees of freedom.
    chi = ((one.sum(0) - rows * p) ** 2).sum() / (rows * p * (1 - p)) * (tokens - 1) / tokens
    assert 1.6 < chi < 31.3, "0.05 % and 99.9 % of chi-square(11)"
    pairs = (one.T @ one)[torch.triu_indices(tokens, tokens, 1).unbind()]
    q = p * (visible - 1) / (tokens - 1)
    deviation = (pairs - rows * q) / (rows * q * (1 - q)) ** 0.5
    assert deviation.abs().max() < 4.5
    assert abs(deviation.square().mean() - 1) < 0.5
    # The overlap of two independent choices is hypergeometric.
    mean = visible * p
    spread = (mean * (1 - p) * (tokens - visible) / (tokens - 1) / rows) ** 0.5
    assert abs((one[:-1] * one[1:]).sum(1).mean() - mean) < 4 * spread
    assert abs((one * later).sum(1).mean() - mean) < 4 * spread


def test_what_the_kernel_does_not_cover(device: torch.device) -> None:
    with pytest.raises(RuntimeError, match="more than 8192 tokens"):
        ops.select_visible(make_seed(device), 1, 8193, 3)
    with pytest.raises(RuntimeError, match="float64 takes the reference"):
        ops.select_visible(make_seed(device), 1, 5, 3, scores=torch.zeros(1, 5, device=device).double())
    check(make_seed(device), 1, 8192, 700)


def test_a_part_of_a_batch_draws_its_own_sequences(device: torch.device) -> None:
    whole = ops.select_visible(make_seed(device), 5, 50, 9)
    shifted = torch.cat([make_seed(device), torch.tensor([2], device=device)])
    check(shifted, 3, 50, 9)
    assert torch.equal(ops.select_visible(shifted, 3, 50, 9), whole[2:])
