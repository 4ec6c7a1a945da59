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

from .common import Context, in_words, say

# Of a first task, which imports torch and opens the device.
_START_SECONDS = 30.0


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
        self.is_new = True
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def ask(self, task: Any, seconds: float) -> str | None:
        """Have a task done; the reason why it was not, or None. Its results are passed on."""
        assert self._process.stdin is not None
        deadline = time.monotonic() + seconds + (_START_SECONDS if self.is_new else 0.0)
        self.is_new = False
        try:
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()
            while True:
                line = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
                if line is None:
                    return f"the process ended with status {self._process.wait(timeout=5)}"
                if line.startswith(b'{"done"'):
                    return None
                os.write(1, line)
        except queue.Empty:
            return f"no end within {seconds:.0f} s"
        except (OSError, subprocess.TimeoutExpired) as error:
            return in_words(error)

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
            reason = worker.ask(task, min(seconds, context.left))
            if reason is not None:
                say(**label(task), ok=False, error=reason, text=f"{task}: {reason}")
                worker.end()
                worker = None
        if worker is not None:
            worker.end()

    count = min(2 if context.small else 12, os.cpu_count() or 1, len(tasks))
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for task in waiting:
        say(**label(task), skipped="no time was left")


def serve(do: Callable[[Context, Any], None], context: Context) -> None:
    """Do the tasks that come in on standard input, until there are no more or the device is of no use any more."""
    for line in sys.stdin:
        task = json.loads(line)
        try:
            do(context, task)
        except Exception as error:
            say(task=task, ok=False, error=in_words(error), text=f"{task}: {in_words(error)}")
        broken = not _is_sound(context)
        say(done=True)
        if broken:
            os._exit(0)  # an illegal access spoils all that comes after it in its process


def _is_sound(context: Context) -> bool:
    if context.on_gpu:
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            return False
    return True
