"""One run in several processes: torchrun starts this file once a process, and all share each batch.

torchrun --nproc-per-node 2 examples/several_processes.py --out runs/shared --device cpu
torchrun --nproc-per-node 8 examples/several_processes.py --out runs/shared --data ntu60.safetensors

On CPUs the processes speak by gloo, on GPUs by NCCL, one process a GPU. The batch is that of all processes together, so
clips, masks and losses are those of one process, up to rounding. `--resume auto` goes on with any number of them.
"""

import argparse
import json
import os
from pathlib import Path

from fastamr.training import PretrainConfig, pretrain

SMALL = {
    "frames": 40, "width": 64, "depth": 4, "heads": 4, "decoder_width": 64, "decoder_depth": 2, "decoder_heads": 4,
    "target_patches": 5, "guidance_windows": [4, 8, 16],
}  # fmt: skip


def losses(folder: Path) -> list[float]:
    """Return the losses that a run has noted."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["loss"] for line in lines if line["kind"] == "train"]


def main(words: list[str] | None = None) -> list[float]:
    """Pre-train; the first process writes the folder, and says what came of it. Returns the losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--out", default="runs/shared")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=32, help="of all processes together")
    given = parser.parse_args(words)
    folder = pretrain(
        PretrainConfig(
            model="amr", architecture=SMALL, data=[given.data], out=given.out, updates=given.updates,
            batch_size=given.batch_size, device=given.device, log_every=1, resume="auto",
        )
    )  # fmt: skip
    found, count = losses(folder), os.environ.get("WORLD_SIZE", "1")
    if os.environ.get("RANK", "0") == "0":
        print(f"{count} processes: loss {found[0]:.3f} at the beginning, {found[-1]:.3f} at the end")
    return found


if __name__ == "__main__":
    main()
