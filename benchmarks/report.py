"""The facts recorded beside each time, as a table under pytest-benchmark's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastamr.tables import aligned

COLUMNS = (
    ("time us", "wall_us"),
    ("device warm", "device_us_warm"),
    ("device cold", "device_us_cold"),
    ("GB/s", "gb_per_s"),
    ("byte limit us", "byte_limit_us"),
    ("share", "share_of_byte_limit"),
    ("peak MiB", "peak_mib"),
    ("x released", "against_released"),
    ("x tuned", "against_tuned"),
    ("x published", "published_speedup"),
)


def lines(cases: Iterable[tuple[str, float, dict[str, Any]]]) -> list[str]:
    """Lines of the table; columns that no case filled are left out.

    Args:
        cases: name, median seconds and ``extra_info`` of each benchmark.
    """
    rows = [(name, {"wall_us": round(median * 1e6, 1), **info}) for name, median, info in cases]
    columns = [(title, key) for title, key in COLUMNS if any(key in info for _, info in rows)]
    table = [["", *(title for title, _ in columns)]]
    table += [[name, *(str(info.get(key, "")) for _, key in columns)] for name, info in rows]
    return aligned(table).splitlines() if rows else []
