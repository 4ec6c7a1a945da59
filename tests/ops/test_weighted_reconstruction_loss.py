from __future__ import annotations

import pytest
import torch

from fastamr import ops
from fastamr.testing import assert_as_good_as, random_clips


def target_by_loops(
    clips: torch.Tensor, frames: int, joints: int, target: str, stride: int, normalize: str, eps: float
) -> torch.Tensor:
    """Target patches of complete clips, number by number."""
    sequences, length, bodies, _ = clips.shape
    values = clips.clone()
    if target == "motion":
        for t in range(length):
            values[:, t] = clips[:, t + stride] - clips[:, t] if t + stride < length else 0
    if normalize == "sequence":
        values = (values - values.mean(1, keepdim=True)) / (values.var(1, keepdim=True) + eps).sqrt()
    patches = []
    for t in range(0, length, frames):
        for v in range(0, bodies, joints):
            patches.append(values[:, t : t + frames, v : v + joints].reshape(sequences, -1))
    result = torch.stack(patches, 1)
    if normalize == "patch":
        result = (result - result.mean(-1, keepdim=True)) / (result.var(-1, keepdim=True) + eps).sqrt()
    return result


GRIDS = [(12, 5, 3, 4, 1), (12, 6, 2, 3, 2), (6, 3, 3, 6, 3), (10, 1, 3, 1, 1)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("target", ["motion", "joints"])
@pytest.mark.parametrize("normalize", ["sequence", "patch", "none"])
def test_against_loops(grid: tuple[int, ...], target: str, normalize: str) -> None:
    length, bodies, channels, frames, joints = grid
    clips = random_clips(2, length, bodies, channels, dtype=torch.float64)
    expected_target = target_by_loops(clips, frames, joints, target, 2, normalize, 1e-6)
    prediction = torch.randn_like(expected_target).requires_grad_()
    weight = torch.rand(2, length, bodies, dtype=torch.float64)
    spread = weight[..., None].expand(-1, -1, -1, channels)
    patches = target_by_loops(spread.contiguous(), frames, joints, "joints", 1, "none", 1e-6)
    options = {"target_frames": frames, "target_joints": joints, "target": target, "stride": 2}
    loss = ops.weighted_reconstruction_loss(
        prediction, clips, guidance=weight, normalize=normalize, **options
    )
    expected = (patches * (prediction - expected_target).square()).mean()
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, prediction)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, prediction)[0])
    plain = ops.weighted_reconstruction_loss(prediction, clips, normalize=normalize, **options)
    torch.testing.assert_close(plain, (prediction - expected_target).square().mean())


def test_token_mask_restricts_the_mean() -> None:
    clips = random_clips(3, 8, 3, dtype=torch.float64)
    prediction = torch.randn(3, 6, 12, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(3, 6) > 0.5
    loss = ops.weighted_reconstruction_loss(
        prediction, clips, target_frames=4, token_mask=mask, target="joints", normalize="patch"
    )
    truth = target_by_loops(clips, 4, 1, "joints", 1, "patch", 1e-6)
    torch.testing.assert_close(loss, (prediction - truth).square()[mask].mean())
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert (gradient[~mask] == 0).all()
    none = ops.weighted_reconstruction_loss(
        prediction, clips, target_frames=4, token_mask=torch.zeros_like(mask)
    )
    assert none == 0


@pytest.mark.parametrize("normalize", ["sequence", "patch", "none"])
@pytest.mark.parametrize("target", ["motion", "joints"])
def test_missing_joints_are_no_targets(normalize: str, target: str) -> None:
    """The loss does not depend on what an invalid coordinate holds, NaN included, and is not diluted by it."""
    clips = random_clips(2, 12, 4, dtype=torch.float64)
    valid = torch.rand(2, 12, 4) > 0.3
    prediction = torch.randn(2, 12, 12, dtype=torch.float64, requires_grad=True)
    options = {"target_frames": 4, "valid": valid, "normalize": normalize, "target": target}
    losses, gradients = [], []
    for filler in (0.0, 1e3, float("nan")):
        spoiled = torch.where(valid[..., None], clips, filler)
        loss = ops.weighted_reconstruction_loss(prediction, spoiled, **options)
        losses.append(loss.item())
        gradients.append(torch.autograd.grad(loss, prediction)[0])
    assert losses[0] == losses[1] == losses[2]
    assert torch.equal(gradients[0], gradients[2])
    known = valid & torch.cat([valid[:, 1:], valid[:, -1:]], 1) if target == "motion" else valid
    counted = known[..., None].expand(-1, -1, -1, 3).unflatten(1, (3, 4)).transpose(2, 3).reshape(2, 12, 12)
    assert ((gradients[0] != 0) == counted).all()


def test_missing_joints_statistics() -> None:
    """With a whole joint missing, the loss is that of the remaining joints."""
    clips = random_clips(2, 12, 4, dtype=torch.float64)
    valid = torch.ones(2, 12, 4, dtype=torch.bool)
    valid[:, :, 3] = False
    prediction = torch.randn(2, 12, 12, dtype=torch.float64)
    for normalize in ("sequence", "patch", "none"):
        found = ops.weighted_reconstruction_loss(
            prediction, clips, target_frames=4, valid=valid, normalize=normalize
        )
        rest = prediction.unflatten(1, (3, 4))[:, :, :3].flatten(1, 2)
        expected = ops.weighted_reconstruction_loss(
            rest, clips[:, :, :3].contiguous(), target_frames=4, normalize=normalize
        )
        torch.testing.assert_close(found, expected)


def test_gradcheck_first_and_second_order() -> None:
    clips = random_clips(2, 8, 3, dtype=torch.float64)
    guidance = torch.rand(2, 8, 3, dtype=torch.float64)
    mask = torch.rand(2, 6) > 0.3
    prediction = torch.randn(2, 6, 12, dtype=torch.float64, requires_grad=True)

    def function(p: torch.Tensor) -> torch.Tensor:
        return ops.weighted_reconstruction_loss(p, clips, target_frames=4, guidance=guidance, token_mask=mask)

    assert torch.autograd.gradcheck(function, (prediction,))
    assert torch.autograd.gradgradcheck(function, (prediction,))


def test_permuting_sequences_changes_nothing() -> None:
    clips, prediction = random_clips(5, 8, 3, dtype=torch.float64), torch.randn(5, 6, 12, dtype=torch.float64)
    order = torch.randperm(5)
    first = ops.weighted_reconstruction_loss(prediction, clips, target_frames=4)
    torch.testing.assert_close(
        first, ops.weighted_reconstruction_loss(prediction[order], clips[order], target_frames=4)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_as_exact_as_pytorch(dtype: torch.dtype) -> None:
    clips = random_clips(2, 24, 5)
    prediction = torch.randn(2, 30, 12, dtype=dtype, requires_grad=True)
    loss = ops.weighted_reconstruction_loss(prediction, clips, target_frames=4)
    assert loss.dtype == torch.float32
    truth_target = target_by_loops(clips.double(), 4, 1, "motion", 1, "sequence", 1e-6)
    peer_target = target_by_loops(clips, 4, 1, "motion", 1, "sequence", 1e-6)
    truth = (prediction.double() - truth_target).square().mean()
    peer = (prediction.float() - peer_target).square().mean()
    assert_as_good_as(loss, truth, peer, floor=5e-7)
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert gradient.dtype == dtype
    (expected,) = torch.autograd.grad(truth, prediction)
    (other,) = torch.autograd.grad(peer, prediction)
    # Below 2^-14 a float16 is rounded a second time, when the slope is multiplied by its share.
    assert_as_good_as(gradient, expected, other, floor=2e-6 if dtype == torch.float16 else 1e-7)


def test_autocast_keeps_float32() -> None:
    clips, prediction = random_clips(2, 8, 3), torch.randn(2, 6, 12)
    plain = ops.weighted_reconstruction_loss(prediction, clips, target_frames=4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ops.weighted_reconstruction_loss(prediction, clips, target_frames=4), plain)


def test_empty_batch_and_upstream_gradient() -> None:
    clips, prediction = random_clips(2, 8, 3), torch.randn(2, 6, 12, requires_grad=True)
    assert ops.weighted_reconstruction_loss(prediction[:0], clips[:0], target_frames=4) == 0
    loss = ops.weighted_reconstruction_loss(prediction, clips, target_frames=4)
    (single,) = torch.autograd.grad(loss, prediction, retain_graph=True)
    (triple,) = torch.autograd.grad(3 * loss, prediction)
    torch.testing.assert_close(triple, 3 * single)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"target_frames": 3}, "target_frames=3 does not divide frames=8"),
        ({"target_joints": 2}, "target_joints=2 does not divide joints=3"),
        ({"target": "motoin"}, "did you mean 'motion'"),
        ({"normalize": "batch"}, "normalize"),
        ({"stride": 0}, "stride=0"),
        ({"eps": 0.0}, "eps=0.0"),
        ({"guidance": torch.ones(2, 8, 2)}, "guidance must have shape"),
        ({"token_mask": torch.ones(2, 5, dtype=torch.bool)}, "token_mask must have shape"),
        ({"target_frames": 8}, "prediction must have shape"),
    ],
)
def test_errors(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ops.weighted_reconstruction_loss(
            torch.zeros(2, 6, 12), torch.zeros(2, 8, 3, 3), **{"target_frames": 4, **options}
        )


@pytest.mark.parametrize("normalize", ["sequence", "patch", "none"])
def test_the_loss_is_the_distance_to_the_public_target(normalize: str) -> None:
    clips = random_clips(2, 12, 5, dtype=torch.float64)
    valid = torch.rand(2, 12, 5) > 0.2
    options = {"target_frames": 4, "target": "motion", "normalize": normalize, "valid": valid}
    target, known = ops.reconstruction_target(clips, **options)
    assert target.shape == known.shape == (2, 15, 12)
    prediction = torch.randn(2, 15, 12, dtype=torch.float64)
    expected = (prediction - target).square()[known].mean()
    loss = ops.weighted_reconstruction_loss(prediction, clips, **options)
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)
    everything, known = ops.reconstruction_target(clips.float(), target_frames=12, target_joints=5)
    assert everything.shape == (2, 1, 180)
    assert everything.dtype == torch.float32
    assert known is None


def test_errors_of_the_target() -> None:
    clips = random_clips(2, 12, 5)
    with pytest.raises(ValueError, match="target_frames=5 does not divide frames=12"):
        ops.reconstruction_target(clips, target_frames=5)
    with pytest.raises(ValueError, match="target_joints=2 does not divide joints=5"):
        ops.reconstruction_target(clips, target_frames=4, target_joints=2)
    with pytest.raises(ValueError, match="unknown normalize"):
        ops.reconstruction_target(clips, target_frames=4, normalize="batch")


def test_masked_mean_of_float64_is_float64() -> None:
    clips = random_clips(1, 12, 5, dtype=torch.float64)
    prediction = torch.zeros(1, 15, 12, dtype=torch.float64)
    mask = torch.arange(15)[None] < 7
    target, _ = ops.reconstruction_target(clips, target_frames=4)
    loss = ops.weighted_reconstruction_loss(prediction, clips, target_frames=4, token_mask=mask)
    torch.testing.assert_close(loss, target[mask].square().mean(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_gradient_of_a_scaled_loss_keeps_its_precision(dtype: torch.dtype) -> None:
    """One over millions of values is no normal float16, and a scaler's factor is none at all."""
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(256, 120, 75, generator=generator).to(dtype)
    clips = torch.randn(256, 120, 25, 3, generator=generator)
    for scale in (1.0, 65536.0):
        leaf, exact = prediction.clone().requires_grad_(), prediction.double().requires_grad_()
        for each in (leaf, exact):
            loss = ops.weighted_reconstruction_loss(each, clips, target_frames=1, target_joints=25)
            (scale * loss).backward()
        assert leaf.grad is not None
        assert exact.grad is not None
        assert torch.isfinite(leaf.grad).all()
        if scale > 1:
            close = {torch.float16: 1e-3, torch.bfloat16: 5e-3}[dtype]
            error = (leaf.grad.double() - exact.grad).norm() / exact.grad.norm()
            assert error < close
            assert (leaf.grad == 0).double().mean() < 2e-4


@pytest.mark.parametrize("normalize", ["sequence", "patch", "none"])
@pytest.mark.parametrize("given", ["", "guidance", "mask", "valid", "guidance mask valid"])
def test_the_loss_of_each_sequence_is_its_loss_alone(given: str, normalize: str) -> None:
    clips = random_clips(4, 12, 5, dtype=torch.float64)
    prediction = torch.randn(4, 15, 12, dtype=torch.float64, requires_grad=True)
    tensors = {
        "guidance": torch.rand(4, 12, 5, dtype=torch.float64),
        "token_mask": torch.rand(4, 15) > 0.4,
        "valid": torch.rand(4, 12, 5) > torch.tensor([0.1, 0.3, 0.5, 0.7])[:, None, None],
    }
    tensors = {name: value for name, value in tensors.items() if name.removeprefix("token_") in given.split()}
    options = {"target_frames": 4, "normalize": normalize}
    loss, sequences = ops.weighted_reconstruction_loss(
        prediction, clips, return_sequences=True, **options, **tensors
    )
    assert not sequences.requires_grad
    assert torch.equal(loss, ops.weighted_reconstruction_loss(prediction, clips, **options, **tensors))
    for place in range(4):
        one = {name: value[place : place + 1] for name, value in tensors.items()}
        alone = ops.weighted_reconstruction_loss(
            prediction[place : place + 1], clips[place : place + 1], **options, **one
        )
        torch.testing.assert_close(sequences[place], alone)
    if given in ("", "guidance"):
        torch.testing.assert_close(sequences.mean(), loss)


def test_a_sequence_of_which_nothing_counts_has_no_loss() -> None:
    clips, prediction = random_clips(3, 8, 3), torch.randn(3, 6, 12)
    valid, mask = torch.ones(3, 8, 3, dtype=torch.bool), torch.ones(3, 6, dtype=torch.bool)
    valid[1], mask[1] = False, False
    for options in ({"valid": valid}, {"token_mask": mask}, {"valid": valid, "token_mask": mask}):
        _, sequences = ops.weighted_reconstruction_loss(
            prediction, clips, target_frames=4, return_sequences=True, **options
        )
        assert sequences.isnan().tolist() == [False, True, False]
        nothing = {name: torch.zeros_like(value) for name, value in options.items()}
        loss, sequences = ops.weighted_reconstruction_loss(
            prediction, clips, target_frames=4, return_sequences=True, **nothing
        )
        assert loss == 0
        assert sequences.isnan().all()
