"""Two streams without a GPU, the second as late as events allow: what it computes appears only when it is waited for.

On a GPU the second stream may run at any time between its fork and its join. The latest time is the one that finds
inputs that were freed or overwritten, and results that were read too early.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fastamr.nn.stacks.side_branch import SideBranch


class Stream:
    """A stream that writes down what it is asked for."""

    def __init__(self, name: str, streams: LateStreams) -> None:
        self.name, self._streams = name, streams

    def wait_stream(self, other: Stream) -> None:
        self._streams.log.append(f"{self.name} waits for {other.name}")
        if self.name == "main":
            self._streams.finish(len(self._streams.issued))

    def record_event(self) -> int:
        assert self.name == "side"
        return len(self._streams.issued)

    def wait_event(self, event: int) -> None:
        self._streams.log.append(f"{self.name} waits for {event} on side")
        self._streams.finish(event)


class LateStreams:
    """The two streams and what was issued on the second.

    Attributes:
        log: what happened, in order.
        issued: computations given to the second stream; None once they are done.
        breaks: the computation, counted from 0, that fails when it is issued.
    """

    def __init__(self, breaks: int | None = None) -> None:
        self.log: list[str] = []
        self.issued: list[Callable[[], None] | None] = []
        self.breaks, self._on_side = breaks, False
        self.main, self.side = Stream("main", self), Stream("side", self)

    def branch(self) -> SideBranch:
        return SideBranch(self.main, self.side, self.entered)

    @contextmanager
    def entered(self, stream: Stream) -> Iterator[None]:
        assert stream is self.side
        assert not self._on_side
        self._on_side = True
        try:
            yield
        finally:
            self._on_side = False

    def finish(self, count: int) -> None:
        """Compute what was issued first."""
        for place in range(count):
            if (compute := self.issued[place]) is not None:
                compute()
                self.issued[place] = None

    def late(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> Any:
        """Issue ``function()`` of these inputs on the second stream; the result is NaN until it is waited for."""
        assert self._on_side, "computed on the first stream"
        if self.breaks == len(self.issued):
            raise ValueError("this computation fails")
        self.log.append("side computes")
        expected = function()
        results = expected if isinstance(expected, list) else [expected]
        kept = [result.clone() for result in results]
        for result in results:
            result.fill_(float("nan"))
        read = [(weakref.ref(each), each._version) for each in inputs]

        def compute() -> None:
            for reference, version in read:
                value = reference()
                assert value is not None, "an input was given away before the second stream had read it"
                assert value._version == version, "an input was overwritten before it was read"
            for result, truth in zip(results, kept, strict=True):
                result.copy_(truth)

        self.issued.append(compute)
        return expected


def delayed(streams: LateStreams, ops: Any, monkeypatch: Any) -> None:
    """Let the weights' gradients of fused stacks run late, on the branches that these streams make."""
    single, several = ops.weight_gradient, ops.weight_gradients
    monkeypatch.setattr(
        ops, "weight_gradient", lambda upstream, x: streams.late(lambda: single(upstream, x), (upstream, x))
    )
    monkeypatch.setattr(
        ops,
        "weight_gradients",
        lambda pairs: streams.late(lambda: several(pairs), [each for pair in pairs for each in pair]),
    )

    def made(wanted: bool, device: torch.device) -> SideBranch:
        assert wanted
        return streams.branch()

    monkeypatch.setattr("fastamr.nn.stacks.functions.side_branch", made)
