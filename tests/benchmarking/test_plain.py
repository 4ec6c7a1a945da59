"""The plain baselines: the same models, nothing of this library in them, nothing taken away from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fastamr
import fastamr.models
from fastamr.benchmarking.cost import step_flops
from fastamr.benchmarking.plain import PlainModel
from fastamr.benchmarking.plain_step import PlainStep
from fastamr.models import build_model
from fastamr.testing import random_clips


class Watch(TorchDispatchMode):
    """Collects the names of all operators and the shapes that they return."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        self.names.add(str(function))
        if isinstance(result, torch.Tensor):
            self.shapes.add(tuple(result.shape))
        return result


@pytest.mark.parametrize("attention", ["materialised", "sdpa"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("skeleton_mae", {}),
        ("amr", {}),
        ("amr", {"guidance": "none", "target_joints": 5, "normalize": "patch"}),
    ],
)
def test_equals_the_library_in_float64(
    name: str, options: dict[str, Any], attention: str, tiny: dict[str, Any]
) -> None:
    """Loss and every gradient of the plain form and of the library's reference path."""
    model = build_model(name, {**tiny, **options}).double()
    clips = random_clips(3, 24, dtype=torch.float64)
    plain = PlainModel(model, attention)
    loss, keep = plain(clips)
    loss.backward()
    found = {key: parameter.grad for key, parameter in model.named_parameters()}
    model.zero_grad()
    with fastamr.backend("reference"):
        truth = model(clips, keep=keep.int())
        truth.backward()
    torch.testing.assert_close(loss, truth, rtol=1e-12, atol=0)
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(found[key], parameter.grad, rtol=1e-8, atol=1e-12, msg=key)


def test_masks_at_random_with_the_right_number(tiny: dict[str, Any]) -> None:
    model = build_model("amr", tiny)
    clips = random_clips(4, 24)
    first, second = (PlainModel(model, "sdpa")(clips)[1] for _ in range(2))
    assert first.shape == (4, model.config.visible)
    assert all(len(set(row.tolist())) == model.config.visible for row in first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", ["skeleton_mae", "amr"])
def test_nothing_of_this_library_runs_in_it(name: str, tiny: dict[str, Any]) -> None:
    model = build_model(name, tiny)
    for attention in ("materialised", "sdpa"):
        step = PlainStep(model, random_clips(2, 24), attention=attention, fused=False)
        with Watch() as watch:
            step()
        assert not [operator for operator in watch.names if "fastamr" in operator]
        sdpa = any("scaled_dot_product" in operator for operator in watch.names)
        assert sdpa == (attention == "sdpa")
        tokens = model.config.tokens if name == "skeleton_mae" else model.config.visible
        assert ((2, 2, tokens, tokens) in watch.shapes) == (attention == "materialised")


def test_step_trains_and_reports_its_batch(tiny: dict[str, Any]) -> None:
    model = build_model("amr", tiny)
    clips = random_clips(4, 24)
    step = PlainStep(model, clips, attention="sdpa", precision="bfloat16")
    losses = [float(step()) for _ in range(30)]
    assert min(losses[-5:]) < 0.8 * losses[0]
    shown, keep = step.first_batch()
    assert shown is clips
    assert keep.shape == (4, model.config.visible)
    assert (step.is_graph, step.preparation) == (False, 0)
    assert torch.get_float32_matmul_precision() == "highest"


def test_refuses_what_it_has_no_plain_form_of(tiny: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="GFPModel has no plain form: expected SkeletonMAEModel or AMRModel"):
        PlainModel(build_model("gfp", frames=120, width=16, heads=2, depth=1), "sdpa")
    with pytest.raises(ValueError, match="masking 'frame' and attention 'sdpa'"):
        PlainModel(build_model("amr", {**tiny, "masking": "frame"}), "sdpa")
    with pytest.raises(ValueError, match="attention 'flash'"):
        PlainModel(build_model("amr", tiny), "flash")


def test_flops_of_the_papers_configurations() -> None:
    """Linear layers as in the papers' tables (3.8 and 13.7 GFLOPs for two bodies) and the attention by hand."""
    amr = 3 * (8 * 4 * 75 * 75 * 256 + 5 * 4 * 125 * 75 * 256)
    mae = 3 * (8 * 4 * 75 * 75 * 256 + 5 * 4 * 750 * 750 * 256)
    for name, attention in (("amr", amr), ("skeleton_mae", mae)):
        model = build_model(name)
        linear = 3 * fastamr.models.count_flops(model) / 2
        assert step_flops(model, 1) == pytest.approx(linear + attention, rel=1e-12)
        assert step_flops(model, 256) == pytest.approx(256 * step_flops(model, 1))
        assert not any(layer._forward_hooks for layer in model.modules())
