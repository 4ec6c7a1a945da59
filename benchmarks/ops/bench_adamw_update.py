"""One optimizer update of the papers' AMR: clipping by the norm, AdamW, and where named bfloat16 copies.

``torch`` is PyTorch's fused AdamW with its own clipping and, for the copies, one multi-tensor cast: the fastest that it
offers for float32 parameters. It takes float32 gradients only, so bfloat16 ones are cast first, as autograd does.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fastamr
from fastamr import ops
from fastamr.models import build_model
from fastamr.ops.common.backends import Problem, choose

from ..bench_optimizer import BETAS, DECAY, LR, MAX_NORM, TorchAdamW
from ..conftest import Clock
from ..forms import number_of_bytes

CASES = {
    "update": (torch.float32, False, False),
    "clip": (torch.float32, True, False),
    "clip copies": (torch.float32, True, True),
    "bfloat16 clip copies": (torch.bfloat16, True, True),
}


class Update:
    """The parameters of AMR with random gradients, and both ways to update them once."""

    def __init__(self, case: str, device: torch.device) -> None:
        dtype, self.clips, self.has_copies = CASES[case]
        torch.manual_seed(0)
        self.parameters = [each.detach().to(device) for each in build_model("amr").parameters()]
        self.gradients = [torch.randn_like(each).mul_(1e-3).to(dtype) for each in self.parameters]
        self.exp_avgs, self.exp_avg_sqs = (
            [torch.zeros_like(each) for each in self.parameters] for _ in range(2)
        )
        self.steps = [torch.zeros((), device=device) for _ in self.parameters]
        self.lr = torch.tensor(LR, device=device)
        self.copies: list[Tensor] = []
        if self.has_copies:
            self.copies = [torch.empty_like(each, dtype=torch.bfloat16) for each in self.parameters]

    def fastamr(self) -> None:
        """Update by the op."""
        ops.adamw_update(
            self.parameters,
            self.gradients,
            self.exp_avgs,
            self.exp_avg_sqs,
            self.steps,
            lr=self.lr,
            betas=BETAS,
            weight_decay=DECAY,
            working=self.copies,
            max_norm=MAX_NORM if self.clips else None,
        )

    def torch(self) -> Callable[[], None]:
        """What updates copies of the same parameters by PyTorch; the copies are left in ``peers``."""
        parameters = [torch.nn.Parameter(each.clone()) for each in self.parameters]
        optimizer = TorchAdamW([{"params": parameters}], self.lr, torch.bfloat16 if self.has_copies else None)
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        casts = self.gradients[0].dtype != torch.float32
        torch._foreach_copy_(gradients, self.gradients)

        def run() -> None:
            if casts:
                torch._foreach_copy_(gradients, self.gradients)
            if self.clips:
                torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM, foreach=True)
            optimizer.step()

        self.peers = parameters
        return run

    def bytes_moved(self) -> int:
        """Gradients, parameters and state are read, parameters, state and copies written, each once."""
        changed = number_of_bytes(*self.parameters, *self.exp_avgs, *self.exp_avg_sqs)
        return 2 * changed + number_of_bytes(*self.gradients, *self.copies)


def check(case: str, device: torch.device) -> None:
    """Both ways give the same parameters after one update."""
    update = Update(case, device)
    peer = update.torch()
    update.fastamr()
    peer()
    for found, expected in zip(update.parameters, update.peers, strict=True):
        torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)
    for copy, parameter in zip(update.copies, update.parameters, strict=False):
        assert torch.equal(copy, parameter.to(torch.bfloat16))


@pytest.mark.parametrize("form", ["torch", "fastamr"])
@pytest.mark.parametrize("case", CASES)
def test_adamw_update(case: str, form: str, device: torch.device, clock: Clock) -> None:
    check(case, device)
    update = Update(case, device)
    backend = "torch fused"
    run = update.torch() if form == "torch" else update.fastamr
    if form == "fastamr":
        backend = choose("adamw_update", Problem(device.type, torch.float32))
    shape = [len(update.parameters), sum(each.numel() for each in update.parameters)]
    moved, dtype = update.bytes_moved(), update.gradients[0].dtype
    with fastamr.backend("auto"):
        clock(run, "adamw_update", shape, dtype, backend, bytes_moved=moved, case=case)
