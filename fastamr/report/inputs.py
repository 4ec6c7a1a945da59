"""Which runs, evaluations and results of benchmarks the given paths are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..documents import load_json_text
from ..errors import naming
from ..evaluation.report.comparison import PATTERN, compare_runs, read_report
from ..files import check_plain
from .results import RESULT_FILES, Result, kind_of, read_result
from .runs import Run, is_run, read_run
from .values import listing, mapping, number, text

TAKEN = (
    "folders of runs of fastamr pretrain, finetune and distill, folders of them, files of fastamr evaluate, results of "
    "fastamr bench quick, ladder and profile, and JSON of pytest-benchmark"
)


@dataclass
class Inputs:
    """What a report is about.

    Attributes:
        runs: in the order in which they were given.
        evaluations: what :func:`~fastamr.evaluation.report.comparison.read_report` returns, by file.
        results: of benchmarks.
    """

    runs: list[Run] = field(default_factory=list)
    evaluations: dict[Path, dict[str, Any]] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)


def read_inputs(paths: Iterable[str | Path]) -> Inputs:
    """Read what is named, each file once.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it is of another kind, or damaged; the message names it.
        OSError: it cannot be read.
    """
    found, seen = Inputs(), set()
    for path in map(Path, paths):
        for one in _meant(path):
            place = one.resolve()
            if place not in seen:
                seen.add(place)
                _read(one, found)
    return found


def _meant(path: Path) -> list[Path]:
    """Return what a path stands for: a file, a folder of a run, or what a folder without a run holds."""
    check_plain(path)
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {path}: name {TAKEN}")
    if path.is_file() or is_run(path):
        return [path]
    inside = [path / name for name in RESULT_FILES if (path / name).is_file()]
    inside += sorted(path.glob(PATTERN))
    inside = inside or [folder for folder in sorted(path.iterdir()) if is_run(folder)]
    if not inside:
        raise FileNotFoundError(f"{path} holds no run and no result: name {TAKEN}")
    return inside


def _read(path: Path, found: Inputs) -> None:
    if path.is_dir():
        found.runs.append(read_run(path))
        profile = path / "profile.json"  # of fastamr pretrain --profile
        for file in (*sorted(path.glob(PATTERN)), *[profile] * profile.is_file()):
            if file.resolve() not in found.evaluations:
                _read(file, found)
        return
    try:
        values = load_json_text(path)
    except ValueError as error:
        raise ValueError(f"{error}: name {TAKEN}") from None
    kind = kind_of(values)
    if kind is not None:
        with naming(path, "measure again"):
            found.results.append(read_result(kind, values, str(path)))
    elif isinstance(values, dict) and {"config", "model", "split", "results"} <= values.keys():
        report = read_report(path)
        with naming(path, "evaluate the run again"):
            _check_evaluation(report)
        found.evaluations[path.resolve()] = report
    else:
        raise ValueError(f"{path} is no result that a report shows: name {TAKEN}")


def _check_evaluation(report: dict[str, Any]) -> None:
    """Raise where an evaluation lacks what its table asks of it, or holds something of another kind."""
    config = mapping(report["config"], "config")
    for name in ("checkpoint", "protocol"):
        text(config[name], name)
    for name in ("data", "fuse"):
        for one in listing(config.get(name, []), name):
            text(one, name)
    for name in ("model", "split"):
        text(mapping(report[name], name)["name"], f"name of the {name}")
    for method, scores in mapping(report["results"], "results").items():
        for probe, score in mapping(scores, f"results of {method}").items():
            values = [0] if score is None else listing(score["per_seed"], f"per_seed of {probe}")
            if not values:
                raise ValueError(f"per_seed of {probe} is empty, expected a number for each seed")
            for value in values:
                number(value, f"per_seed of {probe}")
    for group in compare_runs([report]):
        for row in group.rows:
            [str(cell) for cell in row.cells.values()]
