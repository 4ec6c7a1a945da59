"""Measure how near a training step of this CPU is to the time of its products alone.

``python tools/measure_floor.py`` takes updates of AMR and notes every product of two matrices that they make, by shape
(the small rotations of clips are left out). It then times each shape by itself, in every form that PyTorch offers
(either library, each factor as it lies or transposed), and takes the fastest: no step that makes these products can be
faster than their sum, whatever it does besides. Products and whole steps are timed by turns, since the machine drifts.
Attention is no product here: its time in the step is told beside it.

    python tools/measure_floor.py [--sizes paper small] [--rounds 5] [--precision float32]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import yaml  # noqa: E402
from measure_busy import SIZES  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402

from fastamr.benchmarking.step import build_fast_step  # noqa: E402
from fastamr.configs import preset_file  # noqa: E402
from fastamr.memory import keep_freed_memory  # noqa: E402
from fastamr.ops.common.products import product_library  # noqa: E402
from fastamr.tables import markdown  # noqa: E402

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WARM_UP = 3  # updates
# Where the two factors stand among the arguments of an operator, and whether the second one lies as (N, K).
_PRODUCTS = {
    "aten::mm": (0, 1, False),
    "aten::addmm": (1, 2, False),
    "mkldnn::_linear_pointwise": (0, 1, True),
}


class Product(NamedTuple):
    """``(rows, inner) @ (inner, columns)``."""

    rows: int
    inner: int
    columns: int

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.rows * self.inner * self.columns


class Measured(NamedTuple):
    """Seconds of a step, of its products alone, of those that it spends in products and in attention as it runs."""

    step: float
    floor: float
    products: float
    attention: float
    operations: int


def found_products(events: Sequence[Any]) -> tuple[Counter[Product], float, float]:
    """Return the products among a profiler's events with their count, their seconds, and those of attention.

    Args:
        events: of one update, with the shapes of the operators' arguments.
    """
    shapes: Counter[Product] = Counter()
    seconds = attention = 0.0
    for event in events:
        if event.name in _PRODUCTS:
            first, second, transposed = _PRODUCTS[event.name]
            (*rows, inner), right = event.input_shapes[first], event.input_shapes[second]
            count = 1
            for size in rows:
                count *= size
            shapes[Product(count, inner, right[0] if transposed else right[1])] += 1
            seconds += event.cpu_time_total / 1e6
        elif _is_attention(event):
            attention += event.cpu_time_total / 1e6
    return shapes, seconds, attention


def _is_attention(event: Any) -> bool:
    """Say whether an event is an operator of attention that no other one called."""
    parent = event.cpu_parent
    return "attention" in event.name and (parent is None or "attention" not in parent.name)


def forms(product: Product, dtype: torch.dtype) -> list[Callable[[], object]]:
    """Return the ways to compute a product, each with operands of its own."""
    rows, inner, columns = product
    left, right = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype)
    pairs: list[tuple[Tensor, Tensor]] = [
        (one, two) for one in (left, left.T.contiguous().T) for two in (right, right.T.contiguous().T)
    ]
    ways: list[Callable[[], object]] = [lambda pair=pair: torch.mm(*pair) for pair in pairs]
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        linear = torch.ops.mkldnn._linear_pointwise
        ways += [lambda pair=pair: linear(pair[0], pair[1].T, None, "none", [], "") for pair in pairs]
    return ways


def fastest(ways: Sequence[Callable[[], object]], rounds: int) -> float:
    """Return the seconds of the fastest way: the least median over rounds in which all take turns."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds + 1):
        for way, kept in zip(ways, times, strict=True):
            begun = time.perf_counter()
            way()
            kept.append(time.perf_counter() - begun)
    return min(statistics.median(kept[1:]) for kept in times)


def measure(size: str, precision: str, rounds: int) -> Measured:
    """Measure AMR at one size of :data:`SIZES`."""
    preset, sequences = SIZES[size]
    settings = yaml.safe_load(preset_file(preset, "amr").read_text(encoding="utf-8"))
    step = build_fast_step(
        "amr",
        settings.get("architecture", {}),
        torch.device("cpu"),
        sequences=sequences,
        precision=precision,
    )
    for _ in range(WARM_UP):
        step()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        step()
    shapes, products, attention = found_products(profiler.events())
    dtype = PRECISIONS[precision]
    steps, floors = [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(3):
            step()
        steps.append((time.perf_counter() - begun) / 3)
        floors.append(sum(count * fastest(forms(one, dtype), 3) for one, count in shapes.items()))
    operations = sum(count * one.operations for one, count in shapes.items())
    return Measured(statistics.median(steps), statistics.median(floors), products, attention, operations)


def row(size: str, found: Measured) -> list[str]:
    """Return a row of the table."""
    return [
        f"AMR {size}, S = {SIZES[size][1]}",
        f"{found.step * 1e3:.0f}",
        f"{found.floor * 1e3:.0f}",
        f"{found.operations / found.floor / 1e9:.0f}",
        f"{found.floor / found.step:.0%}",
        f"{found.products * 1e3:.0f}",
        f"{found.attention * 1e3:.0f}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["paper", "small"])
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    keep_freed_memory()
    print(
        f"{torch.get_num_threads()} threads, {options.precision}, products by {product_library()}", flush=True
    )
    rows = []
    for size in options.sizes:
        rows.append(row(size, measure(size, options.precision, options.rounds)))
        print(" | ".join(rows[-1]), flush=True)
    names = ["", "step, ms", "its products alone, ms", "GFLOP/s of these", "floor / step"]
    print(markdown([[*names, "products in the step, ms", "attention in it, ms"], *rows]))


if __name__ == "__main__":
    main()
