"""What the parts share: their surroundings, how they say a result, and what is called and timed."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.device_clock import captured, device_seconds
from fastamr import ops
from fastamr.benchmarking.timing import measure, release, wait
from fastamr.native.load import without_compiling
from fastamr.testing.op_sizes import PAPER, SMALL, Sizes

# Not what is to be judged, but what it is judged by.
PLAIN = ("reference", "materialised")
# The products of a fused stack; each may have several back ends.
PRODUCTS = ("linear_gelu", "linear_residual_norm", "row_linear", "row_norm")
# Of the encoder and of the decoder at 256 sequences.
_ROWS = (19200, 32000)
_TINY = {
    "frames": 24, "width": 32, "depth": 1, "heads": 2, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2,
}  # fmt: skip
_CALLS_IN_A_GRAPH = 10


@dataclass(frozen=True)
class Context:
    """Where a part runs: its device, the session's folder, whether sizes are tiny, and when its time is up."""

    device: torch.device
    out: Path
    small: bool
    ends: float

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.ends - time.monotonic()

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    @property
    def precision(self) -> str:
        """Of the steps: bfloat16 on a GPU; on a CPU, which may have no instructions for it, float32."""
        return "bfloat16" if self.on_gpu else "float32"

    @property
    def dtype(self) -> torch.dtype:
        """The same as a dtype."""
        return torch.bfloat16 if self.on_gpu else torch.float32

    @property
    def sequences(self) -> int:
        """S of the steps."""
        return 2 if self.small else 256

    @property
    def architecture(self) -> dict[str, Any]:
        """Settings of the model: the paper's, or a tiny one."""
        return dict(_TINY) if self.small else {}

    def sizes(self) -> Sizes:
        """What calls of single ops are made of."""
        if self.small:
            return dataclasses.replace(SMALL, low=self.dtype, device=str(self.device))
        return dataclasses.replace(PAPER, filled=True, low=self.dtype, device=str(self.device))

    def row_sizes(self, inner: int) -> list[Sizes]:
        """What calls on flat rows are made of: with the rows of the encoder and with those of the decoder.

        Args:
            inner: the layer's other size, beside the width of 256.
        """
        if self.small:
            return [self.sizes()]
        return [
            dataclasses.replace(self.sizes(), label=f"{rows} rows, {inner}", rows=rows, hidden=inner)
            for rows in _ROWS
        ]


def say(**fields: Any) -> None:
    """One result. One write, so that processes may share the stream."""
    os.write(1, (json.dumps(fields, default=str) + "\n").encode())


def in_words(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextmanager
def told(**fields: Any) -> Iterator[None]:
    """An error inside the block becomes a result, and the part goes on."""
    try:
        yield
    except Exception as error:
        say(**fields, ok=False, error=in_words(error), text=f"{fields}: {in_words(error)}")


def free(context: Context) -> None:
    """Let the next measurement start with empty memory."""
    wait(context.device)
    release()


def usable(op: str, context: Context) -> list[str]:
    """Back ends of an op that can run here without compiling a library first, but for the plain ones."""
    with without_compiling():
        found = ops.availability(context.device.type, context.dtype)[op]
    return [name for name, reason in found.items() if reason is None and name not in PLAIN]


def replayed(function: Callable[[], object], context: Context) -> Callable[[], object]:
    """The function as the replay of a CUDA graph; on a CPU itself."""
    return captured(function, context.device) if context.on_gpu else function


def milliseconds(function: Callable[[], object], context: Context) -> dict[str, float]:
    """Median times of a call: ``ms`` in a graph of several, ``flushed_ms`` alone behind a flushed L2 cache (GPU only).

    Args:
        function: repeatable; must not wait for the device.
        context: where.
    """
    if not context.on_gpu:
        return {"ms": statistics.median(measure(function, context.device, rounds=3, warmup=1)) * 1e3}

    def several() -> None:
        for _ in range(_CALLS_IN_A_GRAPH):
            function()

    seconds = device_seconds(replayed(several, context), context.device, flush=False, rounds=10)
    alone = device_seconds(replayed(function, context), context.device, flush=True, rounds=10)
    return {"ms": seconds / _CALLS_IN_A_GRAPH * 1e3, "flushed_ms": alone * 1e3}
