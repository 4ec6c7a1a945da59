"""Drop path recorded in a CUDA graph: each replay drops what its seed names, and nothing waits for the GPU."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor

from fastamr.nn import drop_path_seed

from .stack_cases import run
from .test_side_branch_gpu import SEQUENCES, TOKENS, WIDTH, build

pytestmark = pytest.mark.gpu


def test_replays_drop_what_their_seed_names() -> None:
    module = build("self")
    for block in module.blocks:
        block.drop_path.rate = 0.4  # type: ignore[union-attr]
    x = torch.randn(SEQUENCES, TOKENS, WIDTH, device="cuda")
    seed = torch.tensor([5, 0], device="cuda")

    def seeded(*leaves: Tensor) -> Tensor:
        with drop_path_seed(seed), torch.autocast("cuda", dtype=torch.bfloat16):
            return module(*leaves)

    def call() -> dict[str, Any]:
        return run(module, [x], "fused", seeded)

    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    gc.collect()
    with torch.cuda.graph(graph, stream=stream):
        found = call()
    seen = []
    for number in (0, 1, 2):
        seed[1] = number
        graph.replay()
        replayed = {name: value.clone() for name, value in found.items()}
        expected = call()
        assert all(torch.equal(replayed[name], expected[name]) for name in expected)
        seen.append(replayed["out"])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
