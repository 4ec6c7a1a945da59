"""Who this process is among those that torchrun started, and what all of them agree on."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..devices import pick_device

# A process that ends closes its connections, which the others notice at once. This is for one that stands still.
_PATIENCE = datetime.timedelta(minutes=30)
# While the first process works alone, the others wait for what it does next.
LONG_PATIENCE = datetime.timedelta(days=2)
_NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass
class World:
    """The processes of a run; the first one alone writes files and lines.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: number of this process on its machine, which is also that of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    _control: Any = None

    @classmethod
    def from_environment(cls) -> World:
        """Return what the variables of torchrun say; without them a single process.

        Raises:
            ValueError: WORLD_SIZE names several processes, and the variables that bring them together are missing or no
                numbers.
        """
        size = _number("WORLD_SIZE", 1)
        if size == 1:
            return cls()
        missing = [name for name in _NEEDED if not os.environ.get(name)]
        if missing:
            raise ValueError(
                f"WORLD_SIZE={size}, but {', '.join(missing)} is not set: start the processes with torchrun "
                f"--nproc-per-node {size} -m fastamr COMMAND ..., or unset WORLD_SIZE"
            )
        rank = _number("RANK", 0)
        return cls(rank, size, _number("LOCAL_RANK", rank))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def pick_device(self, name: str) -> torch.device:
        """Return this process's device: of several GPUs that with the process's number on its machine.

        Args:
            name: ``auto``, ``cpu`` or ``cuda``; with one process any device.

        Raises:
            ValueError: no such device; fewer GPUs than processes on this machine; one GPU named for all processes.
        """
        device = pick_device(name)
        if self.size == 1 or device.type == "cpu":
            return device
        if ":" in name:
            raise ValueError(
                f"device {name!r} names one GPU for {self.size} processes: pass --device cuda, each takes its own"
            )
        if device.type == "cuda" and self.local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"process {self.rank} is number {self.local_rank} on its machine, which has "
                f"{torch.cuda.device_count()} GPUs: start no more processes a machine (--nproc-per-node) than GPUs"
            )
        return torch.device(device.type, self.local_rank)

    @contextlib.contextmanager
    def joined(self, device: torch.device, patience: datetime.timedelta = _PATIENCE) -> Iterator[None]:
        """Bring the processes together for the time of the context: NCCL between GPUs, gloo elsewhere.

        A process group that exists already is used, and left as it is.

        Args:
            device: of this process, from :meth:`pick_device`.
            patience: how long a process waits for another one that stands still.

        Raises:
            ConnectionError: the processes do not find each other.
        """
        if self.size == 1:
            yield
            return
        own = not dist.is_initialized()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        with speaking():
            if own:
                dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
            # The hosts speak to each other without the GPUs: nothing is waited for that is being computed.
            self._control = dist.new_group(backend="gloo", timeout=patience)
        yield
        # After an error the others may be gone, and NCCL would wait for them: the end of the process is enough then.
        if own:
            dist.destroy_process_group()

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; all of them call this at the same point."""
        if self.size == 1:
            return flag
        value = torch.tensor([int(flag)])
        with speaking():
            dist.all_reduce(value, op=dist.ReduceOp.MAX, group=self._control)
        return bool(value.item())

    def wait(self) -> None:
        """Return when all processes are here."""
        self.any(False)

    def agree(self, facts: Mapping[str, object]) -> None:
        """Make sure that all processes start from the same.

        Args:
            facts: what must be alike, by name.

        Raises:
            ValueError: a fact of this process is not that of the first one.
        """
        if self.size == 1:
            return
        digests = [hashlib.sha256(str(value).encode()).digest()[:8] for value in facts.values()]
        own = torch.tensor([int.from_bytes(each, "little", signed=True) for each in digests])
        first = own.clone()
        with speaking():
            dist.broadcast(first, src=0, group=self._control)
        for name, same in zip(facts, (own == first).tolist(), strict=True):
            if not same:
                raise ValueError(
                    f"process {self.rank} of {self.size} has another {name} than process 0 ({facts[name]}): all need "
                    "the same command, program, data files and folder of the run (--out, on a shared file system)"
                )
        self.wait()

    def share_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the values of the first one, in place."""
        if self.size > 1:
            with speaking():
                for tensor in tensors:
                    dist.broadcast(tensor.detach(), src=0)

    def share(self, count: int) -> range:
        """Return which of ``count`` things in a row are this process's: as many as the others', or one more."""
        each, more = divmod(count, self.size)
        start = self.rank * each + min(self.rank, more)
        return range(start, start + each + (self.rank < more))

    def collect(self, own: Tensor) -> Tensor:
        """Give the first process the rows of all, one process after another.

        Args:
            own: ``(n, D)`` or ``(n,)``; n differs, and where it is 0 so may D. Of one dtype in all processes.

        Returns:
            All rows on the device of ``own``; an empty tensor in the other processes.
        """
        if self.size == 1:
            return own
        rows = own.detach().cpu().contiguous()
        with speaking():
            if not self.first:
                dist.send(torch.tensor([len(rows)]), dst=0, group=self._control)
                if len(rows):
                    dist.send(rows, dst=0, group=self._control)
                return own[:0]
            parts = [rows]
            for other in range(1, self.size):
                count = torch.zeros(1, dtype=torch.int64)
                dist.recv(count, src=other, group=self._control)
                if count.item():
                    parts.append(rows.new_empty(int(count.item()), *rows.shape[1:]))
                    dist.recv(parts[-1], src=other, group=self._control)
        return torch.cat(parts).to(own.device)

    def check_batch(self, batch_size: int, accumulate: int) -> None:
        """Raise ``ValueError`` unless the processes can share a batch evenly."""
        parts = self.size * accumulate
        if batch_size % parts:
            below = batch_size // parts * parts
            near = " or ".join(str(size) for size in (below, below + parts) if size)
            pieces = f" in {accumulate} micro-batches (accumulate)" if accumulate > 1 else ""
            raise ValueError(
                f"batch_size {batch_size} is that of all processes together, and {self.size} processes{pieces} cannot "
                f"share it evenly: pass --batch-size {near}"
            )


@contextlib.contextmanager
def speaking() -> Iterator[None]:
    """Say in one line that another process is gone, where torch.distributed tells of its connection.

    Raises:
        ConnectionError: the call inside failed.
    """
    try:
        yield
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise ConnectionError(
            "another process of the job has ended or cannot be reached; its own message says why "
            f"({lines[0] if lines else type(error).__name__})"
        ) from error


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip() or str(default)
    if not text.isdecimal():
        raise ValueError(f"{name}={text!r} must be a whole number: torchrun sets it, otherwise unset it")
    return int(text)
