"""The guidance kernels against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from fastamr.kernels import motion_guidance as kernels
from fastamr.kernels.motion_entropy import window_energies
from fastamr.kernels.motion_histogram import _LARGEST, window_histograms
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fastamr import ops, reference
from fastamr.reference.motion_entropy import entropy_of_energy
from fastamr.testing import assert_as_good_as, random_clips

from .repeats import assert_repeats

DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
KINDS = ["entropy", "energy", "histogram"]
# The interpreter is too slow for shrinking, let alone explaining.
PROPERTY = settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.generate))
HERE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def still_and_moving(
    sequences: int, frames: int, joints: int, channels: int = 3, **options: object
) -> torch.Tensor:
    """Clips whose joints move from hardly to fast, so that weights lie all over [0, 1]."""
    clips = random_clips(sequences, frames, joints, channels)
    speed = torch.logspace(-2, 0.5, joints).view(1, 1, -1, 1)
    return (clips[:, :1] + (clips - clips[:, :1]) * speed).to(**options)


def check(clips: torch.Tensor, **options: object) -> torch.Tensor:
    """As exact as PyTorch, in [0, 1], no signed bias."""
    found = ops.motion_guidance(clips, **options)
    truth = reference.motion_guidance(clips.double(), **options)
    peer = reference.motion_guidance(clips, **options)
    assert found.dtype == torch.float32
    assert found.shape == clips.shape[:3]
    assert (found >= 0).all()
    assert (found <= 1).all()
    # The reference takes a histogram's entropy in float64, the kernel in float32.
    assert_as_good_as(found, truth, peer, floor=1e-6 if options.get("kind") == "histogram" else 2e-7)
    error = (found.double() - truth).flatten()
    if len(error) > 100:
        # All weights of a sequence and a length share the rounding of their mean energy.
        independent = clips.shape[0] * len(options.get("windows", (4, 8, 12)))
        assert error.mean().abs() <= 4 * error.square().mean().sqrt() / independent**0.5 + 3e-8
    return found


@pytest.mark.thinned
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("windows", [(4, 8, 12), (5,), (3, 3, 20, 14)])
def test_windows(windows: tuple[int, ...], kind: str, dtype: torch.dtype, device: torch.device) -> None:
    clips = still_and_moving(2, 14, 5, dtype=dtype, device=device)
    found = check(clips, windows=windows, kind=kind, k=0.2)
    assert found.std() > 0.1, "weights that hardly differ would prove nothing"
    assert_repeats([found], lambda: [ops.motion_guidance(clips, windows=windows, kind=kind, k=0.2)])


@pytest.mark.thinned
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("frames", "joints", "channels"),
    [
        (73, 7, 3),
        (64, 8, 3),
        (27, 19, 2),
        (1, 3, 3),
        (2, 1, 3),
        (3, 1, 2),
        (13, 1, 3),
        (5, 133, 3),
        (12, 25, 2),
    ],
)
def test_shapes(frames: int, joints: int, channels: int, kind: str, device: torch.device) -> None:
    """511, 512 and 513 cells, primes, single frames and joints."""
    check(still_and_moving(2, frames, joints, channels, device=device), windows=(4, 9), kind=kind, k=0.1)


@pytest.mark.parametrize("kind", ["energy", "histogram"])
def test_more_partial_results_than_one_load_takes(kind: str, device: torch.device) -> None:
    """Sums and maxima of a sequence from more runs than a program reads at once; the last one holds the most."""
    clips = still_and_moving(1, 66, 252 if kind == "energy" else 512, 1, device=device)
    clips[:, -1, -1] += 20.0
    check(clips, windows=(2,) if kind == "energy" else (33,), kind=kind, k=0.1)
    runs = window_energies(clips[:, :, :252], (2,), None).sums.shape[1]
    assert runs > kernels._PARTS.value
    assert kernels._PARTS.value * _LARGEST.blocks["BLOCK"] < 65 * 512


@pytest.mark.thinned
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_invalid_frames(kind: str, dtype: torch.dtype, device: torch.device) -> None:
    clips = still_and_moving(3, 14, 5, 2, dtype=dtype, device=device)
    valid = torch.rand(3, 14, 5, device=device) > 0.4
    valid[0, :9] = False
    valid[1] = False
    valid[2, :, 2] = False
    spoiled = torch.where(valid[..., None], clips, float("nan"))
    for windows in ((4, 8), (3, 16)):
        found = check(spoiled, windows=windows, kind=kind, k=0.2, valid=valid)
        assert (found[~valid] == 0).all()
        transposed = valid.permute(2, 1, 0).contiguous().permute(2, 1, 0)
        assert torch.equal(
            ops.motion_guidance(spoiled, windows=windows, kind=kind, k=0.2, valid=transposed), found
        )


@pytest.mark.parametrize("kind", ["entropy", "energy"])
def test_no_strength_weighs_one(kind: str, device: torch.device) -> None:
    clips = still_and_moving(2, 22, 5, device=device)
    assert torch.equal(ops.motion_guidance(clips, k=0.0, kind=kind), torch.ones(2, 22, 5, device=device))


@pytest.mark.parametrize("kind", KINDS)
def test_still_clips(kind: str, device: torch.device) -> None:
    check(torch.full((2, 12, 3, 3), 2.5, device=device), kind=kind)


@pytest.mark.parametrize("eps", [1e-8, 1e-4])
@pytest.mark.parametrize("kind", ["entropy", "energy"])
def test_eps_and_strength(kind: str, eps: float, device: torch.device) -> None:
    """The two forms differ by eps beside the mean energy, visible where the eps is as large as it."""
    clips = still_and_moving(2, 10, 5, device=device) * 0.1
    for k in (0.01, 30.0):
        check(clips, windows=(4, 5), kind=kind, eps=eps, k=k)


@pytest.mark.parametrize("bins", [2, 3, 7, 8, 9, 100])
def test_bins(bins: int, device: torch.device) -> None:
    check(still_and_moving(2, 22, 5, device=device), windows=(4, 11), kind="histogram", bins=bins)


@pytest.mark.parametrize("kind", KINDS)
def test_any_strides_and_any_batch(kind: str, device: torch.device) -> None:
    clips = still_and_moving(3, 13, 3, device=device)
    expected = ops.motion_guidance(clips, windows=(4, 5), kind=kind, k=0.2)
    for order in ((3, 2, 1, 0), (1, 0, 2, 3)):
        back = [order.index(axis) for axis in range(4)]
        other = clips.permute(order).contiguous().permute(back)
        assert torch.equal(ops.motion_guidance(other, windows=(4, 5), kind=kind, k=0.2), expected)
    for s in range(3):
        assert torch.equal(
            ops.motion_guidance(clips[s : s + 1], windows=(4, 5), kind=kind, k=0.2)[0], expected[s]
        )
    assert ops.motion_guidance(clips[:0], windows=(4, 5), kind=kind).shape == (0, 13, 3)


@PROPERTY
@given(
    seed=st.integers(0, 2**31),
    frames=st.integers(1, 13),
    joints=st.integers(1, 6),
    channels=st.sampled_from([2, 3]),
    windows=st.lists(st.integers(3, 14), min_size=1, max_size=2),
    k=st.sampled_from([0.0, 1e-3, 0.01, 1.0, 100.0]),
    scale=st.sampled_from([0.0, 1e-5, 1.0, 1e3]),
    kind=st.sampled_from(KINDS),
    missing=st.sampled_from([0.0, 0.5]),
)
def test_weights_lie_between_zero_and_one(
    seed: int,
    frames: int,
    joints: int,
    channels: int,
    windows: list[int],
    k: float,
    scale: float,
    kind: str,
    missing: float,
) -> None:
    clips = random_clips(2, frames, joints, channels, device=HERE, seed=seed) * scale
    valid = torch.rand(2, frames, joints, device=HERE) >= missing if missing else None
    weight = ops.motion_guidance(clips, windows=tuple(windows), k=k, kind=kind, valid=valid)
    assert ((weight >= 0) & (weight <= 1)).all()


@settings(PROPERTY, max_examples=4)
@given(
    seed=st.integers(0, 2**31),
    frames=st.integers(2, 13),
    channels=st.sampled_from([2, 3]),
    windows=st.lists(st.integers(2, 14), min_size=1, max_size=2),
    k=st.sampled_from([1e-3, 0.01, 1.0]),
)
def test_entropy_form_equals_energy_form(
    seed: int, frames: int, channels: int, windows: list[int], k: float
) -> None:
    """The logistic of the entropy gap is the paper's weight, up to eps in the mean energy."""
    clips = random_clips(2, frames, 4, channels, device=HERE, seed=seed)
    entropy = ops.motion_guidance(clips, windows=tuple(windows), k=k, eps=1e-16)
    energy = ops.motion_guidance(clips, windows=tuple(windows), k=k, eps=1e-16, kind="energy")
    torch.testing.assert_close(entropy, energy, rtol=1e-5, atol=0)
    # And both are the logistic of what motion_entropy returns.
    by_hand = torch.zeros(2, frames, 4, dtype=torch.float64, device=HERE)
    for window in windows:
        values, nats = ops.motion_entropy(clips, window=window, eps=1e-16)
        total = values.double().mean((1, 2), keepdim=True)
        gap = nats.double() - entropy_of_energy(total, channels, 1e-16)
        weight = torch.sigmoid(2 / channels * gap - torch.tensor(k, dtype=torch.float64).log())
        by_hand += weight.repeat_interleave(window, 1)[:, :frames] / len(windows)
    torch.testing.assert_close(entropy.double(), by_hand, rtol=1e-4, atol=1e-6)


@PROPERTY
@given(
    seed=st.integers(0, 2**31),
    frames=st.integers(1, 24),
    windows=st.lists(st.integers(3, 24), min_size=1, max_size=2),
    bins=st.integers(2, 20),
    missing=st.sampled_from([0.0, 0.6]),
)
def test_histogram_entropies_lie_between_zero_and_one(
    seed: int, frames: int, windows: list[int], bins: int, missing: float
) -> None:
    """Each window by itself, before the mean over lengths; a displacement in each bin is the largest entropy."""
    clips = random_clips(2, frames, 3, device=HERE, seed=seed)
    valid = torch.rand(2, frames, 3, device=HERE) >= missing if missing else None
    values = window_histograms(clips, tuple(windows), valid, bins)
    assert ((values >= 0) & (values <= 1)).all()
    # Displacements of 1/2, 3/2, 5/2, ...: one in each bin.
    way = (torch.arange(bins + 1, device=HERE) ** 2).view(1, -1, 1, 1).expand(-1, -1, 1, 2) / 2
    even = window_histograms(way.float(), (bins + 1,), None, bins)
    assert 1 - 1e-6 <= even.item() <= 1


def test_what_the_kernels_do_not_cover_is_named(device: torch.device) -> None:
    clips = still_and_moving(1, 8, 2, device=device)
    with pytest.raises(RuntimeError, match="more than 8 windows"):
        ops.motion_guidance(clips, windows=tuple(range(1, 10)))
    with pytest.raises(RuntimeError, match="more than 1024 bins"):
        ops.motion_guidance(clips, kind="histogram", bins=1025)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_captured_in_a_graph_and_on_another_stream(kind: str) -> None:
    clips = still_and_moving(3, 22, 5, device="cuda")
    expected = ops.motion_guidance(clips, kind=kind)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        aside = ops.motion_guidance(clips, kind=kind)
    torch.cuda.synchronize()
    assert torch.equal(aside, expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.motion_guidance(clips, kind=kind)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured, expected)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_more_than_two_to_the_31_numbers(kind: str) -> None:
    sequences = 2**31 // 9000 + 2
    clips = torch.zeros(1, device="cuda", dtype=torch.float16).expand(sequences, 120, 25, 3).contiguous()
    clips[-1] = random_clips(1, device="cuda")[0]
    assert clips.numel() > 2**31
    assert torch.equal(
        ops.motion_guidance(clips, kind=kind)[-1], ops.motion_guidance(clips[-1:], kind=kind)[0]
    )
