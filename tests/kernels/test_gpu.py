"""What only a GPU can show: CUDA graphs, a second stream, tensors beyond 2**31 numbers.

Runs from a bare checkout: ``PYTHONPATH=. python -m pytest tests/kernels -m gpu``.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastamr import ops
from fastamr.testing import random_clips

pytestmark = pytest.mark.gpu

SEQUENCES, TOKENS, VISIBLE, WIDTH = 16, 750, 75, 256


def calls(device: str) -> dict[str, Callable[[], tuple[Tensor, ...]]]:
    """Every op with its gradients, on inputs that stay in place, as a captured step would call it."""
    clips = random_clips(SEQUENCES, device=device)
    seed = torch.tensor([5, 0], device=device)
    keep = ops.select_visible(seed, SEQUENCES, TOKENS, VISIBLE)
    parameters = [
        torch.randn(shape, device=device, requires_grad=True)
        for shape in ((WIDTH, 12), (WIDTH,), (TOKENS, WIDTH))
    ]
    prediction = torch.randn(SEQUENCES, 125, 72, device=device, dtype=torch.bfloat16, requires_grad=True)
    valid, mask = (
        torch.rand(SEQUENCES, 120, 25, device=device) > 0.1,
        torch.rand(SEQUENCES, 125, device=device) > 0.5,
    )
    coords, offsets = torch.randn(900, 25, 3, device=device), torch.arange(0, 901, 90, device=device)
    ids = torch.arange(SEQUENCES, device=device) % 10
    partners, limbs = torch.arange(25, device=device).flip(0), torch.arange(25, device=device) % 6 - 1

    def embed() -> tuple[Tensor, ...]:
        tokens = ops.masked_patch_gather(clips, keep, *parameters, patch_frames=4, out_dtype=torch.bfloat16)
        return tokens, *torch.autograd.grad(tokens, parameters, torch.ones_like(tokens))

    def loss() -> tuple[Tensor, ...]:
        value = ops.weighted_reconstruction_loss(
            prediction,
            clips,
            target_frames=24,
            guidance=ops.motion_guidance(clips),
            token_mask=mask,
            valid=valid,
        )
        return value, *torch.autograd.grad(value, prediction)

    def augment() -> tuple[Tensor, ...]:
        found, seen = ops.augment_clips(
            clips,
            seed,
            valid=valid,
            mirror=0.5,
            partners=partners,
            scale_jitter=0.2,
            drop_limbs=0.3,
            limbs=limbs,
            noise=0.01,
            project=0.3,
        )
        assert seen is not None
        return found, seen

    return {
        "select_visible": lambda: ops.select_visible(seed, SEQUENCES, TOKENS, VISIBLE, return_masked=True),
        "patch_gather": lambda: (ops.patch_gather(clips, keep, patch_frames=4),),
        "masked_patch_gather": embed,
        "motion_entropy": lambda: ops.motion_entropy(clips, window=8, valid=valid),
        "motion_guidance": lambda: (ops.motion_guidance(clips, valid=valid),),
        "motion_guidance_histogram": lambda: (ops.motion_guidance(clips, kind="histogram"),),
        "weighted_reconstruction_loss": loss,
        "sample_clips": lambda: (ops.sample_clips(coords, offsets, ids, 120, seed),),
        "augment_clips": augment,
    }


NAMES = [
    "select_visible",
    "patch_gather",
    "masked_patch_gather",
    "motion_entropy",
    "motion_guidance",
    "motion_guidance_histogram",
    "weighted_reconstruction_loss",
    "sample_clips",
    "augment_clips",
]


def assert_same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_captured_in_a_graph(name: str) -> None:
    call = calls("cuda")[name]
    expected = call()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call()
    for _ in range(2):
        for value in captured:
            value.detach().fill_(0)
        graph.replay()
        assert_same(captured, expected)


def test_a_captured_selection_follows_the_counter() -> None:
    seed = torch.tensor([5, 0], device="cuda")
    ops.select_visible(seed, SEQUENCES, TOKENS, VISIBLE)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        seed[1] += 1
        keep = ops.select_visible(seed, SEQUENCES, TOKENS, VISIBLE)
    for step in (1, 2, 3):
        graph.replay()
        expected = ops.select_visible(torch.tensor([5, step], device="cuda"), SEQUENCES, TOKENS, VISIBLE)
        assert torch.equal(keep, expected)


@pytest.mark.parametrize("name", NAMES)
def test_on_a_second_stream(name: str) -> None:
    """The kernels queue behind the work of the current stream, not of the default one."""
    call = calls("cuda")[name]
    expected = call()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        found = call()
        waiting = not stream.query()
    assert waiting, "the op returned before the work queued ahead of it was done"
    stream.synchronize()
    assert_same(found, expected)


@pytest.mark.slow
def test_clips_beyond_two_to_the_31_numbers() -> None:
    """The last sequence of 300,000 gives the same as alone."""
    sequences = 300_000
    clips = torch.empty(sequences, 120, 25, 3, device="cuda", dtype=torch.float16)
    clips.normal_()
    assert clips.numel() > 2**31
    last = clips[-1:].clone()
    seed = torch.tensor([5, 0], device="cuda")
    keep = ops.select_visible(seed, sequences, TOKENS, VISIBLE)
    own = keep[-1:].clone()
    parameters = [torch.randn(shape, device="cuda") for shape in ((8, 12), (8,), (TOKENS, 8))]
    found = ops.masked_patch_gather(clips, keep, *parameters, patch_frames=4)[-1:]
    assert torch.equal(found, ops.masked_patch_gather(last, own, *parameters, patch_frames=4))
    assert torch.equal(
        ops.patch_gather(clips, keep, patch_frames=4)[-1:], ops.patch_gather(last, own, patch_frames=4)
    )
    assert torch.equal(ops.motion_entropy(clips, window=8)[0][-1:], ops.motion_entropy(last, window=8)[0])
    assert torch.equal(ops.motion_guidance(clips)[-1:], ops.motion_guidance(last))
    prediction = torch.zeros(sequences, 125, 72, device="cuda", dtype=torch.float16, requires_grad=True)
    for normalize in ("sequence", "patch"):
        options = {"target_frames": 24, "normalize": normalize}
        (gradient,) = torch.autograd.grad(
            ops.weighted_reconstruction_loss(prediction, clips, **options) * sequences, prediction
        )
        (alone,) = torch.autograd.grad(
            ops.weighted_reconstruction_loss(prediction[-1:], last, **options), prediction
        )
        torch.testing.assert_close(gradient[-1:], alone[-1:], rtol=1e-2, atol=1e-6)
