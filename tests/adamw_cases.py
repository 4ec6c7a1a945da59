"""Parameters and gradients of awkward sizes, and torch.optim.AdamW on the same: shared by the tests of AdamW."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastamr import ops
from fastamr.testing import assert_as_good_as

# LR is a power of two: the same number in float32 and float64.
SHAPES = ((0,), (1,), (), (3,), (5, 7), (4097,), (2, 3, 128), (130, 126))
DECAYS = (0.05, 0.0, 0.3, 0.05, 0.0, 0.1, 0.05, 0.2)
BETAS, EPS, LR = (0.9, 0.95), 1e-8, 2.0**-6


@dataclass
class Lists:
    """What one op call updates, all float32 unless said otherwise."""

    parameters: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    steps: list[Tensor]
    lr: Tensor
    working: list[Tensor] = field(default_factory=list)

    def update(self, gradients: Sequence[Tensor], **options: object) -> Tensor | None:
        options = {"betas": BETAS, "eps": EPS, "weight_decay": DECAYS[: len(self.parameters)], **options}
        return ops.adamw_update(
            self.parameters,
            gradients,
            self.exp_avgs,
            self.exp_avg_sqs,
            self.steps,
            lr=self.lr,
            working=self.working,
            **options,
        )

    def tensors(self) -> list[Tensor]:
        return [*self.parameters, *self.exp_avgs, *self.exp_avg_sqs, *self.steps, *self.working]


def make_parameters(shapes: Sequence[tuple[int, ...]] = SHAPES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def make_lists(
    device: torch.device | str = "cpu",
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    dtype: torch.dtype = torch.float32,
    working_dtype: torch.dtype | None = None,
) -> Lists:
    parameters = [each.to(device, dtype) for each in make_parameters(shapes)]
    return Lists(
        parameters,
        [torch.zeros_like(each) for each in parameters],
        [torch.zeros_like(each) for each in parameters],
        [torch.zeros((), device=device) for _ in parameters],
        torch.tensor(LR, device=device),
        [torch.full_like(each, torch.nan, dtype=working_dtype) for each in parameters]
        if working_dtype
        else [],
    )


def make_gradients(
    number: int,
    device: torch.device | str = "cpu",
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    dtypes: Sequence[torch.dtype] = (torch.float32,),
) -> list[Tensor]:
    """Gradients of update ``number``, of very different sizes, dtypes in turn."""
    generator = torch.Generator().manual_seed(100 + number)
    return [
        (torch.randn(shape, generator=generator) * 10.0 ** (i % 5 - 3)).to(device, dtypes[i % len(dtypes)])
        for i, shape in enumerate(shapes)
    ]


class Peer:
    """``torch.optim.AdamW`` and ``clip_grad_norm_`` on the same parameters, plain loops."""

    def __init__(
        self,
        dtype: torch.dtype,
        shapes: Sequence[tuple[int, ...]] = SHAPES,
        max_norm: float | None = None,
    ) -> None:
        self.parameters = [torch.nn.Parameter(each.to(dtype)) for each in make_parameters(shapes)]
        groups = [
            {"params": [parameter], "weight_decay": decay}
            for parameter, decay in zip(self.parameters, DECAYS, strict=False)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS, foreach=False)
        self.dtype, self.max_norm = dtype, max_norm

    def update(self, gradients: Sequence[Tensor]) -> Tensor | None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient.to("cpu", self.dtype, copy=True)
        norm = None
        if self.max_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.max_norm, foreach=False)
        self.optimizer.step()
        return norm

    def tensors(self) -> list[Tensor]:
        """As :meth:`Lists.tensors`, without copies."""
        states = [self.optimizer.state[parameter] for parameter in self.parameters]
        moments = [state[name] for name in ("exp_avg", "exp_avg_sq", "step") for state in states]
        return [*(parameter.detach() for parameter in self.parameters), *moments]


def assert_close_to_float64(lists: Lists, truth: Peer, peer: Peer) -> None:
    """As exact as PyTorch in float32 over all numbers of a kind, and no number far off."""
    found, exact, other = lists.tensors(), truth.tensors(), peer.tensors()
    count = len(lists.parameters)
    for kind in range(4):
        pieces = slice(kind * count, (kind + 1) * count)
        one, two, three = (
            torch.cat([each.flatten().cpu() for each in x[pieces]]) for x in (found, exact, other)
        )
        assert_as_good_as(one, two, three)
        torch.testing.assert_close(one.double(), two.double(), rtol=2e-5, atol=2e-6 * two.abs().max().item())
