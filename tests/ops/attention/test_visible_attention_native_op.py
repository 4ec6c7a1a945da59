"""The C++ kernel as an op: registration, tracing, transforms, choice of back ends, refusals, other processes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

import fastamr
from fastamr import ops
from fastamr.ops.common.backends import Problem, choose

pytestmark = pytest.mark.extension

SEED = torch.tensor([5, 2**33 + 7])


def opcheck_samples() -> list[tuple[str, tuple]]:
    qkv = torch.randn(2, 6, 3, 2, 16, requires_grad=True)
    q, kv = torch.randn(2, 4, 2, 16, requires_grad=True), torch.randn(2, 6, 2, 2, 16, requires_grad=True)
    keep, counts = torch.tensor([[0, 2, 5], [1, 2, 4]], dtype=torch.int32), torch.tensor([3, 1])
    bias = (torch.randn(2, 3, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True))
    plain = (*(None,) * 9, 0.3, 0.0, "cpp")
    out, lse = torch.ops.fastamr.visible_attention(qkv.detach(), *plain)
    saved = (torch.randn(2, 6, 32), out, lse, qkv.detach())
    targets, none = (torch.empty(2, 6, 3, 2, 16), None, torch.empty(3, 2, 16)), (None,) * 5
    return [
        ("visible_attention", (qkv, *plain)),
        ("visible_attention", (q, kv, keep, counts, None, *bias, None, None, SEED, 0.3, 0.2, "cpp")),
        ("visible_attention", (qkv.detach()[0], *none[:3], torch.tensor([0, 2, 6]), *none, 0.3, 0.0, "cpp")),
        ("visible_attention_backward", (*saved, *plain)),
        ("visible_attention_backward_into", (*saved, None, *targets, *plain[1:])),
    ]


@pytest.mark.parametrize("index", range(5))
def test_opcheck(index: int) -> None:
    name, arguments = opcheck_samples()[index]
    torch.library.opcheck(getattr(torch.ops.fastamr, name).default, arguments)


def test_compiles_without_a_break_and_chooses_while_tracing() -> None:
    torch.compiler.reset()
    qkv = torch.randn(4, 75, 3, 4, 32, requires_grad=True)
    names: list[str] = []

    def spy(graph: torch.fx.GraphModule, inputs: list) -> Any:
        names.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    compiled = torch.compile(lambda x: ops.visible_attention(x), fullgraph=True, backend=spy)
    expected = ops.visible_attention(qkv, backend="cpp")
    assert torch.equal(compiled(qkv), expected)
    assert any("fastamr.visible_attention" in name for name in names)
    whole = torch.compile(
        lambda x: ops.visible_attention(x, backend="cpp"), fullgraph=True, backend="aot_eager"
    )
    (found,) = torch.autograd.grad(whole(qkv).sum(), qkv)
    assert torch.equal(found, torch.autograd.grad(expected.sum(), qkv)[0])


def test_autocast_and_vmap() -> None:
    qkv = torch.randn(3, 2, 9, 3, 2, 16)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ops.visible_attention(qkv[0], backend="cpp")
    assert torch.equal(inside, ops.visible_attention(qkv[0], backend="cpp"))
    mapped = torch.vmap(lambda x: ops.visible_attention(x, backend="cpp"))(qkv)
    assert torch.equal(mapped, ops.visible_attention(qkv.flatten(0, 1), backend="cpp").unflatten(0, (3, 2)))


def test_second_derivative_is_refused() -> None:
    qkv = torch.randn(1, 4, 3, 1, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        ops.visible_attention(qkv, backend="cpp").square().sum(), qkv, create_graph=True
    )
    with pytest.raises(RuntimeError, match="second derivative"):
        gradient.sum().backward()


def test_automatic_choice() -> None:
    sizes = {"size": 32, "keys": 75, "work": 16 * 8 * 75 * 75 * 32}
    choice = lambda dtype=torch.float32, features=(), **other: choose(  # noqa: E731
        "visible_attention", Problem("cpu", dtype, features, sizes | other)
    )
    assert choice() == choice(torch.bfloat16) == "cpp"
    assert choice(torch.float64) == choice(torch.float16) == choice(size=24) == choice(keys=257) == "sdpa"
    assert choice(work=1000) == "sdpa", "too small to be worth a call"
    assert choice(torch.float64, ("counts",)) == choice(features=("dropout",), work=1000) == "cpp"
    assert choice(features=("counts",), keys=257) == "reference"


def test_what_it_does_not_cover_is_named() -> None:
    def call(size: int = 16, keys: int = 4, dtype: torch.dtype = torch.float32) -> None:
        ops.visible_attention(torch.randn(1, keys, 3, 1, size, dtype=dtype), backend="cpp")

    for options, match in [
        ({"size": 24}, r"cannot run visible_attention: .*head sizes \(16, 32, 64\), not 24"),
        ({"keys": 257}, "up to 256 keys, not 257"),
        ({"dtype": torch.float16}, "float32, bfloat16, float64, not float16"),
    ]:
        with pytest.raises(RuntimeError, match=match):
            call(**options)
    with fastamr.backend(visible_attention="cuda"), pytest.raises(RuntimeError, match="runs on cuda tensors"):
        ops.visible_attention(torch.randn(1, 4, 3, 1, 16))


def test_ids_outside_the_tensors_are_refused() -> None:
    qkv = torch.randn(1, 6, 3, 1, 16)
    for bad in (6, -1):
        with pytest.raises(ValueError, match=f"keep lists token {bad} in sequence 0: expected 0 to 5"):
            ops.visible_attention(qkv, keep=torch.tensor([[0, bad]]), backend="cpp")
    narrow = ops.AttentionBias(torch.zeros(1, 2, 2), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="further apart than the 1 time patches"):
        ops.visible_attention(qkv, bias=narrow, backend="cpp")
    for cu_seqlens in ([0, 4], [0, 7], [1, 6], [0, 5, 3, 6]):
        with pytest.raises(ValueError, match="cu_seqlens"):
            ops.visible_attention(qkv[0], cu_seqlens=torch.tensor(cu_seqlens), backend="cpp")


def test_loading_leaves_denormals_alone() -> None:
    code = (
        "import torch\nfrom fastamr import native, ops\nassert native.why_not('cpu') is None\n"
        "ops.visible_attention(torch.randn(2, 9, 3, 2, 16), backend='cpp')\n"
        "x = torch.full((64,), 1e-30)\nassert (x * 1e-10 > 0).all() and 1e-308 * 0.1 > 0\nprint('fine')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "fine", run.stderr
