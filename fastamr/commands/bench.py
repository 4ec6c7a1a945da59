"""``fastamr bench ladder | recipe | profile | scaling``: measure the training step on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import check_name

_PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
# The limit drawn beside the curves is the rate of PyTorch's products, which tf32 changes on a GPU only.
_SCALING_PRECISIONS = ("float32", "float16", "bfloat16")


def run(arguments: list[str]) -> None:
    """Carry out the command.

    Raises:
        ValueError: an unknown rung, model, setting or device, or an option out of range.
        NotADirectoryError: ``--out`` lies in a file.
        ImportError: matplotlib is not installed.
        RuntimeError: a rung disagrees with the reference; it has no time.
    """
    given = _parser().parse_args(arguments)
    from ..benchmarking.machine import busy_warning

    warning = busy_warning()
    if warning:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    given.command(given)


def _ladder(given: argparse.Namespace) -> None:
    from ..benchmarking import LadderOptions, run_ladder
    from ..benchmarking.charts import ENDINGS, draw_ladder
    from ..benchmarking.ladder_report import as_markdown, as_text, to_json
    from ..benchmarking.rungs import choose_rungs
    from ..devices import pick_device
    from ..files import write_text

    device = pick_device(given.device)
    options = LadderOptions(
        given.sequences, tuple(given.rungs), given.rounds, given.warmup, _settings(given.architecture)
    )
    choose_rungs(options.rungs, device)
    out = _folder(given.out)
    ladder = run_ladder(options, device, report=lambda row: _say(_row(row)))
    print(as_text(ladder))
    _write_json(out / "ladder.json", to_json(ladder))
    write_text(out / "ladder.md", as_markdown(ladder))
    measured = any(row.ms is not None for row in ladder.rows)
    for ending in ENDINGS if measured else ():
        draw_ladder(out / f"ladder.{ending}", ladder)
    _done(out)
    if ladder.wrong:
        names = ", ".join(row.name for row in ladder.wrong)
        raise RuntimeError(f"{names}: the loss disagrees with the float64 reference, so there is no time")
    if not measured:
        raise RuntimeError("no rung could run on this device: the table says why")


def _recipe(given: argparse.Namespace) -> None:
    from ..benchmarking import RecipeOptions, run_recipe
    from ..benchmarking.recipe import as_text
    from ..files import write_text

    options = RecipeOptions(
        preset=given.preset,
        model=given.model,
        architecture=_settings(given.architecture),
        updates=given.updates,
        full=given.full,
        clips=given.clips,
        batch_size=given.batch_size,
        device=given.device,
        precision=given.precision,
        seed=given.seed,
        progress=not given.no_progress,
    )
    out = _folder(given.out)
    report = run_recipe(options, out)
    print(as_text(report))
    _write_json(out / "recipe.json", report)
    write_text(out / "recipe.txt", as_text(report) + "\n")
    _done(out)


def _profile(given: argparse.Namespace) -> None:
    from ..benchmarking import profile_step
    from ..benchmarking.step import build_fast_step
    from ..devices import pick_device

    device = pick_device(given.device)
    settings = _settings(given.architecture)
    step = build_fast_step(
        given.model, settings, device, sequences=given.sequences, precision=given.precision
    )
    out = _folder(given.out)
    trace = out / "trace.json"
    warmup = given.warmup + step.preparation
    result = profile_step(
        step, device, updates=given.steps, warmup=warmup, trace=trace, what=step.description
    )
    print(result.text(given.most))
    result.save(out)
    _done(out)


def _scaling(given: argparse.Namespace) -> None:
    from ..benchmarking import ScalingOptions, run_scaling
    from ..benchmarking.charts import ENDINGS, draw_scaling
    from ..devices import pick_device

    device = pick_device(given.device)
    options = ScalingOptions(
        model=given.model,
        architecture=_settings(given.architecture),
        sequences=given.sequences,
        vary=dict(given.vary),
        precision=given.precision,
        rounds=given.rounds,
    )
    out = _folder(given.out)
    print(f"{'size':>10} {'value':>6} {'ms':>10} {'limit ms':>10} {'share':>7}", flush=True)
    result = run_scaling(options, device, report=lambda name, point: print(_point(name, point), flush=True))
    _write_json(out / "scaling.json", result.to_json())
    facts, chosen = result.environment, result.options
    base = f"{chosen.model}, {chosen.precision}, S = {chosen.sequences} unless varied"
    limit = f"limit: FLOPs at the {result.matmul_tflops:.4g} TFLOP/s of a large product measured here"
    for ending in ENDINGS:
        draw_scaling(
            out / f"scaling.{ending}",
            dict(result.curves),
            title=f"Cost of one pre-training step ({base}); {limit}",
            subtitle=f"{facts['device_name']}, {facts['date']}, torch {facts['torch']}",
        )
    _done(out)


def _row(row: Any) -> str:
    return f"{row.name}: {row.reason}" if row.ms is None else f"{row.name}: {row.ms:,.2f} ms"


def _point(name: str, point: Any) -> str:
    if point.ms is None:
        return f"{name:>10} {point.value:>6} no time: {point.reason}"
    share = point.limit_ms / point.ms
    return f"{name:>10} {point.value:>6} {point.ms:>10.2f} {point.limit_ms:>10.2f} {share:>7.1%}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _done(out: Path) -> None:
    print(f"written to {out}")


def _folder(name: str) -> Path:
    """The folder for the results; made where it is missing, with those above it."""
    from ..files import make_folder

    return make_folder(Path(name) / "report").parent


def _write_json(path: Path, values: Any) -> None:
    from ..files import write_text

    write_text(path, json.dumps(values, indent=2) + "\n")


def _settings(given: list[str]) -> dict[str, Any]:
    """``NAME=VALUE`` words as settings of an architecture; values are read as YAML."""
    import yaml

    settings = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"--architecture {word!r}: expected NAME=VALUE, for example depth=4")
        settings[name] = yaml.safe_load(value)
    return settings


def _varied(word: str) -> tuple[str, tuple[int, ...]]:
    """``NAME`` or ``NAME=V1,V2`` of ``--vary``."""
    from ..benchmarking.scaling import SIZES

    name, _, values = word.partition("=")
    try:
        check_name("size", name, SIZES)
        return name, tuple(int(value) for value in values.split(",") if value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastamr bench",
        description="Measure the training step on this machine. What the numbers mean: docs/benchmarks.md.",
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    ladder = _kind(kinds, "ladder", _ladder, "every form of the step, from the public code on, side by side")
    _add_sequences(ladder, "256 on a GPU, 8 on a CPU")
    ladder.add_argument(
        "--rungs", nargs="+", default=[], metavar="RUNG",
        help="names of rungs as in ladder.json, or all (default: all that the device runs in reasonable time; "
        "torch.compile on a CPU takes minutes and must be asked for)",
    )  # fmt: skip
    ladder.add_argument("--rounds", type=int, help="timed updates (default: 20 on a GPU, 5 on a CPU)")
    ladder.add_argument(
        "--warmup", type=int, help="untimed updates after the first (default: 5 on a GPU, 1 on a CPU)"
    )

    recipe = _kind(kinds, "recipe", _recipe, "the full pipeline on data of NTU RGB+D 60's size, projected")
    _add_model(recipe)
    recipe.add_argument("--preset", default="ntu60-xsub", help="the recipe (default and only: ntu60-xsub)")
    recipe.add_argument("--updates", type=int, default=1000, help="updates to run (default 1000)")
    recipe.add_argument("--full", action="store_true", help="run all updates of the recipe")
    recipe.add_argument("--clips", type=int, help="fewer clips for a small machine (default: the recipe's)")
    recipe.add_argument("--batch-size", type=int, help="sequences of an update (default: the recipe's)")
    recipe.add_argument("--precision", default="auto", choices=["auto", *_PRECISIONS])
    recipe.add_argument("--seed", type=int, default=0, help="of data, weights, order and masks (default 0)")
    recipe.add_argument("--no-progress", action="store_true", help="no progress bar")

    profile = _kind(kinds, "profile", _profile, "kernels, launches and gaps of a step; a Chrome trace")
    _add_model(profile)
    _add_sequences(profile, "256 on a GPU, 8 on a CPU")
    profile.add_argument(
        "--precision", choices=_PRECISIONS, help="(default: bfloat16 on a GPU, else float32)"
    )
    profile.add_argument("--steps", type=int, default=5, help="profiled updates (default 5)")
    profile.add_argument("--warmup", type=int, default=3, help="updates before them (default 3)")
    profile.add_argument("--most", type=int, default=30, help="rows of the table on the screen (default 30)")

    scaling = _kind(kinds, "scaling", _scaling, "step time against S, T, V, K, depth and width")
    _add_model(scaling)
    _add_sequences(scaling, "256 on a GPU, 2 on a CPU")
    scaling.add_argument(
        "--precision", choices=_SCALING_PRECISIONS, help="(default: bfloat16 on a GPU, else float32)"
    )
    scaling.add_argument(
        "--vary", nargs="+", type=_varied, default=[], metavar="SIZE[=V,V]",
        help="sequences, frames, joints, visible, depth, width, with values or the device's own (default: all)",
    )  # fmt: skip
    scaling.add_argument("--rounds", type=int, help="timed updates (default: 20 on a GPU, 3 on a CPU)")
    return parser


def _kind(kinds: Any, name: str, command: Any, text: str) -> argparse.ArgumentParser:
    parser = kinds.add_parser(name, help=text, description=f"Measure: {text}.", allow_abbrev=False)
    parser.set_defaults(command=command)
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu or cuda")
    parser.add_argument(
        "--out", default=f"bench-{name}", metavar="DIR", help=f"folder for the results (default bench-{name})"
    )
    parser.add_argument(
        "--architecture", nargs="+", default=[], metavar="NAME=VALUE",
        help="settings of the model, as depth=4 width=128 (default: the paper's)",
    )  # fmt: skip
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="amr", help="the model (default amr)")


def _add_sequences(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--sequences", type=int, metavar="S", help=f"of an update (default: {default})")
