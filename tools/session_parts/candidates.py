"""The tiles that a kernel can be launched with: any of its candidates, not only the one that it would take."""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from fastamr.kernels import launch

from fastamr import kernels
from fastamr.testing.op_cases import Case
from fastamr.testing.op_sizes import Sizes

_original = launch.pick


@contextmanager
def taking(number: int) -> Iterator[dict[str, Sequence[launch.Config]]]:
    """Launchers take the candidate of this number inside the block, the last one where there are fewer.

    Args:
        number: from 0, the candidate that runs by default.

    Yields:
        By name of the kernel, all candidates that it could choose from; filled in as kernels are launched.
    """
    seen: dict[str, Sequence[launch.Config]] = {}

    def pick(
        name: str, shape_class: Any, candidates: Sequence[launch.Config], *rest: Any, **more: Any
    ) -> Any:
        seen[name] = candidates
        return candidates[min(number, len(candidates) - 1)]

    names = [f"fastamr.kernels.{found.name}" for found in pkgutil.iter_modules(kernels.__path__)]
    modules = [module for module in map(import_module, names) if getattr(module, "pick", None) is _original]
    for module in modules:
        module.pick = pick  # type: ignore[attr-defined]
    try:
        yield seen
    finally:
        for module in modules:
            module.pick = _original  # type: ignore[attr-defined]


def of(case: Case, sizes: Sizes) -> list[launch.Config]:
    """The candidates of a call's kernel, best first; empty where it has no choice. Nothing is launched."""
    with launch.record(), taking(0) as seen:
        case.launch(case.arguments(dataclasses.replace(sizes, grad=False, filled=False)))
    return max([list(each) for each in seen.values()], key=len, default=[])


def in_words(config: launch.Config) -> str:
    """Blocks, warps and stages."""
    blocks = "x".join(map(str, config.blocks.values()))
    return f"{blocks}, {config.num_warps} warps, {config.num_stages} stages"
