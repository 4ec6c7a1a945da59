"""``fastamr bench profile``: kernels, launches and gaps of a step, and a Chrome trace."""

from __future__ import annotations

import dataclasses

from ...benchmarking import profile_step
from ...benchmarking.profiling import as_text
from ...benchmarking.step import build_fast_step
from ...devices import pick_device
from ...files import write_text
from ..options import one_of
from .common import add_one_model, bench_parser, make_out, parse, write_json

PRECISIONS = ("float32", "tf32", "float16", "bfloat16")


def run(words: list[str]) -> None:
    """Carry out the command.

    Raises:
        UsageError: a wrong option.
        ValueError: an unknown device, or an option out of range.
        NotADirectoryError: ``--out`` lies in a file.
    """
    parser = bench_parser(
        "profile", "kernels, launches and gaps of a step; a Chrome trace", renamed={"--steps": "--updates"}
    )
    add_one_model(parser, words)
    add = parser.add_argument_group("what").add_argument
    add(
        "--sequences",
        type=int,
        metavar="INT",
        help="S, sequences of an update; by default 256 on a GPU, 8 on a CPU",
    )
    add("--precision", type=one_of("precision", PRECISIONS), metavar="{" + ",".join(PRECISIONS) + "}",
        help="by default bfloat16 on a GPU, float32 on a CPU")  # fmt: skip
    add("--updates", type=int, default=5, metavar="INT", help="updates that are profiled")
    add("--warmup", type=int, default=3, metavar="INT", help="updates before them")
    add("--most", type=int, default=30, metavar="INT", help="rows of the table on the screen")
    given = parse(parser, words)
    device = pick_device(given["device"])
    step = build_fast_step(
        given["model"],
        given["architecture"],
        device,
        sequences=given["sequences"],
        precision=given["precision"],
    )
    out = make_out(given["out"])
    result = profile_step(
        step,
        device,
        steps=given["updates"],
        warmup=given["warmup"] + step.preparation,
        trace=out / "trace.json",
        what=step.description,
    )
    print(as_text(result, most=given["most"]))
    write_json(out / "profile.json", {"kind": "profile", **dataclasses.asdict(result)})
    write_text(out / "profile.txt", as_text(result, most=len(result.kernels)) + "\n")
    print(f"written to {out}")
