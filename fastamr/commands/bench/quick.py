"""``fastamr bench quick``: AMR against SkeletonMAE and against plain AMR on this machine, in less than two minutes."""

from __future__ import annotations

from ...benchmarking.quick import QuickOptions, as_text, run_quick, to_json
from ...devices import pick_device
from ...files import write_text
from ...models import ModelConfig
from .common import bench_parser, make_out, parse, say, write_json
from .ladder import complain


def run(words: list[str]) -> None:
    """Carry out the command."""
    parser = bench_parser("quick", "AMR against SkeletonMAE and against plain AMR, in less than two minutes")
    parser.add_fields(QuickOptions, {"what": "sequences seconds"}, skip=("architecture",))
    parser.add_fields(ModelConfig, {}, rest="settings of both models", part="model", into="architecture")
    given = parse(parser, words)
    device, folder = pick_device(given.pop("device")), given.pop("out")
    options = QuickOptions(**given)
    out = make_out(folder)
    ladder = run_quick(options, device, say=say)
    text = as_text(ladder)
    print(text)
    write_text(out / "quick.txt", text + "\n")
    write_json(out / "quick.json", to_json(ladder))
    print(f"written to {out}")
    complain(ladder)
