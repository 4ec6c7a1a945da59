"""``fastamr bench ladder``: every form of the training step, from the public code on, side by side."""

from __future__ import annotations

from ...benchmarking import Ladder, LadderOptions, run_ladder
from ...benchmarking.charts import ENDINGS, draw_ladder
from ...benchmarking.ladder import Row
from ...benchmarking.ladder_report import as_markdown, as_text, to_json
from ...benchmarking.rungs import choose_rungs
from ...devices import pick_device
from ...files import write_text
from ...models import ModelConfig
from .common import bench_parser, make_out, parse, say, write_json


def run(words: list[str]) -> None:
    """Carry out the command."""
    parser = bench_parser("ladder", "every form of the step, from the public code on, side by side")
    parser.add_fields(LadderOptions, {"what": "rungs sequences rounds warmup"}, skip=("architecture",))
    parser.add_fields(ModelConfig, {}, rest="settings of both models", part="model", into="architecture")
    given = parse(parser, words)
    device, folder = pick_device(given.pop("device")), given.pop("out")
    options = LadderOptions(**given)
    choose_rungs(options.rungs, device)
    out = make_out(folder)

    def report(so_far: Ladder) -> None:
        say(_row(so_far.rows[-1]))
        write_json(out / "ladder.json", to_json(so_far))

    ladder = run_ladder(options, device, report=report, say=say)
    print(as_text(ladder))
    write_text(out / "ladder.md", as_markdown(ladder))
    for ending in ENDINGS if any(row.ms is not None for row in ladder.rows) else ():
        draw_ladder(out / f"ladder.{ending}", ladder)
    print(f"written to {out}")
    complain(ladder)


def complain(ladder: Ladder) -> None:
    """Raise where a rung disagrees with the reference, or where no rung could run.

    Raises:
        RuntimeError: either.
    """
    if ladder.wrong:
        names = ", ".join(row.name for row in ladder.wrong)
        raise RuntimeError(f"{names}: the loss disagrees with the float64 reference, so there is no time")
    if all(row.ms is None for row in ladder.rows):
        raise RuntimeError("no rung could run on this device: the table says why")


def _row(row: Row) -> str:
    if row.ms is None:
        return f"{row.name}: {row.reason}"
    return f"{row.name}: {row.ms:,.2f} ms" + (", one CUDA graph" if row.recorded else "")
