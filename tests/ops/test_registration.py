"""Every op is a dispatcher op: opcheck with and without gradients, and compiled without a graph break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import fastamr
from fastamr import ops
from fastamr.testing import random_clips

SEED = torch.tensor([3, 1])


def device_of(backend: str) -> str:
    """Kernels run in Triton's interpreter on the CPU, or compiled where there is a GPU."""
    return "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"


def place(value: Any, device: str) -> Any:
    if isinstance(value, list):
        return [place(each, device) for each in value]
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().to(device).requires_grad_(value.requires_grad)


def qualified(name: str) -> Any:
    return getattr(torch.ops.fastamr, name).default


def embedding_inputs(requires_grad: bool) -> list[torch.Tensor]:
    inputs = [torch.randn(16, 12), torch.randn(16), torch.randn(6, 16)]
    return [x.requires_grad_(requires_grad) for x in inputs]


def samples(grad: bool, backend: str) -> dict[str, list[tuple]]:
    clips, valid = random_clips(2, 8, 3), torch.rand(2, 8, 3) > 0.2
    keep = torch.tensor([[0, 2, 5], [1, 2, 4]], dtype=torch.int32)
    prediction = torch.randn(2, 6, 12, requires_grad=grad)
    qkv = torch.randn(2, 6, 3, 2, 8, requires_grad=grad)
    q, kv = torch.randn(2, 4, 2, 8, requires_grad=grad), torch.randn(2, 6, 2, 2, 8, requires_grad=grad)
    tables = [torch.randn(2, 3, 3, requires_grad=grad), torch.randn(2, 3, requires_grad=grad)]
    none = (None,) * 6
    offsets, ids = torch.tensor([0, 5, 20]), torch.tensor([1, 0, 1])
    lists = [[torch.ones(3), torch.ones(2, 5)] for _ in range(4)]
    steps, rate = [torch.zeros(()), torch.ones(())], torch.ones(())
    copies = [each.to(torch.bfloat16) for each in lists[0]]
    adamw = (*lists, steps, [rate, rate], [0.1, 0.0])
    return {
        "adamw_update": [
            (*adamw, [], 0.9, 0.95, 1e-8, None, None, None, backend),
            (*adamw, copies, 0.9, 0.95, 1e-8, 1.0, torch.ones(()), torch.zeros(()), backend),
        ],
        "select_visible": [
            (SEED, 2, 6, 3, None, False, None, False, False, backend),
            (SEED, 2, 6, 3, torch.randn(2, 6), True, torch.rand(2, 6) > 0.5, True, True, backend),
        ],
        "patch_gather": [(clips, keep, 4, backend)],
        "masked_patch_gather": [(clips, keep, *embedding_inputs(grad), 4, torch.float32, backend)],
        "masked_patch_gather_backward": [
            (torch.randn(2, 3, 16, requires_grad=grad), clips, keep, 6, 4, torch.float32, backend)
        ],
        "motion_entropy": [(clips, 3, None, 1e-8, backend), (clips, 4, valid, 1e-8, backend)],
        "motion_guidance": [
            (clips, [4, 5], 0.01, 1e-8, kind, 8, v, backend)
            for kind in ("entropy", "histogram")
            for v in (None, valid)
        ],
        "weighted_reconstruction_loss": [
            (prediction, clips, None, None, None, 4, 1, "motion", 1, "sequence", 1e-6, backend),
            (
                prediction,
                clips,
                torch.rand(2, 8, 3),
                torch.rand(2, 6) > 0.5,
                valid,
                4,
                1,
                "joints",
                1,
                "patch",
                1e-6,
                backend,
            ),
        ],
        "sample_clips": [
            (
                torch.randn(20, 3, 3),
                offsets,
                ids,
                8,
                SEED,
                [0.5, 1.0],
                4,
                0.3,
                torch.tensor([0, 1, 0]),
                backend,
            ),
            (torch.randn(20, 3, 3), offsets, ids, 8, None, [0.95], 4, 0.0, None, backend),
        ],
        "visible_attention": [
            (qkv, None, None, None, None, *none[:2], None, None, None, 0.3, 0.0, "reference"),
            (q, kv, keep, torch.tensor([3, 1]), None, *tables, None, None, SEED, 0.3, 0.2, "reference"),
            (
                qkv[0].detach().requires_grad_(grad),
                None,
                None,
                None,
                torch.tensor([0, 2, 6]),
                *none[:5],
                0.3,
                0.0,
                "reference",
            ),
        ],
    }


def names_of(backend: str) -> list[tuple[str, str]]:
    """Ops that have a back end, with its name."""
    return [
        (name, backend)
        for name in samples(False, backend)
        if backend in ops.availability("cpu")[name.removesuffix("_backward")]
    ]


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    ("name", "backend"), [*names_of("reference"), *names_of("triton"), ("adamw_update", "cpp")]
)
def test_opcheck(name: str, backend: str, grad: bool) -> None:
    for arguments in samples(grad, backend)[name]:
        placed = tuple(place(value, device_of(backend)) for value in arguments)
        torch.library.opcheck(qualified(name), placed)


def test_opcheck_attention_backward() -> None:
    qkv = torch.randn(2, 6, 3, 2, 8)
    out, lse = torch.randn(2, 6, 16), torch.randn(2, 2, 6)
    arguments = (torch.randn(2, 6, 16), out, lse, qkv, *(None,) * 9, 0.3, 0.0, "reference")
    torch.library.opcheck(qualified("visible_attention_backward"), arguments)


def cases(device: str) -> dict[str, Callable[[], torch.Tensor]]:
    seed = SEED.to(device)
    clips, keep = (
        random_clips(2, 8, 3, device=device),
        torch.tensor([[0, 2], [1, 5]], dtype=torch.int32, device=device),
    )
    prediction = torch.randn(2, 6, 12, device=device, requires_grad=True)
    weight, bias, position = (place(x, device) for x in embedding_inputs(True))
    qkv = torch.randn(2, 6, 3, 2, 8, device=device, requires_grad=True)
    coords, offsets = torch.randn(20, 3, 3, device=device), torch.tensor([0, 5, 20], device=device)
    ids, counts = torch.tensor([0, 1], device=device), torch.tensor([6, 2], device=device)
    return {
        "select_visible": lambda: ops.select_visible(seed, 2, 6, 3),
        "select_masked": lambda: ops.select_visible(seed, 2, 6, 3, return_masked=True)[1],
        "patch_gather": lambda: ops.patch_gather(clips, keep, patch_frames=4),
        "masked_patch_gather": lambda: ops.masked_patch_gather(
            clips, keep, weight, bias, position, patch_frames=4
        ),
        "motion_entropy": lambda: ops.motion_entropy(clips, window=3)[1],
        "motion_guidance": lambda: ops.motion_guidance(clips, windows=(4, 8)),
        "weighted_reconstruction_loss": lambda: ops.weighted_reconstruction_loss(
            prediction, clips, target_frames=4
        ),
        "sample_clips": lambda: ops.sample_clips(coords, offsets, ids, 8, seed),
        "attention_auto": lambda: ops.visible_attention(qkv),
        "attention_reference": lambda: ops.visible_attention(qkv, backend="reference"),
        "attention_counts": lambda: ops.visible_attention(qkv, counts=counts),
    }


@pytest.mark.parametrize("backend", ["auto", "triton"])
@pytest.mark.parametrize("name", list(cases("cpu")))
def test_compiles_without_a_break(name: str, backend: str) -> None:
    if backend == "triton" and name.startswith("attention"):
        pytest.skip("attention has no Triton kernel")
    torch.compiler.reset()
    function = cases(device_of(backend))[name]
    with fastamr.backend(backend):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        found, expected = compiled(), function()
        assert torch.equal(found, expected)
        if expected.requires_grad:
            found.float().sum().backward()


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
