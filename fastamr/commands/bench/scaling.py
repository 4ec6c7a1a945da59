"""``fastamr bench scaling``: step time against S, T, V, K, depth and width."""

from __future__ import annotations

from typing import Any

from ...benchmarking import ScalingOptions, run_scaling
from ...benchmarking.charts import ENDINGS, draw_scaling
from ...benchmarking.scaling import SIZES
from ...devices import pick_device
from ...errors import check_name
from ..options import usage
from .common import bench_parser, make_out, parse, write_json


def run(words: list[str]) -> None:
    """Carry out the command."""
    parser = bench_parser("scaling", "step time against S, T, V, K, depth and width", words)
    vary = {"nargs": "+", "metavar": "SIZE[=V,V]"}
    vary["help"] = f"{', '.join(SIZES)}, with values or the device's own; all by default"
    first = {"what": "vary sequences precision rounds"}
    parser.add_fields(ScalingOptions, first, skip=("model", "architecture"), forms={"vary": vary})
    given = parse(parser, words)
    device, folder = pick_device(given.pop("device")), given.pop("out")
    given["vary"] = dict(usage(_varied, word) for word in given.get("vary", ()))
    options = ScalingOptions(**given)
    out = make_out(folder)
    print(f"{'size':>10} {'value':>6} {'ms':>10} {'limit ms':>10} {'share':>7}", flush=True)
    result = run_scaling(options, device, report=lambda name, point: print(_point(name, point), flush=True))
    write_json(out / "scaling.json", result.to_json())
    facts, chosen = result.environment, result.options
    base = f"{chosen.model}, {chosen.precision}, S = {chosen.sequences} unless varied"
    rate = f"{result.matmul_tflops:.4g} TFLOP/s of a large product measured here"
    limit = f"limit: FLOPs (linear layers, attention) at the {rate}"
    for ending in ENDINGS:
        draw_scaling(
            out / f"scaling.{ending}",
            dict(result.curves),
            title=f"Cost of one pre-training step ({base}); {limit}",
            subtitle=f"{facts['device_name']}, {facts['date']}, torch {facts['torch']}",
        )
    print(f"written to {out}")


def _varied(word: str) -> tuple[str, tuple[int, ...]]:
    """``NAME`` or ``NAME=V1,V2`` of ``--vary``."""
    name, _, values = word.partition("=")
    check_name("size", name, SIZES)
    return name, tuple(int(value) for value in values.split(",") if value)


def _point(name: str, point: Any) -> str:
    if point.ms is None:
        return f"{name:>10} {point.value:>6} no time: {point.reason}"
    share = point.limit_ms / point.ms
    return f"{name:>10} {point.value:>6} {point.ms:>10.2f} {point.limit_ms:>10.2f} {share:>7.1%}"
