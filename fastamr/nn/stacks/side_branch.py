"""A second branch of a backward: what nothing in it waits for, beside the chain that everything waits for.

On a GPU the work runs on a stream of its own. While a CUDA graph is recorded, forking and joining by events makes that
stream a branch of the graph; eagerly the two streams overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")

# Side streams by device and stream that they were forked from: the same one in the eager updates before a recording as
# in the recording, so that the libraries' workspaces for it exist, and never one that another recording uses.
_SIDES: dict[tuple[int, int], torch.cuda.Stream] = {}


class SideBranch:
    """Runs work on a second stream, behind what the first was given so far, and joins it one call later.

    A context manager: leaving it joins, also after an error. Nothing here waits on the host.

    Memory that the work reads stays referenced until the first stream waits for that work. Only then may it be given
    to others, whose work the first stream runs later; ``Tensor.record_stream`` promises nothing inside a recording.
    So a call's inputs live until the next call has been issued, not until the end. Memory that the work allocates
    belongs to the second stream, which gets it only after it has waited for everything that the first was given
    before, the readers of whatever lay there included.

    Args:
        main: the stream to fork from and to join with.
        side: the second stream.
        entered: makes a stream the current one inside a ``with`` block.
    """

    def __init__(
        self,
        main: Any,
        side: Any,
        entered: Callable[[Any], AbstractContextManager[object]] = torch.cuda.stream,
    ) -> None:
        self._main, self._side, self._entered = main, side, entered
        self._held: list[object] = []
        self._before: Any = None
        self._forked = False

    def run(self, work: Callable[[], Result], *reads: Tensor) -> Result:
        """Issue work on the second stream, and let the first wait for the work of the call before.

        Args:
            work: launches kernels; must not wait for the device.
            reads: all tensors that the work reads and that others could free or give away.

        Returns:
            What ``work`` returns; its tensors may be read on the first stream after :meth:`join`, or after the next
            call but for this one's.
        """
        self._held.append(reads)
        self._side.wait_stream(self._main)
        self._forked = True
        with self._entered(self._side):
            result = work()
        done = self._side.record_event()
        if self._before is not None:
            self._main.wait_event(self._before)
            del self._held[0]
        self._before = done
        return result

    def join(self) -> None:
        """Let the first stream wait for all work, and give its inputs back."""
        try:
            if self._forked:
                self._main.wait_stream(self._side)
        finally:
            self._held.clear()
            self._before, self._forked = None, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.join()
        except RuntimeError:
            # A recording that broke off refuses to be joined; what broke it says more.
            if error is None:
                raise


def side_branch(wanted: bool, device: torch.device) -> AbstractContextManager[SideBranch | None]:
    """A branch beside the device's current stream; None where it is not wanted or the device has no streams."""
    if not wanted or device.type != "cuda":
        return nullcontext()
    main = torch.cuda.current_stream(device)
    key = (main.device_index, main.cuda_stream)
    if key not in _SIDES:
        side = torch.cuda.Stream(main.device)
        # PyTorch hands 32 streams out in turn.
        _SIDES[key] = side if side != main else torch.cuda.Stream(main.device)
    return SideBranch(main, _SIDES[key])
