"""A stand-in for CUDA graphs, so that the recorded step is tested where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastamr.nn.stacks import working_weights
from fastamr.nn.stacks.working_weights import register_working_copy


def noted_copy(parameter: Tensor) -> Tensor | None:
    """The registered working copy of a parameter, whatever it holds."""
    entry = getattr(parameter, working_weights._ATTRIBUTE, None)
    return None if entry is None else entry.copy


class ReplayedCalls:
    """Replays by calling the function again, as a graph would be seen from outside.

    As in a recorded graph, recording computes nothing, results appear at the addresses that recording returned, and
    what the host notes of parameters (version counters, registered copies) stays as it is.

    Attributes:
        eager, recorded, launched, forgotten: how often each happened.
        holds: a recording is held.
        held_in_eager: for each eager call, whether a recording was held meanwhile.
        fails: an error that recording raises.
    """

    def __init__(self, parameters: Sequence[Tensor] = ()) -> None:
        self.parameters = tuple(parameters)
        self.eager = self.recorded = self.launched = self.forgotten = 0
        self.holds, self.held_in_eager = False, list[bool]()
        self.fails: Exception | None = None

    def run(self, function: Callable[[], Any]) -> Any:
        self.eager += 1
        self.held_in_eager.append(self.holds)
        self._last = function()
        return self._last

    def record(self, function: Callable[[], Any]) -> Any:
        if self.fails is not None:
            raise self.fails
        self.recorded += 1
        self.holds = True
        self._function, (loss, terms) = function, self._last
        self._held = (
            torch.full_like(loss, -1.0),
            {name: torch.empty_like(term) for name, term in terms.items()},
        )
        return self._held

    def forget(self) -> None:
        self.forgotten += 1
        self.holds = False

    def replay(self) -> None:
        assert self.holds
        self.launched += 1
        noted = [dict(parameter.__dict__) for parameter in self.parameters]
        for parameter in self.parameters:
            # A graph reads the copy as it is: nothing asks whether it is still true.
            if (entry := noted_copy(parameter)) is not None:
                register_working_copy(parameter, entry)
        with torch.autograd._unsafe_preserve_version_counter(self.parameters):
            loss, terms = self._function()
        for parameter, notes in zip(self.parameters, noted, strict=True):
            parameter.__dict__.update(notes)
        self._held[0].copy_(loss)
        for name, term in terms.items():
            self._held[1][name].copy_(term)
