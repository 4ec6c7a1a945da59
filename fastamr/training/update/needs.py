"""The memory that a run needs, told before it starts, and what to do where there was too little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from ...memory import OutOfMemory, what_failed
from .precision import autocast_dtype

# Of what an update keeps for its backward pass: gradients of activations, and what the allocator rounds up
# (measured on a CPU, see docs/reliability.md).
_PASSING = 0.5


class Settings(Protocol):
    """What of a run's configuration decides how much memory it needs; see ``PretrainConfig``."""

    batch_size: int
    accumulate: int
    recompute: bool
    data_budget: float | None
    device: str
    precision: str


@dataclass(frozen=True)
class Needs:
    """Memory on a run's device, in bytes.

    Attributes:
        data: the data, where it lies on the device.
        model: weights, working copies in a smaller dtype, gradients and the two moments of AdamW.
        update: what the forward pass of a micro-batch keeps, and what passes in its backward; None = not known.
        free: what is left beside data and weights, which are there already; None = not known.
        weights: the part of ``model`` that is there already.
    """

    data: int
    model: int
    update: int | None
    free: int | None
    weights: int

    def line(self) -> str:
        """Return the estimate in words."""
        update = 0 if self.update is None else self.update
        parts = f"data {_size(self.data)}, model with moments {_size(self.model)}"
        parts += "" if self.update is None else f", an update {_size(self.update)}"
        left = "" if self.free is None else f"; {_size(self.free)} free beside data and weights"
        return f"{_size(self.data + self.model + update)} estimated ({parts}){left}"

    def warnings(self, ways: str) -> list[str]:
        """Return what to say where memory is likely to run out; nothing where it suffices, or is not known.

        Args:
            ways: the options with which less is needed.
        """
        missing = self.model - self.weights + (self.update or 0)
        if self.free is None or missing <= self.free:
            return []
        return [
            f"the run is likely to run out of memory: it needs about {_size(missing)} more, and {_size(self.free)} "
            f"are free; less is needed with {ways}"
        ]


def needs_of(model: nn.Module, kept: int | None, data: int, dtype: torch.dtype, free: int | None) -> Needs:
    """Return what a run needs.

    Args:
        model: on the run's device.
        kept: bytes that a micro-batch keeps for its backward pass, as ``PretrainStep.explain`` tells them.
        data: bytes of the data on the device.
        dtype: that the step computes in; a smaller one than the weights' has working copies.
        free: bytes that are free now.
    """
    weights = sum(each.nbytes for each in (*model.parameters(), *model.buffers()))
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    copies = dtype.itemsize * trained if dtype.itemsize < 4 else 0
    update = None if kept is None else int(kept * (1 + _PASSING))
    return Needs(data, weights + copies + 12 * trained, update, free, weights + copies)


def exhausted(config: Settings, error: BaseException, when: str) -> OutOfMemory:
    """Return the error of a run that used up the memory: when, for want of what, and which options need less."""
    return OutOfMemory(
        f"memory is used up, {when} ({what_failed(error)}); less is needed with {ways_out(config)}"
    )


def ways_out(config: Settings) -> str:
    """Return the options that make a run need less, those that change its result least first."""
    size, parts, device = config.batch_size, config.accumulate, torch.device("cpu")
    ways = []
    finer = next((count for count in range(2 * parts, size + 1) if size % count == 0), None)
    if finer is not None:
        ways.append(f"--accumulate {finer} (the same update in smaller parts)")
    ways += [] if config.recompute else ["--recompute"]
    if config.device != "cpu" and torch.cuda.is_available():
        device = torch.device("cuda")
        ways += ["--data-budget 0"] if config.data_budget != 0 else []
    if autocast_dtype(config.precision, device) == torch.float32:
        ways.append("--precision bfloat16")
    if size // 2 >= parts:
        ways.append(f"--batch-size {size // 2 // parts * parts} (another run)")
    return ", ".join(ways) or "a smaller model"


def _size(count: int) -> str:
    """Return bytes in MiB or GiB."""
    return f"{count / 2**20:,.0f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"
