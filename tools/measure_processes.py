"""Measure how pre-training scales over processes of this machine's CPU, and print a table.

``python tools/measure_processes.py`` runs ``torchrun -m fastamr pretrain`` with 1, 2 and 4 processes, once with the
same batch for all together and once with the same batch for each. Processes share the cores that there are: more of
them than cores show what that costs, and nothing else. The machine must be idle.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fastamr.benchmarking.machine import busy_warning
from fastamr.data import synthetic_actions
from fastamr.host import allowed_cpus

MODEL = ["--model.depth", "4", "--model.decoder-depth", "2"]
SKIPPED = 4  # the first updates, which also prepare


def speed(folder: Path, processes: int, batch: int, updates: int) -> tuple[float, float]:
    """Return milliseconds of an update, and sequences a second, of a run with so many processes.

    Raises:
        RuntimeError: the run failed.
    """
    out = folder / f"run{processes}_{batch}"
    words = ["--data", str(folder / "data.safetensors"), "--out", str(out), "--updates", str(updates)]
    words += ["--batch-size", str(batch), "--device", "cpu", "--log-every", "1", "--warmup-epochs", "0"]
    threads = max(1, allowed_cpus() // processes)
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    start += ["-m", "fastamr", "pretrain", *words, *MODEL, "--no-progress", "--no-tensorboard"]
    done = subprocess.run(
        start, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)}
    )
    if done.returncode:
        raise RuntimeError(f"a run with {processes} processes failed:\n{done.stderr}")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines if line["kind"] == "train"]
    each = (seconds[-1] - seconds[SKIPPED - 1]) / (len(seconds) - SKIPPED)
    return 1e3 * each, batch / each


def main(words: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--batch-size", type=int, default=16, help="of all together, then of each")
    parser.add_argument("--updates", type=int, default=20)
    options = parser.parse_args(words)
    if warning := busy_warning():
        print(f"warning: {warning}", file=sys.stderr)
    print(
        f"{allowed_cpus()} cores\n\n| processes | batch in all | ms an update | sequences/s | to the first row |"
    )
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        synthetic_actions(64, seed=0).save(Path(name) / "data.safetensors")
        base = 0.0
        counts = options.processes
        for count, share in [*((count, 1) for count in counts), *((count, count) for count in counts[1:])]:
            batch = options.batch_size * share
            milliseconds, rate = speed(Path(name), count, batch, options.updates)
            base = base or rate
            print(f"| {count} | {batch} | {milliseconds:.0f} | {rate:.1f} | {rate / base:.2f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
