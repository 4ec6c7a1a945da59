"""What all kinds of ``fastamr bench`` share: the parser's first options, the warning of a busy machine, the folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...benchmarking.machine import busy_warning
from ...devices import missing_instructions, pick_device
from ...files import make_folder, write_text
from ..options import CommandParser
from ..settings import add_model, look_ahead, preset_settings


def bench_parser(kind: str, text: str, words: Sequence[str] | None = None, **options: Any) -> CommandParser:
    """Return a parser with ``--device`` and ``--out``; with the command's words also with one model's options."""
    parser = CommandParser(f"bench {kind}", "", f"Measure {text}.", **options)
    group = parser.add_argument_group("where")
    group.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu or cuda")
    group.add_argument("--out", default=f"bench-{kind}", metavar="DIR", help="folder for the results")
    if words is not None:
        add_model(parser, look_ahead(words).model or "amr")
    return parser


def parse(parser: CommandParser, words: Sequence[str]) -> dict[str, Any]:
    """Return the options, with the settings of the model as ``architecture``; warn of a busy machine, and of a
    precision that is emulated.

    Of a preset the settings of the model are taken, below those of the command line.
    """
    given = parser.parse(words).as_dict()
    preset = preset_settings(given.pop("preset", None), given.get("model", ""))
    given["architecture"] = {**preset.get("architecture", {}), **given.get("architecture", {})}
    if given.get("count"):  # nothing is run
        return given
    if warning := busy_warning():
        say(f"warning: {warning}")
    if warning := emulation_warning(given.get("precision"), given["device"]):
        say(f"warning: {warning}")
    return given


def emulation_warning(precision: str | None, device: str) -> str | None:
    """Return that a device has to emulate products of a precision, or None where it has instructions for them.

    Args:
        precision: of a command, None = its default.
        device: its name, or ``auto``.

    Raises:
        ValueError: no such device, or not on this machine.
    """
    if precision not in ("bfloat16", "float16"):
        return None
    reason = missing_instructions(pick_device(device), getattr(torch, precision))
    return reason and f"{reason}: they are emulated, and the times say nothing about other machines"


def make_out(name: str) -> Path:
    """Return the folder for the results; it is made where it is missing, with those above it."""
    return make_folder(Path(name) / "report").parent


def say(text: str) -> None:
    """Print on standard error, at once."""
    print(text, file=sys.stderr, flush=True)


def write_json(path: Path, values: Any) -> None:
    """Write plain values."""
    write_text(path, json.dumps(values, indent=2) + "\n")
