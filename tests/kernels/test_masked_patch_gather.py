"""The embedding kernels against the float64 reference, forward and backward."""

from __future__ import annotations

import pytest
import torch
from fastamr.kernels.masked_patch_gather import _LINK_CONFIGS, _forward_configs, _position_configs

import fastamr
from fastamr import ops, reference
from fastamr.reference.masked_patch_gather import masked_patch_gather_backward
from fastamr.testing import assert_as_good_as, random_clips

from .repeats import assert_repeats

DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
# S, T, V, C, l, K, D
SHAPES = [
    (3, 8, 25, 3, 4, 21, 32),
    (2, 8, 25, 3, 4, 50, 17),
    (1, 12, 7, 2, 3, 1, 31),
    (2, 48, 3, 3, 24, 6, 33),
    (3, 4, 1, 3, 4, 1, 5),
    (2, 6, 133, 3, 2, 40, 16),
    (2, 9, 5, 3, 3, 7, 271),
    (19, 4, 3, 2, 4, 2, 1),
    (2, 16, 3, 2, 16, 2, 9),  # 32 numbers fill a block: the bias has one of its own
]


def make(
    shape: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    of_clips: torch.dtype | None = None,
) -> tuple[torch.Tensor, ...]:
    """Clips, unsorted keep with repeated tokens, weight, bias, position."""
    sequences, frames, joints, channels, patch, visible, width = shape
    clips = random_clips(sequences, frames, joints, channels, dtype=of_clips or dtype, device=device)
    tokens = frames // patch * joints
    keep = torch.randint(0, tokens, (sequences, visible), device=device, dtype=torch.int32)
    sizes = ((width, patch * channels), (width,), (tokens, width))
    return clips, keep, *[torch.randn(*size).to(device, dtype).requires_grad_() for size in sizes]


def assert_unbiased(value: torch.Tensor, truth: torch.Tensor) -> None:
    """The mean error is within what errors of random sign leave."""
    error = (value.double() - truth.double()).flatten()
    if len(error) > 30:
        assert error.mean().abs() <= 4 * error.square().mean().sqrt() / len(error) ** 0.5


def check_forward(arguments: tuple[torch.Tensor, ...], patch: int, out: torch.dtype | None = None) -> None:
    clips, keep, *parameters = [value.detach() for value in arguments]
    found = ops.masked_patch_gather(clips, keep, *parameters, patch_frames=patch, out_dtype=out)
    truth = reference.masked_patch_gather(
        clips.double(), keep, *[p.double() for p in parameters], patch_frames=patch
    )
    peer = reference.masked_patch_gather(clips, keep, *parameters, patch_frames=patch, out_dtype=out)
    assert found.shape == truth.shape
    assert found.dtype == (out or torch.float32)
    if found.numel():
        assert_as_good_as(found, truth, peer)
        assert_unbiased(found, truth)
    assert_repeats(
        [found],
        lambda: [ops.masked_patch_gather(clips, keep, *parameters, patch_frames=patch, out_dtype=out)],
    )


def check_backward(
    arguments: tuple[torch.Tensor, ...], patch: int, upstream: torch.Tensor, out: torch.dtype | None = None
) -> None:
    clips, keep, *parameters = arguments

    def backward() -> tuple[torch.Tensor, ...]:
        found = ops.masked_patch_gather(clips, keep, *parameters, patch_frames=patch, out_dtype=out)
        return torch.autograd.grad(found, parameters, upstream)

    gradients = backward()
    tokens, dtype = len(parameters[2]), parameters[0].dtype
    truth = masked_patch_gather_backward(
        upstream.double(), clips.double(), keep, tokens, patch_frames=patch, dtype=torch.float64
    )
    peer = masked_patch_gather_backward(upstream, clips, keep, tokens, patch_frames=patch, dtype=dtype)
    for value, expected, other in zip(gradients, truth, peer, strict=True):
        assert value.shape == expected.shape
        assert value.dtype == dtype
        # A gradient of few terms is exact in the peer: allow the last bit of float32 in a sum's other order.
        assert_as_good_as(value, expected, other, floor=3e-7)
        assert_unbiased(value, expected)
    assert_repeats(gradients, backward)


@pytest.mark.thinned
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    check_forward(make(shape, device, dtype), shape[4])


@pytest.mark.thinned
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    arguments = make(shape, device, dtype)
    check_backward(arguments, shape[4], torch.randn(shape[0], shape[5], shape[6], device=device))


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_around_the_block_sizes(extra: int, device: torch.device) -> None:
    blocks = _forward_configs(256)[0].blocks
    shape = (1, 8, 25, 3, 4, blocks["BLOCK_ROWS"] + extra, blocks["BLOCK_D"] + extra)
    check_forward(make(shape, device), 4)
    # As many sequences as a position program takes at a time, and as many entries as a program links.
    sequences = _position_configs(16)[0].blocks["BLOCK_S"] + extra
    shape = (sequences, 4, 3, 3, 4, 2, 16)
    check_backward(make(shape, device), 4, torch.randn(sequences, 2, 16, device=device))
    entries = _LINK_CONFIGS[0].blocks["BLOCK_Q"] + extra
    shape = (1, 4, entries - 19, 3, 4, 19, 16)
    check_backward(make(shape, device), 4, torch.randn(1, 19, 16, device=device))


def test_more_rows_than_one_program_sums(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of several blocks, the last group and the last block not full."""
    monkeypatch.setattr("fastamr.kernels.masked_patch_gather._PROGRAMS", 3)
    shape = (5, 8, 9, 3, 4, 61, 24)
    check_backward(make(shape, device), 4, torch.randn(5, 61, 24, device=device))


@pytest.mark.parametrize("out", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)])
def test_tokens_of_another_dtype(out: torch.dtype, device: torch.device) -> None:
    """Only the tokens are rounded: the product keeps the coordinates' bits."""
    arguments = make(SHAPES[0], device)
    check_forward(arguments, 4, out)
    check_backward(arguments, 4, torch.randn(3, 21, 32, device=device).to(out), out)
    exact = ops.masked_patch_gather(*arguments, patch_frames=4)
    assert torch.equal(ops.masked_patch_gather(*arguments, patch_frames=4, out_dtype=out), exact.to(out))


def test_autocast_casts_only_the_tokens(device: torch.device) -> None:
    arguments = make(SHAPES[0], device)
    exact = ops.masked_patch_gather(*arguments, patch_frames=4)
    with torch.autocast(device.type, torch.float16):
        cast = ops.masked_patch_gather(*arguments, patch_frames=4)
    assert torch.equal(cast, exact.half())


def test_clips_and_parameters_of_different_dtypes(device: torch.device) -> None:
    for parameter, clip in ((torch.float32, torch.float16), (torch.float16, torch.float32)):
        arguments = make(SHAPES[2], device, parameter, clip)
        check_forward(arguments, 3)
        check_backward(arguments, 3, torch.randn(1, 1, 31, device=device))


def test_every_token_once(device: torch.device) -> None:
    """K = N: the position table's gradient is the upstream gradient, put in order."""
    shape = (1, 8, 25, 3, 4, 50, 24)
    clips, _, *parameters = make(shape, device)
    keep = torch.randperm(50, device=device)[None]
    upstream = torch.randn(1, 50, 24, device=device)
    found = ops.masked_patch_gather(clips, keep, *parameters, patch_frames=4)
    (position,) = torch.autograd.grad(found, parameters[2], upstream)
    assert torch.equal(position[keep[0]], upstream[0])


def test_one_token_many_times(device: torch.device) -> None:
    clips, _, *parameters = make((2, 8, 3, 3, 4, 40, 8), device)
    keep = torch.full((2, 40), 5, device=device)
    keep[1, ::2] = 2
    arguments = (clips, keep, *parameters)
    found = ops.masked_patch_gather(*arguments, patch_frames=4)
    (position,) = torch.autograd.grad(found.sum(), parameters[2])
    assert position.sum(1).tolist() == [0, 0, 160, 0, 0, 480]


def test_inputs_of_other_layouts(device: torch.device) -> None:
    shape = (4, 8, 5, 3, 4, 6, 16)
    clips, keep, weight, bias, position = make(shape, device)
    strided = clips.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    parameters = [
        weight.detach().T.contiguous().T,
        bias.detach().repeat_interleave(2)[::2],
        position.detach().repeat(1, 2).T.contiguous().T[:, :16],
    ]
    arguments = (
        strided,
        keep.long().T.contiguous().T,
        *[value.requires_grad_() for value in parameters],
    )
    check_forward(arguments, 4)
    check_backward(arguments, 4, torch.randn(6, 16, 4, device=device).permute(2, 0, 1))
    check_backward(arguments, 4, torch.randn(16, device=device).expand(4, 6, 16))
    plain = ops.masked_patch_gather(clips, keep, weight, bias, position, patch_frames=4)
    assert torch.equal(ops.masked_patch_gather(*arguments, patch_frames=4), plain)


def test_a_gradient_of_stride_zero(device: torch.device) -> None:
    """``.sum()`` sends one into the backward."""
    clips, keep, *parameters = make(SHAPES[0], device)
    found = ops.masked_patch_gather(clips, keep, *parameters, patch_frames=4)
    gradients = torch.autograd.grad(found.sum(), parameters)
    one = torch.ones(3, 21, 32, device=device, dtype=torch.float64)
    truth = masked_patch_gather_backward(one, clips.double(), keep, 50, patch_frames=4, dtype=torch.float64)
    for value, expected in zip(gradients, truth, strict=True):
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-5)


def test_no_sequences(device: torch.device) -> None:
    clips, keep, *parameters = make((0, 8, 3, 3, 4, 2, 16), device)
    found = ops.masked_patch_gather(clips, keep, *parameters, patch_frames=4)
    assert found.shape == (0, 2, 16)
    for gradient, parameter in zip(torch.autograd.grad(found.sum(), parameters), parameters, strict=True):
        assert torch.equal(gradient, torch.zeros_like(parameter))


def test_a_sequence_does_not_depend_on_the_batch(device: torch.device) -> None:
    clips, keep, *parameters = make((5, 8, 5, 3, 4, 7, 24), device)
    five = ops.masked_patch_gather(clips, keep, *parameters, patch_frames=4)
    for row in range(5):
        one = ops.masked_patch_gather(clips[row : row + 1], keep[row : row + 1], *parameters, patch_frames=4)
        assert torch.equal(one, five[row : row + 1])


def test_second_order(device: torch.device) -> None:
    """The gradients are linear in the upstream gradient; their transpose is the forward."""
    clips, keep, *parameters = make((2, 8, 3, 2, 4, 4, 5), device)
    values = []
    for name in ("triton", "reference"):
        upstream = torch.ones(2, 4, 5, device=device, requires_grad=True)
        with fastamr.backend(name):
            found = ops.masked_patch_gather(clips, keep, *parameters, patch_frames=4)
            gradients = torch.autograd.grad(found, parameters, upstream, create_graph=True)
            values.append(torch.autograd.grad(sum(g.square().sum() for g in gradients), upstream)[0])
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-5)


def test_float64_anywhere_takes_the_reference(device: torch.device) -> None:
    clips, keep, *parameters = make(SHAPES[2], device)
    with pytest.raises(RuntimeError, match="float64 takes the reference"):
        ops.masked_patch_gather(clips.double(), keep, *parameters, patch_frames=3)
    with pytest.raises(RuntimeError, match="float64 takes the reference"):
        ops.masked_patch_gather(clips, keep, *[p.double() for p in parameters], patch_frames=3)
    with pytest.raises(RuntimeError, match="float64 takes the reference"):
        ops.masked_patch_gather(clips, keep, *parameters, patch_frames=3, out_dtype=torch.float64)
