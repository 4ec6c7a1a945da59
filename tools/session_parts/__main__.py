"""Run one part: ``python -m tools.session_parts PART --device cuda --out DIR --seconds 60``, from the checkout."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

import torch

from .common import Context
from .workers import serve

# Part or kind of task: the module and the function.
PARTS = {
    "environment": "machine.environment",
    "build": "machine.build",
    "warmup": "warmup.warmup",
    "gate1": "gates.gate1",
    "gate2": "gates.gate2",
    "steps": "steps.steps",
    "profile": "steps.profile",
    "products": "products.products",
    "attention": "products.attention",
    "tune": "machine.tune",
    "again": "steps.again",
    "tests": "suite.tests",
}
TASKS = {"gate1": "gates.check", "warmup": "warmup.warm"}


def main() -> None:
    """Find the function and call it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[*PARTS, "work"])
    parser.add_argument("--kind", choices=TASKS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            sys.exit("no GPU that PyTorch can use: torch.cuda.is_available() is false")
        device = torch.device("cuda", torch.cuda.current_device())
    context = Context(device, given.out.resolve(), given.small, time.monotonic() + given.seconds)
    name = TASKS[given.kind] if given.part == "work" else PARTS[given.part]
    module, _, function = name.partition(".")
    found = getattr(importlib.import_module(f"tools.session_parts.{module}"), function)
    if given.part == "work":
        serve(found, context)
    else:
        found(context)


if __name__ == "__main__":
    main()
