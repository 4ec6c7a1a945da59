"""The reconstruction loss kernels against the float64 reference, gradients included."""

from __future__ import annotations

import pytest
import torch
import triton.language as tl
from fastamr.kernels.reconstruction_target import MOST_COUNTS, count_numbers
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import fastamr
from fastamr import ops
from fastamr.reference.weighted_reconstruction_loss import loss_slope_and_share
from fastamr.testing import assert_as_good_as, random_clips

from .repeats import assert_repeats

DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
NORMALIZATIONS = ["sequence", "patch", "none"]


def double(value: object) -> object:
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def loss_and_gradient(
    prediction: torch.Tensor, clips: torch.Tensor, **options: object
) -> tuple[torch.Tensor, torch.Tensor]:
    loss, slope, share, _ = loss_slope_and_share(prediction, clips, **options)
    return loss, (slope * share[None]).to(prediction.dtype)


def run(
    prediction: torch.Tensor, clips: torch.Tensor, **options: object
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss and its gradient as a user gets them."""
    leaf = prediction.detach().requires_grad_()
    loss = ops.weighted_reconstruction_loss(leaf, clips, **options)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def check(prediction: torch.Tensor, clips: torch.Tensor, *, floor: float = 1e-7, **options: object) -> None:
    """As exact as PyTorch, no signed bias, the same bits twice."""
    loss, slope = run(prediction, clips, **options)
    assert loss.dtype == torch.float32
    assert slope.dtype == prediction.dtype
    wide = {name: double(value) for name, value in options.items()}
    truth = loss_and_gradient(double(prediction), double(clips), **wide)
    peer = loss_and_gradient(prediction, clips, **options)
    # A single number may be exact in the peer by chance; four units in the last place are what a float32 sum costs.
    assert_as_good_as(loss, truth[0], peer[0], floor=4 * 2**-24)
    assert_as_good_as(slope, truth[1], peer[1], floor=floor)
    error = (slope.double() - truth[1]).flatten()
    if len(error) > 100:
        # Columns share the rounding of their statistics, so fewer errors are independent than there are numbers.
        columns = clips.shape[0] * clips.shape[2] * clips.shape[3]
        assert error.mean().abs() <= 4 * error.square().mean().sqrt() / columns**0.5 + 1e-30
    assert_repeats((loss, slope), lambda: run(prediction, clips, **options))


def inputs(
    device: torch.device,
    *,
    sequences: int = 2,
    frames: int = 12,
    joints: int = 6,
    channels: int = 3,
    target_frames: int = 4,
    target_joints: int = 1,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    clips = random_clips(sequences, frames, joints, channels, device=device)
    queries = frames // target_frames * (joints // target_joints)
    numbers = target_frames * target_joints * channels
    return torch.randn(sequences, queries, numbers, device=device).to(dtype), clips


@pytest.mark.thinned(2)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", ["motion", "joints"])
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("given_options", ["", "guidance", "mask", "valid", "guidance mask valid"])
def test_options(
    given_options: str, normalize: str, target: str, dtype: torch.dtype, device: torch.device
) -> None:
    for target_joints, stride in ((1, 1), (3, 2)):
        prediction, clips = inputs(device, target_joints=target_joints, dtype=dtype)
        options = {"normalize": normalize, "target": target, "stride": stride, "target_joints": target_joints}
        if "guidance" in given_options:
            options["guidance"] = torch.rand(2, 12, 6, device=device)
        if "mask" in given_options:
            options["token_mask"] = torch.rand(2, prediction.shape[1], device=device) > 0.5
        if "valid" in given_options:
            valid = torch.rand(2, 12, 6, device=device) > 0.3
            clips = torch.where(valid[..., None], clips, float("nan"))
            options["valid"] = valid
            if "guidance" in options:
                options["guidance"] = torch.where(valid, options["guidance"], float("nan"))
        check(prediction, clips, target_frames=4, **options)


@pytest.mark.parametrize(
    ("frames", "joints", "channels", "target_frames", "target_joints"),
    [
        (120, 5, 3, 24, 1),
        (120, 8, 2, 24, 2),
        (127, 6, 3, 127, 1),
        (128, 9, 2, 16, 3),
        (129, 15, 1, 43, 5),
        (129, 16, 1, 43, 4),
        (131, 17, 1, 131, 17),
        (300, 3, 3, 25, 1),
        (8, 25, 3, 4, 1),
        (4, 133, 2, 2, 7),
        (1, 1, 3, 1, 1),
        (2, 1, 2, 1, 1),
        (13, 1, 3, 13, 1),
        (6, 1, 70, 3, 1),
    ],
)
def test_columns(
    frames: int, joints: int, channels: int, target_frames: int, target_joints: int, device: torch.device
) -> None:
    """Frames and columns around the tile's sizes, patches of every form."""
    shape = {"frames": frames, "joints": joints, "channels": channels}
    patch = {"target_frames": target_frames, "target_joints": target_joints}
    prediction, clips = inputs(device, **shape, **patch)
    guidance = torch.rand(2, frames, joints, device=device)
    check(prediction, clips, **patch, guidance=guidance, target="joints" if frames == 1 else "motion")


@pytest.mark.thinned
@pytest.mark.parametrize(
    ("frames", "joints", "channels", "target_frames", "target_joints"),
    [
        (4, 127, 3, 4, 1),
        (4, 128, 3, 4, 1),
        (4, 129, 3, 4, 1),
        (15, 3, 1, 15, 1),
        (16, 3, 1, 16, 1),
        (17, 3, 1, 17, 1),
        (6, 133, 2, 3, 19),
        (70, 31, 1, 70, 31),
        (1, 1, 2, 1, 1),
    ],
)
@pytest.mark.parametrize("normalize", ["patch", "none"])
def test_patches(
    normalize: str,
    frames: int,
    joints: int,
    channels: int,
    target_frames: int,
    target_joints: int,
    device: torch.device,
) -> None:
    """Patches and numbers around the tile's sizes."""
    shape = {"frames": frames, "joints": joints, "channels": channels}
    patch = {"target_frames": target_frames, "target_joints": target_joints}
    prediction, clips = inputs(device, **shape, **patch)
    mask = torch.rand(prediction.shape[:2], device=device) > 0.2
    check(prediction, clips, **patch, normalize=normalize, token_mask=mask)


@pytest.mark.parametrize("target", ["motion", "joints"])
def test_whole_body_and_long_clips(target: str, device: torch.device) -> None:
    prediction, clips = inputs(device, sequences=1, frames=2050, joints=1, target_frames=2050)
    # NumPy, and so the interpreter, adds these frames one by one; a GPU adds them by a tree.
    check(prediction, clips, floor=5e-7 if device.type == "cpu" else 1e-7, target_frames=2050, target=target)
    prediction, clips = inputs(device, sequences=1, frames=6, joints=133, target_frames=3)
    check(prediction, clips, target_frames=3, target=target)


@pytest.mark.thinned
@pytest.mark.parametrize("stride", [1, 5, 11, 12, 40])
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_strides_of_motion(normalize: str, stride: int, device: torch.device) -> None:
    prediction, clips = inputs(device)
    valid = torch.rand(2, 12, 6, device=device) > 0.3
    for known in (None, valid):
        check(prediction, clips, target_frames=4, stride=stride, valid=known, normalize=normalize)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_mixed_dtypes(normalize: str, device: torch.device) -> None:
    prediction, clips = inputs(device)
    guidance = torch.rand(2, 12, 6, device=device)
    half = torch.float16
    for kinds in ((half, half, half), (torch.float32, half, torch.float32), (half, torch.float32, half)):
        check(
            prediction.to(kinds[0]),
            clips.to(kinds[1]),
            target_frames=4,
            guidance=guidance.to(kinds[2]),
            normalize=normalize,
        )


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_any_memory_layout(normalize: str, device: torch.device) -> None:
    prediction, clips = inputs(device, sequences=3, target_joints=2)
    guidance, valid = torch.rand(3, 12, 6, device=device), torch.rand(3, 12, 6, device=device) > 0.2
    mask = torch.rand(3, 9, device=device) > 0.3

    def scrambled(value: torch.Tensor) -> torch.Tensor:
        """The same values, the last axis outermost and every second element of a larger buffer."""
        moved = value.movedim(-1, 0)
        wide = moved.new_zeros((*moved.shape[:-1], 2 * moved.shape[-1]))
        wide[..., 1::2] = moved
        return wide[..., 1::2].movedim(0, -1)

    options = {"target_frames": 4, "target_joints": 2, "normalize": normalize}
    tensors = {"guidance": guidance, "token_mask": mask, "valid": valid}
    loss, slope = run(prediction, clips, **options, **tensors)
    other = run(
        scrambled(prediction),
        scrambled(clips),
        **options,
        **{name: scrambled(value) for name, value in tensors.items()},
    )
    assert torch.equal(loss, other[0])
    assert torch.equal(slope, other[1])
    transposed = prediction.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(run(transposed, clips, **options, **tensors)[1], slope)
    one = run(prediction[:1, :1].expand_as(prediction), clips, **options)
    same = run(prediction[:1, :1].expand_as(prediction).contiguous(), clips, **options)
    assert torch.equal(one[1], same[1])


def test_a_view_of_larger_clips_reads_nothing_else(device: torch.device) -> None:
    prediction, clips = inputs(device)
    wide = torch.full((2, 14, 8, 5), float("nan"), device=device)
    wide[:, 1:13, 1:7, 1:4] = clips
    for normalize in NORMALIZATIONS:
        expected = run(prediction, clips, target_frames=4, normalize=normalize)
        found = run(prediction, wide[:, 1:13, 1:7, 1:4], target_frames=4, normalize=normalize)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_nothing_counts(normalize: str, device: torch.device) -> None:
    prediction, clips = inputs(device)
    nothing = torch.zeros(2, 12, 6, dtype=torch.bool, device=device)
    nowhere = torch.zeros(2, 18, dtype=torch.bool, device=device)
    spoiled = torch.full_like(clips, float("nan"))
    for options in ({"valid": nothing}, {"token_mask": nowhere}, {"valid": nothing, "token_mask": nowhere}):
        values = spoiled if "valid" in options else clips
        loss, slope = run(prediction, values, target_frames=4, normalize=normalize, **options)
        assert loss == 0
        assert (slope == 0).all()


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_no_sequences(normalize: str, device: torch.device) -> None:
    prediction, clips = inputs(device, sequences=0)
    valid = torch.ones(0, 12, 6, dtype=torch.bool, device=device)
    for known in (None, valid):
        loss, slope = run(prediction, clips, target_frames=4, normalize=normalize, valid=known)
        assert loss == 0
        assert slope.shape == prediction.shape


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_negative_weights_as_the_reference_takes_them(normalize: str, device: torch.device) -> None:
    """Without valid they count; with it only weights above 0 do."""
    prediction, clips = inputs(device)
    guidance = torch.randn(2, 12, 6, device=device)
    for valid in (None, torch.rand(2, 12, 6, device=device) > 0.2):
        check(prediction, clips, target_frames=4, guidance=guidance, valid=valid, normalize=normalize)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_a_sequence_does_not_depend_on_its_batch(normalize: str, device: torch.device) -> None:
    """With 4 sequences instead of 1 the mean only divides by 4 times as much, which is exact."""
    prediction, clips = inputs(device, sequences=4)
    slope = run(prediction, clips, target_frames=4, normalize=normalize)[1]
    for s in range(4):
        alone = run(prediction[s : s + 1], clips[s : s + 1], target_frames=4, normalize=normalize)[1]
        assert torch.equal(alone[0], slope[s] * 4)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_the_loss_of_each_sequence(normalize: str, device: torch.device) -> None:
    """That of the reference; and to ask for it changes no bit of loss and gradient."""
    prediction, clips = inputs(device, sequences=5, joints=40)
    valid = torch.rand(5, 12, 40, device=device) > 0.2
    for options in ({}, {"valid": valid}):
        found = []
        for name in ("triton", "reference"):
            leaf = prediction.clone().requires_grad_()
            with fastamr.backend(name):
                loss, sequences = ops.weighted_reconstruction_loss(
                    leaf, clips, target_frames=4, normalize=normalize, return_sequences=True, **options
                )
                assert torch.equal(
                    loss,
                    ops.weighted_reconstruction_loss(
                        leaf, clips, target_frames=4, normalize=normalize, **options
                    ),
                )
            found.append(sequences)
        torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=0)
    _, none = ops.weighted_reconstruction_loss(
        prediction[:0], clips[:0], target_frames=4, normalize=normalize, return_sequences=True
    )
    assert none.shape == (0,)


@settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(
    seed=st.integers(0, 2**31),
    sequences=st.integers(2, 7),
    normalize=st.sampled_from(NORMALIZATIONS),
    partial=st.booleans(),
)
def test_permuting_sequences_changes_nothing(
    seed: int, sequences: int, normalize: str, partial: bool
) -> None:
    """A property of the loss: up to the order of its last sum."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(seed)
    clips = random_clips(sequences, 8, 3, device=device, seed=seed)
    prediction = torch.randn(sequences, 6, 12, generator=generator).to(device)
    guidance = torch.rand(sequences, 8, 3, generator=generator).to(device)
    mask = (torch.rand(sequences, 6, generator=generator) > 0.4).to(device) if partial else None
    order = torch.randperm(sequences, generator=generator).to(device)
    options = {"target_frames": 4, "normalize": normalize}
    loss, slope = run(prediction, clips, guidance=guidance, token_mask=mask, **options)
    mixed = run(
        prediction[order],
        clips[order],
        guidance=guidance[order],
        token_mask=mask[order] if mask is not None else None,
        **options,
    )
    torch.testing.assert_close(mixed[0], loss, rtol=1e-6, atol=0)
    assert torch.equal(mixed[1], slope[order])


@pytest.mark.parametrize(
    ("motion", "sequences", "frames", "joints"),
    [(True, 1, 25, 41), (False, 3, 31, 33), (True, 2, 341, 3), (False, 1, 1, 1), (True, 1030, 2, 3)],
)
def test_partial_counts_add_up(
    motion: bool,
    sequences: int,
    frames: int,
    joints: int,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More cells than a block, more sequences than programs."""
    most = MOST_COUNTS.value
    if device.type == "cpu" and sequences > most:  # the interpreter takes seconds for a thousand programs
        sequences, most = sequences - most + 16, 16
        monkeypatch.setattr("fastamr.kernels.reconstruction_target.MOST_COUNTS", tl.constexpr(most))
    clips = torch.empty(sequences, frames, joints, 3, device=device)
    valid = torch.rand(sequences, frames, joints, device=device) > 0.3
    mask = torch.rand(sequences, joints, device=device) > 0.3
    counts = count_numbers(clips, mask, valid, target_frames=frames, target_joints=1, motion=motion, stride=1)
    later = torch.cat([valid[:, 1:], torch.ones_like(valid[:, :1])], 1)
    known = valid & later if motion else valid
    assert counts is not None
    assert len(counts) <= most
    assert counts.sum() == 3 * (known & mask[:, None]).sum()


def test_upstream_and_second_gradients(device: torch.device) -> None:
    prediction, clips = inputs(device)
    mask = torch.rand(2, 18, device=device) > 0.3
    upstream = torch.randn(2, 18, 12, device=device)
    found = []
    for name in ("triton", "reference"):
        leaf = prediction.clone().requires_grad_()
        with fastamr.backend(name):
            loss = ops.weighted_reconstruction_loss(leaf, clips, target_frames=4, token_mask=mask)
            (slope,) = torch.autograd.grad(3 * loss, leaf, create_graph=True)
        found.append((slope.detach(), torch.autograd.grad((slope * upstream).sum(), leaf)[0]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-8)


def test_what_the_kernels_do_not_cover_is_named(device: torch.device) -> None:
    long = torch.zeros(1, 8193, 1, 1, device=device)
    with pytest.raises(RuntimeError, match="4096 frames"):
        ops.weighted_reconstruction_loss(torch.zeros(1, 1, 8193, device=device), long, target_frames=8193)
    with pytest.raises(RuntimeError, match="4096 values"):
        ops.weighted_reconstruction_loss(
            torch.zeros(1, 1, 8193, device=device), long, target_frames=8193, normalize="none"
        )
    prediction, clips = inputs(device)
    guidance = torch.ones(2, 12, 6, dtype=torch.float64, device=device)
    for options in ({"clips": clips.double()}, {"clips": clips, "guidance": guidance}):
        with pytest.raises(RuntimeError, match="float64"):
            ops.weighted_reconstruction_loss(prediction, target_frames=4, **options)


@pytest.mark.gpu
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_captured_in_a_graph_and_on_another_stream(normalize: str) -> None:
    prediction, clips = inputs(torch.device("cuda"))
    valid = torch.rand(2, 12, 6, device="cuda") > 0.3
    options = {"target_frames": 4, "normalize": normalize, "valid": valid}
    loss, slope = run(prediction, clips, **options)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        aside = run(prediction, clips, **options)
    torch.cuda.synchronize()
    assert torch.equal(aside[0], loss)
    assert torch.equal(aside[1], slope)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(prediction, clips, **options)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured[0], loss)
    assert torch.equal(captured[1], slope)


@pytest.mark.gpu
@pytest.mark.slow
def test_more_than_two_to_the_31_numbers() -> None:
    sequences = 2**31 // 9000 + 2
    clips = torch.zeros(1, device="cuda", dtype=torch.float16).expand(sequences, 120, 25, 3).contiguous()
    prediction = torch.zeros(sequences, 125, 72, device="cuda", dtype=torch.bfloat16)
    clips[-1] = random_clips(1, device="cuda")[0]
    prediction[-1] = torch.randn(125, 72, device="cuda")
    assert prediction.numel() > 2**31
    slope = run(prediction, clips, target_frames=24)[1]
    alone = run(prediction[-1:], clips[-1:], target_frames=24)[1]
    torch.testing.assert_close(slope[-1].float() * sequences, alone[0].float(), rtol=2e-2, atol=1e-6)
    assert (slope[0] == 0).all()
