"""Run a function of static shapes as one recorded CUDA graph, or eagerly where that cannot be."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ...ops.adamw_update import tables_sent_afterwards

GRAPH_CHOICES = ("auto", True, False)
Form = list[tuple[torch.Size, torch.dtype]]
# PyTorch's own warm-up length. The runs are real ones: they initialise the optimizer's state, the libraries'
# workspaces and the kernels, and nothing has to be undone afterwards.
_EAGER_RUNS = 3
# Calls that also prepare, by device: one on a CPU; on a GPU those that run eagerly and the one that is recorded.
PREPARING = {"cpu": 1, "cuda": _EAGER_RUNS + 1}


class Recorder(Protocol):
    """What records and replays; :class:`CudaRecorder`, or a stand-in where there is no GPU."""

    def run(self, function: Callable[[], Any]) -> Any:
        """Call the function as it will be recorded, but eagerly, and return its result."""

    def record(self, function: Callable[[], Any]) -> Any:
        """Record what the function launches, without running it; return its result."""

    def replay(self) -> None:
        """Run what was recorded."""

    def forget(self) -> None:
        """Drop what was recorded, and with it the memory that it holds."""


class CudaRecorder:
    """Records on a side stream of its own, as CUDA graphs need.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def run(self, function: Callable[[], Any]) -> Any:
        """Call the function on the side stream, between what was issued before and what comes after."""
        with torch.cuda.device(self.device):
            current = torch.cuda.current_stream()
            self.stream.wait_stream(current)
            with torch.cuda.stream(self.stream):
                result = function()
            current.wait_stream(self.stream)
        return result

    def record(self, function: Callable[[], Any]) -> Any:
        """Record a new graph in place of the last one."""
        self.forget()
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        with torch.cuda.device(self.device):
            current = torch.cuda.current_stream()
            try:
                # Another thread that allocates memory (a loader's) must not spoil the recording.
                with (
                    tables_sent_afterwards(),
                    _without_collector(),
                    torch.cuda.graph(graph, pool, self.stream, capture_error_mode="thread_local"),
                ):
                    result = function()
            except Exception:
                self._recover(current, pool)
                raise
        self._graph = graph
        return result

    def _recover(self, current: torch.cuda.Stream, pool: Any) -> None:
        """Put right what PyTorch may leave undone where the end of a recording fails, so that eager calls go on.

        The side stream stays current, the allocator takes the recording to be under way (before PyTorch 2.12: its pull
        request 180395), and the generator refuses to draw outside of it. Only a recording that succeeds resets the
        generator; a state of its own would part it from the graphs that draw from it.
        """
        torch.cuda.set_stream(current)
        with contextlib.suppress(RuntimeError):  # nothing is under way
            torch._C._cuda_endAllocateToPool(self.device.index, pool)
            # A graph gives its pool back only after a recording that succeeded.
            torch._C._cuda_releasePool(self.device.index, pool)
        with (
            _without_collector(),
            torch.cuda.graph(torch.cuda.CUDAGraph(), stream=self.stream, capture_error_mode="thread_local"),
        ):
            torch.zeros(1, device=self.device)

    def replay(self) -> None:
        """Launch the graph."""
        assert self._graph is not None
        with torch.cuda.device(self.device):
            self._graph.replay()

    def forget(self) -> None:
        """Drop the graph; its memory is free for what runs next."""
        self._graph = None


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Collect garbage now and not within: another graph that dies during a recording spoils it.

    See PyTorch's pull request 161037; ``torch.cuda.graph`` no longer collects.
    """
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class RecordedCall:
    """Calls a function of tensors eagerly three times, records it, and replays the recording from then on.

    The eager runs count: they are the first updates, so that nothing needs to be restored. A recording is replaced
    when what it was made of has moved (``state``), and run eagerly for inputs of other shapes. Where recording fails,
    every call is eager and :attr:`reason` says why.

    Args:
        function: launches the same work for the same shapes and returns tensors at static addresses.
        recorder: None runs everything eagerly.
        state: what the recording depends on besides the inputs (addresses, options); compared before each replay.
        required: raise instead of running eagerly.
        reason: why nothing is recorded, where ``recorder`` is None.
        after_failure: called when a recording has failed, to put right what the function did on the host.

    Attributes:
        reason: why calls are eager, or None while they are recorded or will be.
        recordings: how many recordings were made.
        gave_up: recording was tried and failed.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        recorder: Recorder | None,
        state: Callable[[], Hashable],
        *,
        required: bool = False,
        reason: str | None = None,
        after_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.reason, self.recordings, self.gave_up = reason, 0, False
        self._function, self._recorder, self._state, self._required = function, recorder, state, required
        self._after_failure, self._runs = after_failure, 0
        self._recorded: _Recording | None = None
        self._form: Form = []

    def __call__(self, *inputs: Tensor) -> Any:
        """Run the function on inputs and return its result, which the next call may overwrite.

        Raises:
            ValueError: recording is required, and the inputs are not of the recorded shapes.
            RuntimeError: recording is required and failed.
        """
        recorder = self._recorder
        if recorder is None:
            return self._function(*inputs)
        self._form = self._form or form_of(inputs)
        if self._recorded is None and self._form != form_of(inputs):
            # Neither warms up nor is recorded: a smaller last batch among the first calls.
            return recorder.run(lambda: self._function(*inputs))
        if self._recorded is not None and not self._recorded.fits(inputs):
            return self._run_unfit(recorder, inputs)
        if self._recorded is not None and self._recorded.state != self._state():
            # What is new runs eagerly once before it is recorded, in the memory that the old recording held.
            self._recorded, self._runs = None, _EAGER_RUNS - 1
            recorder.forget()
        if self._runs < _EAGER_RUNS:
            self._runs += 1
            return recorder.run(lambda: self._function(*inputs))
        if self._recorded is None:
            self._record(recorder, inputs)
            if self._recorded is None:
                return self._function(*inputs)
        self._recorded.fill(inputs)
        recorder.replay()
        return self._recorded.result

    def _record(self, recorder: Recorder, inputs: Sequence[Tensor]) -> None:
        buffers = [tensor.detach().clone() for tensor in inputs]
        try:
            result = recorder.record(lambda: self._function(*buffers))
        except Exception as error:
            self._give_up(error)
            return
        self._recorded = _Recording(buffers, result, self._state())
        self.recordings += 1

    def _give_up(self, error: Exception) -> None:
        lines = str(error).strip().splitlines()
        self.reason = f"recording failed: {type(error).__name__}: {lines[0] if lines else ''}"
        self._recorder, self.gave_up = None, True
        self._after_failure()
        if self._required:
            raise RuntimeError(
                f"graph=True, but {self.reason}; the model or the optimizer does something that a CUDA graph "
                "cannot hold (reading a number back, a shape that depends on data): pass graph='auto' or False"
            ) from error
        warnings.warn(
            f"the step runs without a CUDA graph, and slower: {self.reason}; graph=False silences this",
            RuntimeWarning,
            stacklevel=4,
        )

    def _run_unfit(self, recorder: Recorder, inputs: Sequence[Tensor]) -> Any:
        assert self._recorded is not None
        if self._required:
            wanted = [(tuple(tensor.shape), tensor.dtype) for tensor in self._recorded.buffers]
            found = [(tuple(tensor.shape), tensor.dtype) for tensor in inputs]
            raise ValueError(
                f"inputs are {found}, the CUDA graph was recorded with {wanted}: keep shapes and types the same "
                "(drop a smaller last batch), or pass graph='auto'"
            )
        return recorder.run(lambda: self._function(*inputs))


class _Recording:
    """What was recorded: the buffers that it reads, what it returns, and what it was made of."""

    def __init__(self, buffers: list[Tensor], result: Any, state: Hashable) -> None:
        self.buffers, self.result, self.state = buffers, result, state

    def fits(self, inputs: Sequence[Tensor]) -> bool:
        return form_of(inputs) == form_of(self.buffers)

    def fill(self, inputs: Sequence[Tensor]) -> None:
        for buffer, tensor in zip(self.buffers, inputs, strict=True):
            buffer.copy_(tensor, non_blocking=True)


def form_of(tensors: Sequence[Tensor]) -> Form:
    """Shapes and dtypes."""
    return [(tensor.shape, tensor.dtype) for tensor in tensors]
