"""Every op is a dispatcher op: stable schemas, opcheck with and without gradients, compiled without a graph break."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

import fastamr
from fastamr import ops
from fastamr.ops.common.backends import _TABLE
from fastamr.ops.common.registration import fake_of, gradients_of
from fastamr.testing.op_cases import CASES, Case
from fastamr.testing.op_sizes import SMALL

SCHEMAS = Path(__file__).with_name("schemas.txt")
REGISTERED = [case for case in CASES if case.registered is not None]
# What a user calls; AdamW's checks look at the tensors' identity, which is not traced.
TRACED = [case for case in REGISTERED if hasattr(ops, case.name) and case.op != "adamw_update"]


def device_of(backend: str) -> str:
    """Kernels run in Triton's interpreter on the CPU, or compiled where there is a GPU."""
    return "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"


def registered_names() -> set[str]:
    names = (name.removeprefix("fastamr::") for name in torch._C._dispatch_get_all_op_names())
    return {name for name in names if "::" not in name}


def test_every_registered_op_has_a_case() -> None:
    assert registered_names() == {case.registered_name for case in REGISTERED}


def test_schemas_stay() -> None:
    """A line a registered op: saved programs and graphs name the ops by these.

    What changes its meaning, outputs or backward gets another name: torch.compile goes on with what it compiled before.
    """
    found = [str(getattr(torch.ops.fastamr, name).default._schema) for name in sorted(registered_names())]
    known = SCHEMAS.read_text(encoding="utf-8").splitlines()
    missing, outdated = set(found) - set(known), set(known) - set(found)
    assert found == known, f"not in {SCHEMAS.name}: {missing}; only there: {outdated}"


def tensors(values: Any) -> list[torch.Tensor]:
    return [each for each in pytree.tree_leaves(values) if isinstance(each, torch.Tensor)]


def copied(values: Any) -> Any:
    """The same values in tensors of their own."""
    copy = lambda x: x.detach().clone().requires_grad_(x.requires_grad)  # noqa: E731
    return pytree.tree_map_only(torch.Tensor, copy, values)


def named(case: Case, *parts: str) -> str:
    return "-".join([case.label.replace(" ", "_"), *filter(None, parts)])


def opchecks() -> list[Any]:
    """Each case by the reference and by compiled code; with gradients too where the op passes any on."""
    found = []
    for case in REGISTERED:
        given = case.arguments(replace(SMALL, grad=True))
        leaves = any(each.requires_grad for each in tensors(given))
        backends = [name for name in ("reference", "triton") if name in _TABLE[case.op]]
        if case.op == "adamw_update" and torch.float16 not in {each.dtype for each in tensors(given)}:
            backends.append("cpp")
        for backend in backends:
            for grad in (False, True)[: 1 + leaves]:
                name = named(case, backend, "grad" * grad)
                marks = [pytest.mark.extension] if backend == "cpp" else []
                found.append(pytest.param(case, backend, grad, id=name, marks=marks))
    return found


@pytest.mark.parametrize(("case", "backend", "grad"), opchecks())
def test_opcheck(case: Case, backend: str, grad: bool) -> None:
    given = case.arguments(replace(SMALL, grad=grad, device=device_of(backend)))
    torch.library.opcheck(case.registered, (), {**given, "backend": backend})


def compilations() -> list[Any]:
    """Each case as a user calls it: with what is chosen, and with the kernels or else the registered reference."""
    found = []
    for case in TRACED:
        other = "triton" if "triton" in _TABLE[case.op] else "reference"
        found += [pytest.param(case, backend, id=named(case, backend)) for backend in ("auto", other)]
    return found


@pytest.mark.parametrize(("case", "backend"), compilations())
def test_compiles_without_a_break(case: Case, backend: str) -> None:
    torch.compiler.reset()
    given = case.arguments(replace(SMALL, grad=True, device=device_of(backend)))
    results = []
    for compiled in (True, False):
        own = copied(given)
        call = case.bind(own)
        with fastamr.backend(**{case.op: backend}):
            outputs = tensors(
                torch.compile(call, fullgraph=True, backend="aot_eager")() if compiled else call()
            )
        if any(each.requires_grad for each in outputs):
            torch.stack([each.double().sum() for each in outputs]).sum().backward()
        results.append([*outputs, *tensors(own), *(x.grad for x in tensors(own) if x.grad is not None)])
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)
        assert found.requires_grad == expected.requires_grad


def test_compiled_code_follows_the_chosen_backend() -> None:
    torch.compiler.reset()
    qkv = torch.randn(1, 4, 3, 1, 8)
    calls: list[str] = []

    def spy(graph: torch.fx.GraphModule, inputs: list) -> Any:
        calls.append(str([node.target for node in graph.graph.nodes]))
        return graph.forward

    compiled = torch.compile(lambda x: ops.visible_attention(x), fullgraph=True, backend=spy)
    compiled(qkv)
    with fastamr.backend("reference"):
        compiled(qkv)
    assert "scaled_dot_product_attention" in calls[0]
    assert "fastamr.visible_attention" in calls[1]


def scaled() -> torch.library.CustomOpDef:
    """An op whose fake and gradients read some of its arguments."""

    @torch.library.custom_op("fastamr_test::scaled", mutates_args=())
    def op(x: torch.Tensor, factor: float, shift: torch.Tensor, times: int = 2) -> torch.Tensor:
        return (x * factor + shift).repeat(times)

    return op


@pytest.mark.parametrize("given", [(0.5,), (0.5, 3)])
def test_fakes_and_gradients_by_name(given: tuple[float, ...]) -> None:
    op = scaled()

    @fake_of(op)
    def _(times: int, x: torch.Tensor) -> torch.Tensor:
        return x.new_empty(times * len(x))

    def setup(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
        ctx.factor, ctx.length = inputs[1], len(inputs[0])

    def backward(ctx: Any, grad: torch.Tensor) -> dict[str, torch.Tensor | None]:
        total = grad.unflatten(0, (-1, ctx.length)).sum(0)
        return {"shift": total, "x": total * ctx.factor}

    op.register_autograd(gradients_of(op, backward), setup_context=setup)
    x, shift = (torch.randn(4, requires_grad=True) for _ in range(2))
    torch.library.opcheck(op, (x, given[0], shift, *given[1:]))
    torch.autograd.gradcheck(lambda x, y: op(x, given[0], y, *given[1:]), (x.double(), shift.double()))


def test_names_that_the_op_does_not_have() -> None:
    op = scaled()
    with pytest.raises(TypeError, match="has no argument 'factors': expected one of x, factor, shift, times"):
        fake_of(op)(lambda x, factors: x)
    op.register_autograd(gradients_of(op, lambda ctx, grad: {"y": grad}))
    found = op(torch.ones(2, requires_grad=True), 2.0, torch.ones(2))
    with pytest.raises(TypeError, match="fastamr_test::scaled has no argument 'y'"):
        found.sum().backward()
