"""``fastamr tune``: which back end of each op is right and fast on this machine."""

from __future__ import annotations

import dataclasses
import os

from ..benchmarking.step import build_fast_step
from ..devices import pick_device
from ..files import check_writable
from ..progress import say
from ..training import PretrainConfig
from ..training.config import merge_settings
from ..training.update.precision import precision_name
from ..tuning import TuneOptions, saved, tune
from .options import FLAG, CommandParser, usage
from .settings import add_model, look_ahead, preset_settings, read_files

_TEXT = (
    "Check every back end of every op against float64 on this machine, time those that are right, and pick."
)
# What of a configuration decides the shapes of an update.
FIELDS = ("batch_size", "accumulate", "precision")


def run(words: list[str]) -> None:
    """Carry out the command."""
    ahead = look_ahead(words)
    model = ahead.model or read_files(ahead.config, PretrainConfig).get("model", PretrainConfig.model)
    parser = CommandParser("tune", "", _TEXT)
    add_model(parser, model, files=True)
    rest = [each.name for each in dataclasses.fields(PretrainConfig) if each.name not in FIELDS]
    parser.add_fields(PretrainConfig, {"calls": " ".join(FIELDS)}, skip=rest)
    add = parser.add_argument_group("how").add_argument
    add("--device", default="auto", help="auto (a GPU where there is one), cpu or cuda")
    add("--quick", action=FLAG, default=False, help="shorter timings")
    add("--limit", type=float, default=TuneOptions.limit, metavar="SECONDS",
        help="time that a back end may take over one kind of call before its process is killed")  # fmt: skip
    add("--out", metavar="FILE", help="the record; by default a file in the folder of fastamr cache")
    given = parser.parse(words).as_dict()
    options = usage(TuneOptions, quick=given.pop("quick"), limit=given.pop("limit"))
    device, out = usage(pick_device, given.pop("device")), given.pop("out")
    if out:
        check_writable(out, *ahead.config)
    for name in ("config", "preset", "model"):
        given.pop(name)
    settings = merge_settings(
        preset_settings(ahead.preset, model), read_files(ahead.config, PretrainConfig, model)
    )
    settings = merge_settings(settings, {**given, "model": model})
    config = usage(PretrainConfig.from_dict, settings)
    sequences = config.batch_size // config.accumulate if "batch_size" in settings else None
    precision = precision_name(config.precision, device)
    step = build_fast_step(model, config.architecture, device, sequences=sequences, precision=precision)
    say(f"{step.description}, on {device.type}")
    record, path = saved(tune(step.calls(), step.basis(), options=options, say=say), out)
    for each in record.classes:
        print(f"{each.shape.label}: {each.line()}")
    print(f"written to {path} (record {record.digest})")
    if out or os.environ.get("FASTAMR_TUNING"):
        say(f"FASTAMR_TUNING={path} makes auto read it")
