"""The loss of each data set of a batch, without a word to the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...models.base import PretrainOutput
from .step import masked_loss

_SUM, _COUNT = "sum over set ", "sequences of set "


class Loss(NamedTuple):
    """What a step needs of a forward pass; the prediction is let go.

    Attributes:
        loss: scalar.
        terms: scalars by name.
    """

    loss: Tensor
    terms: dict[str, Tensor]


class LossBySet:
    """Computes the loss of a batch that says its sets, and reports of each set two terms: a sum and a count.

    Terms are added up over micro-batches, processes and updates alike, so the quotient of the two is the mean over all
    sequences of the set that they saw, see :func:`losses_by_set`. The cost is one sum for each sequence, from what the
    loss has computed anyway, and a few small launches; loss and gradient stay the same to the bit.

    Args:
        names: of the sets.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def __call__(self, model: nn.Module, batch: Sequence[Tensor | None], seed: Tensor) -> Loss:
        """See :func:`fastamr.training.update.step.masked_loss`.

        Args:
            model: one that reports the loss of each sequence.
            batch: clips, validity or None, and the set of each sequence ``(S,)`` int64.
            seed: of the masks.
        """
        clips, valid, sets = batch
        output: PretrainOutput = masked_loss(model, (clips, valid), seed, details=True)
        losses = output.sequences
        assert losses is not None  # the run has asked the model and the stream for both
        assert sets is not None
        numbers = torch.arange(len(self.names), device=sets.device)
        counted = (sets[:, None] == numbers) & ~losses.isnan()[:, None]
        sums = (
            losses[:, None].masked_fill(~counted, 0.0).sum(0)
        )  # a number for where() would be copied to the device
        counts = counted.sum(0, dtype=torch.float32)
        terms = dict(output.terms or {})
        for place, name in enumerate(self.names):
            terms |= {_SUM + name: sums[place], _COUNT + name: counts[place]}
        return Loss(output.loss, terms)


def losses_by_set(terms: Mapping[str, float]) -> dict[str, float]:
    """Replace the sums and counts of :class:`LossBySet` by ``loss/NAME``, left out where the set was not in a batch."""
    rest = {name: value for name, value in terms.items() if not name.startswith((_SUM, _COUNT))}
    for name, value in terms.items():
        count = terms.get(_COUNT + name.removeprefix(_SUM), 0.0) if name.startswith(_SUM) else 0.0
        if count:
            rest[f"loss/{name.removeprefix(_SUM)}"] = value / count
    return rest
