from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastamr import ops
from fastamr.training.optimizer import build_optimizer, learning_rate_tensor
from fastamr.training.step import ClipSampler, TrainingStep, autocast_dtype


def seed(key: int = 7) -> Tensor:
    return torch.tensor([key, 0])


def build(tiny: Any, data: Any, **options: Any) -> TrainingStep:
    torch.manual_seed(0)
    model = tiny(tiny.Config(dropout=options.pop("dropout", 0.0)))
    optimizer = build_optimizer(model, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
    sampler = ClipSampler(data, 16, min_frames=8)
    return TrainingStep(model, optimizer, sampler, seed(), **options)


def test_sampler_matches_the_op_for_each_setting(skeletons: Any) -> None:
    ids = torch.tensor([3, 1, 4])
    clips, valid = ClipSampler(skeletons, 12, crop=(0.6, 0.8), min_frames=5, max_angle=0.1)(ids, seed())
    expected = ops.sample_clips(
        skeletons.coords,
        skeletons.offsets,
        ids,
        12,
        seed(),
        crop=(0.6, 0.8),
        min_frames=5,
        max_angle=0.1,
        group=torch.tensor([3, 1, 4]),
    )
    assert valid is None
    assert torch.equal(clips, expected)


def test_bodies_of_a_clip_share_crop_and_rotation(make_skeletons: Any) -> None:
    data = make_skeletons(4, bodies=2)
    # Both bodies of a clip get the same coordinates, so equal clips mean equal crop and rotation.
    for first in range(0, data.num_bodies, 2):
        begin, middle, end = data.offsets[first : first + 3].tolist()
        data.coords[middle:end] = data.coords[begin:middle]
    clips, _ = ClipSampler(data, 16, min_frames=8)(torch.arange(8), seed())
    assert torch.equal(clips[0::2], clips[1::2])
    assert not torch.allclose(clips[0], clips[2])


def test_valid_marks_exactly_the_joints_that_come_from_valid_frames(make_skeletons: Any) -> None:
    data = make_skeletons(6, with_valid=True)
    # Where a frame is missing its coordinate is made huge: whatever it touched is far from the rest.
    data.coords[:] = torch.where(data.valid[..., None], 1.0, 1e6)
    clips, valid = ClipSampler(data, 16, min_frames=8, max_angle=0.0)(torch.arange(6), seed())
    assert valid is not None
    assert valid.shape == (6, 16, 25)
    assert torch.equal(valid, clips[..., 0] < 1.5)
    assert 0.5 < valid.float().mean() < 1.0


def test_step_samples_learns_and_advances_the_seed_in_place(tiny: Any, skeletons: Any) -> None:
    step = build(tiny, skeletons)
    held = step.seed
    before = step.model.decoder.weight.clone()
    losses = [step(torch.arange(16)) for _ in range(30)]
    assert losses[0].dtype == torch.float32
    assert losses[0].shape == ()
    assert not losses[0].requires_grad
    assert step.seed is held
    assert held.tolist() == [7, 30]
    assert not torch.equal(before, step.model.decoder.weight)
    assert torch.stack(losses[-5:]).mean() < torch.stack(losses[:5]).mean()


def test_first_update_is_adamw_on_the_models_own_gradient(tiny: Any, skeletons: Any) -> None:
    step = build(tiny, skeletons)
    learning_rate_tensor(step.optimizer).fill_(0.01)
    ids = torch.arange(8)
    clips, _ = step.sampler(ids, step.seed)
    weight = step.model.decoder.weight
    before = weight.detach().clone()
    (gradient,) = torch.autograd.grad(step.model(clips, seed=step.seed), weight)
    step(ids)
    expected = before * (1 - 0.01 * 0.05) - 0.01 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-6)


class Mean(nn.Module):
    """A model without masks: its loss is a mean over sequences, so micro-batches must add up to the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(25))
        self.sizes: list[int] = []

    def forward(self, clips: Tensor, **_: Any) -> Tensor:
        self.sizes.append(len(clips))
        return ((clips[..., 0] * self.weight) ** 2).mean() * 100

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        return [{"params": [self.weight], "weight_decay": weight_decay}]


@pytest.mark.parametrize("clip_grad", [None, 0.5])
def test_accumulation_gives_the_gradient_of_the_whole_batch(skeletons: Any, clip_grad: float | None) -> None:
    results = []
    for accumulate in (1, 4):
        model = Mean()
        optimizer = build_optimizer(model, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
        sampler = ClipSampler(skeletons, 16, min_frames=8)
        step = TrainingStep(model, optimizer, sampler, seed(), accumulate=accumulate, clip_grad=clip_grad)
        loss = step(torch.arange(12))
        assert model.sizes == [12 // accumulate] * accumulate
        assert step.seed.tolist() == [7, accumulate]
        results.append((loss, model.weight.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)
    if clip_grad is not None:
        assert results[0][1].norm().item() == pytest.approx(0.5, rel=1e-4)


def test_valid_reaches_the_model_in_micro_batches(tiny: Any, make_skeletons: Any) -> None:
    step = build(tiny, make_skeletons(8, with_valid=True), accumulate=2)
    step(torch.arange(8))
    clips, valid = step.model.seen
    assert clips.shape == (4, 16, 25, 3)
    assert valid.shape == (4, 16, 25)
    assert valid.dtype == torch.bool


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_on_the_cpu_and_keeps_float32_weights(
    tiny: Any, skeletons: Any, dtype: torch.dtype
) -> None:
    exact, half = build(tiny, skeletons), build(tiny, skeletons, dtype=dtype)
    losses = [step(torch.arange(16)) for step in (exact, half)]
    assert losses[1].dtype == torch.float32
    assert losses[1] == pytest.approx(losses[0].item(), rel=0.02)
    assert losses[1] != losses[0]
    assert half.model.decoder.weight.dtype == torch.float32
    assert torch.isfinite(half.model.decoder.weight).all()


def test_precision_names() -> None:
    cpu = torch.device("cpu")
    assert autocast_dtype("auto", cpu) == torch.float32
    assert autocast_dtype("bfloat16", cpu) == torch.bfloat16
    assert autocast_dtype("float16", cpu) == torch.float16


@pytest.mark.gpu
def test_the_host_never_waits_for_the_device(tiny: Any, skeletons: Any) -> None:
    data = skeletons.to("cuda")
    model = tiny(tiny.Config()).cuda()
    optimizer = build_optimizer(model, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
    sampler = ClipSampler(data, 16, min_frames=8)
    step = TrainingStep(model, optimizer, sampler, seed().cuda(), clip_grad=1.0, dtype=torch.bfloat16)
    ids = torch.arange(16, device="cuda")
    step(ids)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(ids)
    finally:
        torch.cuda.set_sync_debug_mode("default")
