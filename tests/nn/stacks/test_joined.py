"""What lies between two attentions as one call: the same bits as op by op."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fastamr
from fastamr import native, ops
from fastamr.nn.stacks import joined, transformer_stack
from fastamr.ops.common import backends, products
from fastamr.ops.rows import native as rows_native

from .stack_cases import Stack, inputs_for, needs_extension, run
from .test_drop_path_in_a_stack import dropping, seeded

pytestmark = needs_extension

LIBRARIES = ["mkl", "onednn"]


@pytest.fixture(autouse=True)
def without_a_matrix_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The products of this file are a library's, whatever the processor has."""
    if native.why_not("cpu") is not None:
        pytest.skip("no CPU extension")
    monkeypatch.setattr(native, "has_matrix_unit", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the joined calls that were made."""
    found: list[str] = []
    real = joined._raw

    def noted(name: str) -> Any:
        found.append(name)
        return real(name)

    monkeypatch.setattr(joined, "_raw", noted)
    return found


def op_by_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer_stack, "joins", lambda rows, hidden: False)


def named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a library's products, where this build has it."""
    if library == "onednn" and not torch.backends.mkldnn.is_available():
        pytest.skip("this build of PyTorch has no oneDNN")
    monkeypatch.setattr(products, "_library", library)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value is not None
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("kind", "shared", "sizes"),
    [
        ("self", True, {}),
        ("self", True, {"sequences": 1, "tokens": 1}),
        ("cross", True, {}),
        ("cross", False, {"sequences": 2, "queries": 33, "tokens": 1}),
    ],
)
def test_the_same_bits(
    kind: str,
    shared: bool,
    sizes: dict[str, int],
    library: str,
    calls: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named(library, monkeypatch)
    module = Stack(kind)
    inputs = [each.float() for each in inputs_for(kind, shared=shared, **sizes)]
    found = run(module, inputs, "fused")
    assert calls == ["layer_end"] * 3 + ["layer_end_backward", "layer_begin_backward"] * 3
    op_by_op(monkeypatch)
    assert_same(found, run(module, inputs, "fused"))
    assert len(calls) == 9


@pytest.mark.parametrize("library", LIBRARIES)
def test_drop_path(library: str, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    named(library, monkeypatch)
    module, inputs = dropping(0.2, 0.4, 0.6), [each.float() for each in inputs_for("self", sequences=9)]
    found = run(module, inputs, "fused", seeded(module))
    assert len(calls) == 9
    op_by_op(monkeypatch)
    assert_same(found, run(module, inputs, "fused", seeded(module)))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("kind", ["self", "cross"])
def test_without_a_backward(
    kind: str, library: str, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    named(library, monkeypatch)
    module, inputs = Stack(kind), [each.float() for each in inputs_for(kind)]
    with torch.no_grad(), fastamr.backend(transformer_stack="fused"):
        found = module(*inputs)
        assert calls == ["layer_end"] * 3
        op_by_op(monkeypatch)
        assert torch.equal(found, module(*inputs))


def test_under_autocast_products_keep_their_bits(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A backward inside an autocast context is float32 as the forward before it was."""
    module, (x,) = Stack("self"), [each.float() for each in inputs_for("self")]
    expected = run(module, [x], "fused")
    leaf = x.clone().requires_grad_()
    module.zero_grad()
    with fastamr.backend(transformer_stack="fused"):
        out = module(leaf)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (out.double() * weights).sum().backward()
    assert torch.equal(leaf.grad, expected["input0"])
    assert len(calls) == 18


def test_a_block_with_frozen_parameters_goes_op_by_op(calls: list[str]) -> None:
    module, inputs = Stack("self"), [each.float() for each in inputs_for("self")]
    whole = {name: value.clone() for name, value in run(module, inputs, "fused").items()}
    calls.clear()
    module.get_parameter("blocks.1.mlp.fc1.weight").requires_grad_(False)
    found = run(module, inputs, "fused")
    assert calls.count("layer_end") == 3
    assert calls.count("layer_end_backward") == calls.count("layer_begin_backward") == 2
    assert found.pop("blocks.1.mlp.fc1.weight") is None
    assert_same(found, {name: whole[name] for name in found})


class TestWhoJoins:
    def rows(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(21, 32, dtype=dtype)

    def test_float32_on_a_cpu(self) -> None:
        assert joined.joins(self.rows(), 128)
        for dtype in (torch.bfloat16, torch.float64, torch.float16):
            assert not joined.joins(self.rows(dtype), 128)

    @pytest.mark.parametrize(
        "named", [{"linear_gelu": "reference"}, {"row_linear": "reference"}, {"weight_gradient": "reference"}]
    )
    def test_not_where_another_back_end_is_named(self, named: dict[str, str]) -> None:
        with fastamr.backend(**named):
            assert not joined.joins(self.rows(), 128)

    def test_not_on_a_matrix_unit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rows_native, "_parts", lambda dtype: 3)
        assert not joined.joins(self.rows(), 128)

    def test_not_while_somebody_watches_the_choices(self) -> None:
        module, inputs = Stack("self"), [each.float() for each in inputs_for("self")]
        with backends.watched() as seen, fastamr.backend(transformer_stack="fused"):
            module(*inputs).sum().backward()
        assert {"row_linear", "linear_gelu", "linear_residual_norm", "weight_gradient"} <= {
            one[0] for one in seen
        }

    def test_not_with_recompute(self, calls: list[str]) -> None:
        module, inputs = Stack("self"), [each.float() for each in inputs_for("self")]
        kept = run(module, inputs, "fused")
        calls.clear()
        module.blocks.recompute = True
        assert_same(run(module, inputs, "fused"), kept)
        assert calls == []


def test_wrong_sizes_are_refused_before_anything_is_written() -> None:
    x = torch.randn(4, 8)
    call = joined._raw("layer_begin_backward")
    ops.row_norm(x, torch.ones(8), torch.zeros(8))  # loads the library
    with pytest.raises(RuntimeError, match="total must be a contiguous CPU tensor of 32 elements"):
        call(x, torch.randn(8, 8), x[:3], x, *torch.ones(2, 4), torch.ones(8), None, None, False)
