"""Pre-train from packed files that are larger than the memory, and print what that took.

``python tools/measure_streaming.py FOLDER --gigabytes 28`` writes four files of random motion into FOLDER, trains a
small model on them and removes them again. It prints the memory that belongs to the process alone (anonymous: what
cannot be read again from a file) after the first tenth of the updates and its largest growth since then, and how long
the updates waited for frames.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from fastamr.data import PackedSkeletons, Split
from fastamr.data.packed.file import write_packed_pieces
from fastamr.skeleton import get_layout
from fastamr.training import PretrainConfig, pretrain
from fastamr.training.clips.clip_streams import PrefetchedClips
from fastamr.training.update.step import PretrainStep

FRAMES, JOINTS = 300, 25
SEQUENCE_BYTES = FRAMES * JOINTS * (3 * 4 + 1)  # float32 coordinates and a mask
PIECE = 256
MODEL = {"frames": 120, "width": 64, "depth": 2, "heads": 2, "decoder_width": 64, "decoder_depth": 1}
MODEL |= {"decoder_heads": 2}


def write_file(path: Path, sequences: int, seed: int) -> None:
    """Write a packed file of one body a clip, piece by piece; each piece follows from the seed."""

    def pieces() -> Iterator[Any]:
        for start in range(0, sequences, PIECE):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + start)
            frames = min(PIECE, sequences - start) * FRAMES
            coords = torch.rand(frames, JOINTS, 3, generator=generator)
            yield SimpleNamespace(coords=coords, valid=torch.rand(frames, JOINTS, generator=generator) > 0.02)

    numbers = torch.arange(sequences)
    train = numbers % 8 != 0
    whole = PackedSkeletons(
        coords=torch.empty(sequences * FRAMES, JOINTS, 3, device="meta"),
        valid=torch.empty(sequences * FRAMES, JOINTS, dtype=torch.bool, device="meta"),
        offsets=torch.arange(sequences + 1) * FRAMES,
        body_clip=numbers,
        body_start=torch.zeros_like(numbers),
        labels=numbers % 60,
        fps=torch.full((sequences,), 30.0),
        layout=get_layout("ntu25"),
        names=[f"file{seed}_{number}" for number in range(sequences)],
        splits={"official": Split(train=train, test=~train)},
    )
    write_packed_pieces(whole, path, pieces)  # type: ignore[arg-type]


def anonymous_bytes() -> int:
    """Return the memory of this process that no file stands behind."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


class Watch:
    """Notes memory, waiting and total time of each update of a step."""

    def __init__(self) -> None:
        self.memory: list[int] = []
        self.waited = self.began = self.ended = 0.0
        self.stream: Any = None

    def watched(self, call: Any) -> Any:
        """Return a step's call that notes what is watched."""

        def update(step: PretrainStep, *inputs: Any) -> Any:
            self.stream = step.clips
            self.began = self.began or time.perf_counter()
            result = call(step, *inputs)
            self.ended = time.perf_counter()
            self.memory.append(anonymous_bytes())
            return result

        return update


def measure(
    files: list[Path], out: Path, updates: int, batch_size: int, budget: float | None
) -> dict[str, Any]:
    """Pre-train on files and return the figures.

    Raises:
        RuntimeError: the frames were not fetched ahead.
    """
    watch = Watch()
    call, PretrainStep.__call__ = PretrainStep.__call__, watch.watched(PretrainStep.__call__)  # type: ignore[method-assign]
    begun = time.perf_counter()
    try:
        pretrain(
            PretrainConfig(
                data=[str(file) for file in files], out=str(out), overwrite=True, updates=updates, device="cpu",
                batch_size=batch_size, architecture=MODEL, data_budget=budget, progress=False, tensorboard=False,
                warmup_epochs=0.0, preprocess=[],
            ),
            quiet=True,
        )  # fmt: skip
    finally:
        PretrainStep.__call__ = call  # type: ignore[method-assign]
    if not isinstance(watch.stream, PrefetchedClips):
        raise RuntimeError(
            "the data was taken to fit into memory: ask for more --gigabytes, or pass --budget 0"
        )
    first = watch.memory[len(watch.memory) // 10]
    seconds = watch.ended - watch.began
    return {
        "gigabytes": round(sum(file.stat().st_size for file in files) / 1e9, 2),
        "memory_gigabytes": round(_memory_bytes() / 1e9, 2),
        "updates": updates,
        "sequences_per_update": batch_size,
        "gigabytes_read": round(updates * batch_size * SEQUENCE_BYTES / 1e9, 2),
        "anonymous_megabytes": round(first / 1e6, 1),
        "growth_megabytes": round((max(watch.memory[len(watch.memory) // 10 :]) - first) / 1e6, 1),
        "opening_seconds": round(watch.began - begun, 1),
        "milliseconds_per_update": round(1e3 * seconds / updates, 1),
        "waiting_share": round(watch.stream.waited / seconds, 4),
    }


def _memory_bytes() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemTotal:"))


def main(words: list[str]) -> None:
    """Write, train, print, remove."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where files and run go; needs the room")
    parser.add_argument("--gigabytes", type=float, default=28.0, help="of all files together")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument(
        "--budget", type=float, help="GiB of memory that the data may take; default: half of what is free"
    )
    parser.add_argument("--keep", action="store_true", help="leave the files for another measurement")
    options = parser.parse_args(words)
    options.folder.mkdir(parents=True, exist_ok=True)
    files = [options.folder / f"file{number}.safetensors" for number in range(options.files)]
    sequences = int(options.gigabytes * 1e9 / SEQUENCE_BYTES / options.files)
    try:
        for number, file in enumerate(files):
            if not file.exists():
                write_file(file, sequences, number)
                print(f"written {file}", file=sys.stderr, flush=True)
        found = measure(files, options.folder / "run", options.updates, options.batch_size, options.budget)
        print(json.dumps(found, indent=2))
    finally:
        for file in [] if options.keep else files:
            file.unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1:])
