"""Stands for SLURM's commands in tests of batch scripts; which one it is follows from the name it is called by.

``srun`` starts a command as often as there are nodes. As SLURM's does, it kills the whole step when it gets SIGTERM
itself. ``scancel --signal=TERM JOB`` signals every process of the step, and not the shell. ``scontrol`` names hosts,
and notes what is requeued.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


def members(home: str) -> Iterator[int]:
    """The processes of the step that a script has started in a folder."""
    mark = f"STEP_OF={home}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes().split(b"\0"):
                yield int(path.name)
        except OSError:
            continue


def signal_step(home: str, number: signal.Signals) -> None:
    for process in members(home):
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue


def srun(home: str, words: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: signal_step(home, signal.SIGKILL))
    tasks = []
    for number in range(int(os.environ.get("SLURM_NNODES", "1"))):
        environment = os.environ | {"STEP_OF": home, "SLURM_PROCID": str(number)}
        tasks.append(subprocess.Popen(words, env=environment))
    return max(abs(task.wait()) for task in tasks)


def main(name: str, words: list[str]) -> int:
    home = os.environ["STAND_IN"]
    if name == "srun":
        return srun(home, words)
    if name == "scontrol" and words[:2] == ["show", "hostnames"]:
        print("localhost\nsecond")
        return 0
    with (Path(home) / "notes").open("a") as notes:
        print(name, *words, file=notes)
    if name == "scancel":
        assert words[0] == "--signal=TERM"
        signal_step(home, signal.SIGTERM)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[0]).name, sys.argv[1:]))
