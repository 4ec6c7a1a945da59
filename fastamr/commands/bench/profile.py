"""``fastamr bench profile``: kernels, launches and gaps of a step, and a Chrome trace."""

from __future__ import annotations

from typing import Any

from ...benchmarking import count_nodes, profile_step
from ...benchmarking.step import GPU_PRECISION, GPU_SEQUENCES, build_fast_step
from ...devices import pick_device
from ..options import FLAG, choice
from .common import bench_parser, make_out, parse, write_json

PRECISIONS = ("float32", "tf32", "float16", "bfloat16")


def run(words: list[str]) -> None:
    """Carry out the command."""
    text = "kernels, launches and gaps of a step; a Chrome trace"
    parser = bench_parser("profile", text, words, renamed={"--steps": "--updates"})
    add = parser.add_argument_group("what").add_argument
    add("--sequences", type=int, help="S, sequences of an update; by default 256 on a GPU, 8 on a CPU")
    add("--precision", **choice("precision", PRECISIONS),
        help="by default bfloat16 on a GPU, float32 on a CPU")  # fmt: skip
    add("--updates", type=int, default=5, help="updates that are profiled")
    add("--warmup", type=int, default=3, help="updates before them")
    add("--most", type=int, default=30, help="rows of the table on the screen")
    add("--count", action=FLAG, default=False,
        help="run nothing: count the nodes of the CUDA graph of an update, group by group; needs no GPU")  # fmt: skip
    given = parse(parser, words)
    if given["count"]:
        _count(given)
        return
    device = pick_device(given["device"])
    sizes = {name: given[name] for name in ("sequences", "precision")}
    step = build_fast_step(given["model"], given["architecture"], device, **sizes)
    out = make_out(given["out"])
    counts = {"updates": given["updates"], "warmup": given["warmup"] + step.preparation}
    result = profile_step(step, device, **counts, trace=out / "trace.json", what=step.description)
    print(result.text(given["most"]))
    result.save(out)
    print(f"written to {out}")


def _count(given: dict[str, Any]) -> None:
    """Print the nodes of an update on a GPU, and write them."""
    count = count_nodes(
        given["model"],
        given["architecture"],
        sequences=given["sequences"] or GPU_SEQUENCES,
        precision=given["precision"] or GPU_PRECISION,
    )
    print(count.text())
    out = make_out(given["out"])
    write_json(out / "nodes.json", count.to_dict())
    print(f"written to {out / 'nodes.json'}")
