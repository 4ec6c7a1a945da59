"""Fine-tuning's step on the fused path: all tokens, drop path, bfloat16, seeds, batches of a fixed size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fastamr
from fastamr import native
from fastamr.models import ActionClassifier, build_model
from fastamr.models.parts.pooling import average_bodies
from fastamr.ops.common.backends import watched
from fastamr.testing import relative_error

needs_extension = pytest.mark.skipif(native.why_not("cpu") is not None, reason="no CPU extension")
CLASSES = 5


def build(drop_path: float = 0.5, depth: int = 3, name: str = "amr", **options: Any) -> ActionClassifier:
    """The encoder sees all 2 * 25 = 50 tokens of a clip."""
    torch.manual_seed(0)
    extra = {"target_patches": 1} if name == "amr" else {}
    size = {"width": 32, "heads": 2, "depth": depth}
    size |= {} if name == "asma" else {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
    model = build_model(name, frames=8, **size, **extra, **options)
    return ActionClassifier(model, CLASSES, hidden=0, dropout=0.0, drop_path=drop_path).train()


def clips(count: int = 6) -> Tensor:
    return torch.randn(count, 8, 25, 3, generator=torch.Generator().manual_seed(1))


def seed(number: int = 0, *first: int) -> Tensor:
    return torch.tensor([3, number, *first])


def gradients(model: ActionClassifier, stack: str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Logits and the gradients of a loss."""
    model.zero_grad()
    x = clips().to(next(model.parameters()).dtype)
    with fastamr.backend(transformer_stack=stack), torch.autocast("cpu", dtype, enabled=dtype is not None):
        logits = model(x, owner=torch.tensor([0, 0, 1, 2, 3, 3]), seed=seed())
    model.loss(logits, torch.tensor([0, 1, 2, 3])).backward()
    found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {"logits": logits.detach(), **found}


@needs_extension
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_dispatch_says_fused(drop_path: float, dtype: torch.dtype) -> None:
    """Every choice of a training step by the record: the stack, its rows, attention and the embedding."""
    model, cast = build(drop_path), dtype == torch.bfloat16
    stack, norm = model.encoder.encoder.blocks, model.encoder.encoder.norm
    with watched() as seen, torch.autocast("cpu", dtype, enabled=cast):
        logits = model(clips())
    model.loss(logits, torch.arange(6) % CLASSES).backward()
    chosen: dict[str, set[str]] = {}
    with fastamr.backend("auto"):
        for op, problem, name in seen:
            chosen.setdefault(op, set()).add(fastamr.ops.common.backends.choose(op, problem, name))
    assert chosen["transformer_stack"] == {"fused"}
    assert chosen["linear_residual_norm"] == chosen["linear_gelu"] == chosen["row_norm"] == {"cpp"}
    assert {problem.dtype for op, problem, _ in seen if op == "linear_gelu"} == {dtype}
    assert chosen["masked_patch_gather"] == {"reference"}
    assert ("drop_path_scales" in chosen) == (drop_path > 0)
    tokens = torch.zeros(6, 50, 32)
    with torch.autocast("cpu", dtype, enabled=cast):
        assert stack.explain(tokens, norm=norm)[0].faster == {}
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)


@pytest.mark.parametrize("drop_path", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("name", ["amr", "mamp", "asma"])
def test_equals_plain_blocks_in_float64(name: str, drop_path: float) -> None:
    options = {"backbone": "transformer"} if name == "asma" else {}
    model = build(drop_path, name=name, **options).double()
    plain, fused = (gradients(model, stack) for stack in ("reference", "fused"))
    assert plain.keys() == fused.keys()
    for key, value in plain.items():
        torch.testing.assert_close(fused[key], value, rtol=1e-10, atol=1e-12)


def test_bfloat16_is_as_exact_as_plain_blocks() -> None:
    model = build()
    exact = build().double()
    exact.load_state_dict(model.state_dict())
    truth = gradients(exact, "reference")
    fused, plain = (gradients(model, stack, torch.bfloat16) for stack in ("fused", "reference"))
    for name, value in truth.items():
        assert relative_error(fused[name], value) < max(3 * relative_error(plain[name], value), 0.02), name


def test_rate_0_has_the_bits_of_evaluation_and_draws_nothing() -> None:
    model = build(0.0)
    state = torch.get_rng_state()
    assert torch.equal(model(clips()), model.eval()(clips(), seed=seed()))
    assert torch.equal(torch.get_rng_state(), state)


class TestSeeds:
    def test_a_seed_names_the_branches(self) -> None:
        model = build()
        first = model(clips(), seed=seed())
        assert torch.equal(model(clips(), seed=seed()), first)
        assert not torch.equal(model(clips(), seed=seed(1)), first)
        counter = seed()
        counter[1] += 1
        assert torch.equal(model(clips(), seed=counter), model(clips(), seed=seed(1)))

    def test_a_generator_and_the_global_state(self) -> None:
        model = build()
        first, again = (model(clips(), generator=torch.Generator().manual_seed(5)) for _ in range(2))
        assert torch.equal(first, again)
        found = []
        for number in (5, 5, 6):
            torch.manual_seed(number)
            found.append(model(clips()))
        assert torch.equal(found[0], found[1])
        assert not torch.equal(found[0], found[2])

    def test_a_process_drops_what_one_process_would_of_its_sequences(self) -> None:
        model = build().double()
        x = clips(9).double()
        whole = model(x, seed=seed())
        parts = [model(x[place : place + 3], seed=seed(0, place)) for place in (0, 3, 6)]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)

    def test_both_encoders_of_a_pair_draw_for_themselves(self) -> None:
        model = build(0.5, name="asma", backbone="transformer", depth=4)
        with torch.no_grad():
            model.encoder.encoder.views["b"].load_state_dict(model.encoder.encoder.views["a"].state_dict())
            model.encoder.encoder.align.start_as_identity()
            tokens = model.eval().encoder.encode(clips())
            torch.testing.assert_close(tokens[..., :32], tokens[..., 32:])
            tokens = model.train().encoder.encode(clips())
        assert not torch.allclose(tokens[..., :32], tokens[..., 32:], atol=1e-3)


class TestCount:
    def test_equals_counting(self) -> None:
        features, owner = torch.randn(5, 3), torch.tensor([1, 0, 1, 2, 0])
        assert torch.equal(average_bodies(features, owner, 3), average_bodies(features, owner))

    def test_rows_of_no_clip_change_nothing(self) -> None:
        model = build(0.0)
        owner = torch.tensor([1, 0, 1])
        expected = model(clips(6)[:3], owner=owner)
        padded = model(clips(6), owner=torch.tensor([1, 0, 1, -1, -1, -1]), count=2)
        torch.testing.assert_close(padded, expected)
        features = torch.randn(3, 4, requires_grad=True)
        average_bodies(features, torch.tensor([0, -1, 0]), 1).sum().backward()
        assert features.grad[:, 0].tolist() == [0.5, 0.0, 0.5]  # type: ignore[index]

    @pytest.mark.parametrize(
        ("owner", "message"),
        [([0, 2, -1], "owner lists clip 2 at 1: expected 0 to 1"), ([0, 0, -1], "no body of clip 1")],
    )
    def test_wrong(self, owner: list[int], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            average_bodies(torch.zeros(3, 2), torch.tensor(owner), 2)
