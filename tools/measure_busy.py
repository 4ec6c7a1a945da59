"""Measure a training step of this CPU alone and beside busy processes, for each way that OpenMP's threads may wait.

``python tools/measure_busy.py`` prints the table that :data:`fastamr.host.processors.SPIN` is chosen by: alone a step
should take at most 3 % more than with the library's default, and beside one process at most 1.6 times as long as alone.
Each way runs in a process of its own, since OpenMP reads the variables once; the ways take turns, round by round. The
machine must be idle but for this: the last column says how much of it others used while the steps ran alone.

    python tools/measure_busy.py [--sizes paper small] [--spins 1000 10000] [--rounds 2] [--steps 10] [--busy 1]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fastamr.configs import preset_file  # noqa: E402
from fastamr.host import allowed_cpus, host_cpus  # noqa: E402
from fastamr.tables import markdown  # noqa: E402

# AMR by size: the preset of its architecture, and the sequences of a step.
SIZES = {"paper": ("paper", 8), "small": ("small", 64), "tiny": ("small", 1)}
TOLD = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
DEFAULT, PASSIVE, ONE = "library's default", "OMP_WAIT_POLICY=passive", "one thread"
WARM_UP = 4  # steps
_BUSY = "while True: pass"


def ways(spins: Sequence[int]) -> dict[str, dict[str, str]]:
    """Return the ways of waiting by name, each with its environment variables."""
    threads = {"OMP_NUM_THREADS": str(allowed_cpus())}
    counts = {f"GOMP_SPINCOUNT={count}": {"GOMP_SPINCOUNT": str(count)} | threads for count in spins}
    passive = {"OMP_WAIT_POLICY": "passive"} | threads
    return {DEFAULT: threads, **counts, PASSIVE: passive, ONE: {"OMP_NUM_THREADS": "1"}}


def take_steps(size: str, steps: int) -> None:
    """The measured process: for each line of standard input, time ``steps`` steps and print them with their cost."""
    import torch
    import yaml

    from fastamr.benchmarking.step import build_fast_step
    from fastamr.benchmarking.timing import measure
    from fastamr.memory import keep_freed_memory

    keep_freed_memory()
    preset, sequences = SIZES[size]
    architecture = yaml.safe_load(preset_file(preset, "amr").read_text(encoding="utf-8")).get(
        "architecture", {}
    )
    device = torch.device("cpu")
    step = build_fast_step("amr", architecture, device, sequences=sequences)
    measure(step, device, rounds=WARM_UP)
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)
    for _ in sys.stdin:
        before = time.process_time()
        times = measure(step, device, rounds=steps)
        print(json.dumps({"times": times, "processor": time.process_time() - before}), flush=True)


def used() -> float | None:
    """Return the seconds that all of the machine's CPUs have worked since it started; None where none says."""
    with contextlib.suppress(OSError, ValueError):
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        user, nice, system, _, _, *interrupts = map(int, words[1:9])
        return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    return None


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Keep processes that do nothing but work, one thread each, for the time of a block."""
    started = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


class Measured:
    """A process that takes steps when it is asked to.

    Raises:
        RuntimeError: it ended.
    """

    def __init__(self, size: str, steps: int, told: dict[str, str]) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in TOLD}
        words = [sys.executable, __file__, "--steps", str(steps), "--measured", size]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=kept | told
        )
        self.threads = self._answer()["threads"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a measured process ended with status {self._process.wait()}: see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self) -> tuple[float, float | None]:
        """Return the median of its steps, and the share of the machine that others used meanwhile."""
        assert self._process.stdin is not None
        before, start = used(), time.perf_counter()
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._answer()
        after, passed = used(), time.perf_counter() - start
        others = None
        if before is not None and after is not None:
            others = max(0.0, after - before - answer["processor"]) / (passed * host_cpus())
        return statistics.median(answer["times"]), others

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()


def measure_size(size: str, options: argparse.Namespace) -> list[list[str]]:
    """Measure one size in all ways, print a line for each round, and return the rows of its table."""
    table = ways(options.spins)
    alone: dict[str, list[float]] = {name: [] for name in table}
    beside: dict[str, list[float]] = {name: [] for name in table}
    others: dict[str, list[float]] = {name: [] for name in table}
    for turn in range(options.rounds):
        for name, told in table.items():
            process = Measured(size, options.steps, told)
            try:
                seconds, share = process.ask()
                with busy_processes(options.busy):
                    slowed, _ = process.ask()
            finally:
                process.close()
            alone[name].append(seconds)
            beside[name].append(slowed)
            others[name] += [] if share is None else [share]
            text = (
                f"{size}, round {turn + 1}, {name}, {process.threads} threads: {1e3 * seconds:.0f} ms alone"
            )
            print(f"{text}, {1e3 * slowed:.0f} beside {options.busy} busy", file=sys.stderr, flush=True)
    base = statistics.median(alone[DEFAULT])
    rows = []
    for name in table:
        here, there = statistics.median(alone[name]), statistics.median(beside[name])
        cost, ratio = f"{100 * (here / base - 1):+.1f} %", f"{there / here:.2f}"
        share_text = f"{100 * max(others[name]):.0f} %" if others[name] else "unknown"
        rows.append([size, name, span(alone[name]), cost, span(beside[name]), ratio, share_text])
    return rows


def span(seconds: Sequence[float]) -> str:
    """Return the least and the greatest of the rounds in milliseconds."""
    return f"{1e3 * min(seconds):.0f} to {1e3 * max(seconds):.0f}"


def main(words: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["paper", "small"])
    parser.add_argument("--spins", type=int, nargs="*", default=[1000, 3000, 10_000, 30_000])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10, help="of each measurement; its median counts")
    parser.add_argument("--busy", type=int, default=1, help="processes beside it")
    parser.add_argument("--measured", choices=SIZES, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.measured:
        take_steps(options.measured, options.steps)
        return 0
    heading = [
        "size",
        "way",
        "alone, ms",
        "against the default",
        f"beside {options.busy} busy, ms",
        "busy/alone",
    ]
    rows = [row for size in options.sizes for row in measure_size(size, options)]
    print(f"{allowed_cpus()} CPUs may be used, of {host_cpus()}\n")
    print(markdown([[*heading, "others used"], *rows], left=(0, 1)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
