"""Tasks spread over several processes: one that crashes or hangs costs its task only."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from fastamr.benchmarking.timing import wait
from fastamr.host import allowed_cpus

from .common import Context, in_words, say

# Of a first task, which imports torch and opens the device.
_START_SECONDS = 30.0
# What a worker says after each task; more behind it means that its device is of no use any more.
_DONE = b"done"
# Processes beside one another, and the memory of a GPU that each of them may need.
_MOST, _BYTES = 12, 6 << 30
_NO_TIME = "no time was left"


class _Worker:
    """One process, which does one task at a time and passes its results on."""

    def __init__(self, kind: str, context: Context) -> None:
        options = [
            "--device",
            str(context.device),
            "--out",
            str(context.out),
            "--seconds",
            f"{context.left:.1f}",
        ]
        command = [sys.executable, "-m", "tools.session_parts", "work", "--kind", kind, *options]
        self._process = subprocess.Popen(
            [*command, *(["--small"] if context.small else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.is_new, self.is_spoilt = True, False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def ask(self, task: Any, seconds: float, ends: float) -> dict[str, Any]:
        """Have a task done, and pass its results on; say why it was not done, in fields of a result.

        Args:
            task: what JSON can hold.
            seconds: for the task.
            ends: when time is up for all, by the monotonic clock.
        """
        assert self._process.stdin is not None
        own = time.monotonic() + seconds + (_START_SECONDS if self.is_new else 0.0)
        deadline, self.is_new = min(own, ends), False
        try:
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()
            while True:
                line = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
                if line is None:
                    return _failed(f"the process ended with status {self._process.wait(timeout=5)}")
                if line.startswith(_DONE):
                    self.is_spoilt = line.strip() != _DONE
                    return {}
                os.write(1, line)
        except queue.Empty:
            return _failed(f"no end within {seconds:.0f} s") if own <= ends else {"skipped": _NO_TIME}
        except (OSError, subprocess.TimeoutExpired) as error:
            return _failed(in_words(error))

    def end(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)


def spread(
    kind: str, tasks: list[Any], context: Context, *, seconds: float, label: Callable[[Any], dict[str, Any]]
) -> None:
    """Have tasks done by several processes, the first tasks first, until time is up.

    Args:
        kind: names the function that does them, see ``__main__``.
        tasks: what JSON can hold.
        context: of the part.
        seconds: for one task.
        label: fields of the result that says that a task was not done.
    """
    waiting = deque(tasks)

    def work() -> None:
        worker = None
        while context.left > 0:
            try:
                task = waiting.popleft()
            except IndexError:
                break
            worker = worker or _Worker(kind, context)
            undone = worker.ask(task, seconds, context.ends)
            if undone:
                fields = label(task)
                say(**fields, **undone, text=f"{fields}: {undone.get('error') or undone['skipped']}")
            if undone or worker.is_spoilt:
                worker.end()
                worker = None
        if worker is not None:
            worker.end()

    count = min(2 if context.small else _MOST, allowed_cpus(), len(tasks))
    if context.on_gpu:
        count = max(1, min(count, torch.cuda.mem_get_info(context.device)[0] // _BYTES))
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for task in waiting:
        say(**label(task), skipped=_NO_TIME)
    if waiting:
        say(text=f"{_NO_TIME} for {len(waiting)} of {len(tasks)} tasks")


def _failed(why: str) -> dict[str, Any]:
    return {"ok": False, "error": why}


def serve(
    do: Callable[[Context, Any], None], label: Callable[[Context, Any], dict[str, Any]], context: Context
) -> None:
    """Do the tasks that come in on standard input, until there are no more.

    Args:
        do: one task.
        label: fields of the result that says that a task failed.
        context: of the part.
    """
    for line in sys.stdin:
        task = json.loads(line)
        try:
            do(context, task)
        except Exception as error:
            fields = label(context, task)
            say(**fields, ok=False, error=in_words(error), text=f"{fields}: {in_words(error)}")
        # An illegal access spoils all that comes after it in its process.
        os.write(1, (_DONE if is_sound(context) else _DONE + b" spoilt") + b"\n")


def is_sound(context: Context) -> bool:
    """Whether the device still works in this process."""
    try:
        wait(context.device)
    except RuntimeError:
        return False
    return True
