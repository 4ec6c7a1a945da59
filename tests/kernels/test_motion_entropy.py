"""The motion entropy kernel against the float64 reference."""

from __future__ import annotations

import math

import pytest
import torch
from fastamr.kernels.motion_entropy import _CONFIGS, window_energies

from fastamr import ops, reference
from fastamr.testing import assert_as_good_as, random_clips

from .repeats import assert_repeats

BLOCK = _CONFIGS[0].blocks["BLOCK"]
# With a GPU these tests run there in bfloat16 too; the interpreter rounds to bfloat16 as the compiler does on loads.
DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]


def check(clips: torch.Tensor, window: int, valid: torch.Tensor | None = None) -> None:
    """As exact as PyTorch, no signed bias, the same bits twice."""
    options = {"window": window, "valid": valid, "eps": 1e-8}
    found = ops.motion_entropy(clips, **options)
    truth = reference.motion_entropy(clips.double(), **options)
    peer = reference.motion_entropy(clips, **options)
    for value, expected, other in zip(found, truth, peer, strict=True):
        assert value.dtype == torch.float32
        assert value.shape == expected.shape
        assert torch.isfinite(value).all()
        if value.numel():
            assert_as_good_as(value, expected, other)
    if found[0].numel() > 30:
        relative = (found[0].double() - truth[0]) / (truth[0] + 1e-12)
        assert relative.mean().abs() <= 4 * relative.square().mean().sqrt() / len(relative.flatten()) ** 0.5
    assert_repeats(found, lambda: ops.motion_entropy(clips, **options))


@pytest.mark.thinned
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 3, 4, 8, 17, 60])
def test_windows(window: int, dtype: torch.dtype, device: torch.device) -> None:
    check(random_clips(2, 24, 5, dtype=dtype, device=device), window)


@pytest.mark.parametrize("pairs", [BLOCK - 1, BLOCK, BLOCK + 1])
def test_around_the_block_size(pairs: int, device: torch.device) -> None:
    check(random_clips(1, 2 * pairs, 1, device=device), 2)
    check(random_clips(1, 3, pairs, device=device), 4)


@pytest.mark.parametrize(("frames", "joints", "channels"), [(7, 25, 2), (11, 133, 3), (1, 1, 1), (13, 1, 3)])
def test_awkward_shapes(frames: int, joints: int, channels: int, device: torch.device) -> None:
    check(random_clips(2, frames, joints, channels, device=device), 4)


@pytest.mark.thinned
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [3, 20])
def test_invalid_frames_do_not_count(window: int, dtype: torch.dtype, device: torch.device) -> None:
    clips = random_clips(2, 22, 4, dtype=dtype, device=device)
    valid = torch.rand(2, 22, 4, device=device) > 0.5
    valid[0, :, 1] = False
    spoiled = torch.where(valid[..., None], clips, float("nan"))
    check(spoiled, window, valid)
    assert (ops.motion_entropy(spoiled, window=window, valid=valid)[0][0, :, 1] == 0).all()
    transposed = valid.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    check(spoiled, window, transposed)


def test_any_strides(device: torch.device) -> None:
    clips = random_clips(3, 10, 5, device=device)
    expected = ops.motion_entropy(clips, window=4)
    for order in ((3, 2, 1, 0), (1, 0, 2, 3), (0, 3, 1, 2)):
        back = [order.index(axis) for axis in range(4)]
        other = clips.permute(order).contiguous().permute(back)
        assert torch.equal(ops.motion_entropy(other, window=4)[0], expected[0])
    wide = torch.full((3, 10, 5, 7), float("nan"), device=device)
    wide[..., 1:7:2] = clips
    assert torch.equal(ops.motion_entropy(wide[..., 1:7:2], window=4)[0], expected[0])
    one = clips[:1].expand(3, -1, -1, -1)
    assert torch.equal(ops.motion_entropy(one, window=4)[0], expected[0][:1].expand(3, -1, -1))


def test_a_sequence_does_not_depend_on_its_batch(device: torch.device) -> None:
    clips = random_clips(5, 24, 5, device=device)
    batch = ops.motion_entropy(clips, window=5)
    for s in range(5):
        alone = ops.motion_entropy(clips[s : s + 1], window=5)
        assert torch.equal(alone[0][0], batch[0][s])
        assert torch.equal(alone[1][0], batch[1][s])


def test_no_sequences(device: torch.device) -> None:
    energy, entropy = ops.motion_entropy(random_clips(0, 10, 3, device=device), window=4)
    assert energy.shape == entropy.shape == (0, 3, 3)


@pytest.mark.parametrize("window", [4, 60])
def test_small_motion_far_from_the_origin(window: int, device: torch.device) -> None:
    """A motion of a millimetre 10 m away keeps all digits of its energy."""
    wave = 1e-3 * torch.sin(torch.arange(120) * 1.3).view(1, 120, 1, 1).double()
    clips = (10.0 + wave.expand(1, 120, 2, 3)).float().to(device)
    found = ops.motion_entropy(clips, window=window)[0]
    truth = reference.motion_entropy(clips.double(), window=window)[0]
    torch.testing.assert_close(found.double(), truth, rtol=1e-6, atol=0)


def test_long_windows_lose_nothing(device: torch.device) -> None:
    """A window of 1000 frames is summed one by one, and yet as exactly as by a tree."""
    check(random_clips(1, 1000, 4, 1, device=device), 1000)


@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_all_lengths_at_once(missing: float, device: torch.device) -> None:
    """The guidance's form: each length as by itself, and partial sums that add up to it."""
    clips, windows = random_clips(3, 50, 7, device=device), (4, 1, 12, 50)
    valid = torch.rand(3, 50, 7, device=device) >= missing if missing else None
    if valid is not None:
        valid[1, :12] = False
    found = window_energies(clips, windows, valid)
    row = part = 0
    for window in windows:
        rows = math.ceil(50 / window)
        expected = ops.motion_entropy(clips, window=window, valid=valid)[0]
        assert torch.equal(found.values[:, row : row + rows], expected)
        parts = math.ceil(rows * 7 / found.block)
        sums = found.sums[:, part : part + parts].double().sum(1)
        torch.testing.assert_close(sums, expected.double().sum((1, 2)), rtol=1e-6, atol=0)
        flags = torch.ones(3, 50, 7, dtype=torch.bool, device=device) if valid is None else valid
        known = sum(chunk.any(1).sum(1) for chunk in flags.split(window, 1))
        assert torch.equal(found.known[:, part : part + parts].sum(1), known)
        row, part = row + rows, part + parts
    assert row == found.values.shape[1]
    assert part == found.sums.shape[1] == found.known.shape[1]


@pytest.mark.gpu
def test_captured_in_a_graph() -> None:
    clips = random_clips(3, 24, 5, device="cuda")
    expected = ops.motion_entropy(clips, window=8)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        energy, entropy = ops.motion_entropy(clips, window=8)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(energy, expected[0])
    assert torch.equal(entropy, expected[1])
