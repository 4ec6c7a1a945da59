"""``fastamr table RUN...``: evaluations side by side, beside published results, as markdown, LaTeX or CSV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .options import FLAG, CommandParser, choice


def run(words: list[str]) -> None:
    """Carry out the command."""
    from ..evaluation.report.comparison import (
        average_folds,
        compare_runs,
        find_reports,
        format_csv,
        format_markdown,
        read_report,
    )
    from ..evaluation.report.latex import format_latex
    from ..evaluation.report.published import DATA_SETS
    from ..evaluation.report.seeds import group_seeds, mark_unfinished
    from ..files import check_writable, make_folder, write_text

    formats = {"markdown": format_markdown, "latex": format_latex, "csv": format_csv}
    text = "Put evaluations side by side, by data set, split and protocol, beside published results."
    parser = CommandParser("table", "RUN...", text)
    parser.add_argument(
        "runs", metavar="RUN", nargs="+",
        help="folders of runs that fastamr evaluate has been at, a folder of such folders, or its JSON files",
    )  # fmt: skip
    add = parser.add_argument_group("the table").add_argument
    add("--format", **choice("format", formats), help="of the table; markdown by default")
    add(
        "--latex",
        action=FLAG,
        help="the same as --format latex: booktabs, a label, the best measured values bold",
    )
    add("--out", metavar="FILE", help="write it there instead of printing it")
    add("--published", **choice("published", ("auto", "none", *DATA_SETS)), default="auto",
        help="published results beside the measured ones: auto (where the data's file is called after a data set), "
        f"none, or those of {', '.join(DATA_SETS)}")  # fmt: skip
    add("--folds", action=FLAG, help="average the splits fold0, fold1, ... of a data set (cross-validation)")
    add("--group", action=FLAG, default=True,
        help="one row for runs that differ in their seed only; --no-group one for each run")  # fmt: skip
    given = parser.parse(words)
    if given.latex and given.format not in (None, "latex"):
        raise UsageError(f"--latex and --format {given.format} differ: pass one of the two")
    paths = find_reports(given.runs)
    if given.out:
        check_writable(given.out, *paths)
    reports = [read_report(path) for path in paths]
    _tell_missing(given.runs)
    groups = compare_runs(reports, published=given.published)
    groups = average_folds(groups) if given.folds else groups
    mark_unfinished(groups, _unfinished(reports))
    text = formats[given.format or ("latex" if given.latex else "markdown")](
        group_seeds(groups) if given.group else groups
    )
    if given.out:
        write_text(make_folder(given.out), text)
        print(f"{len(reports)} evaluations, written to {given.out}")
    else:
        print(text, end="")


def _unfinished(reports: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return how far the runs are that evaluations are of, those that are complete left out."""
    from ..sweep import state_of

    runs = {
        run
        for report in reports
        for run in (report["config"]["checkpoint"], *report["config"].get("fuse", []))
    }
    found = {run: state_of(run) for run in sorted(runs) if _is_run(Path(run))}
    return {run: str(state) for run, state in found.items() if not state.complete}


def _tell_missing(given: Iterable[str]) -> None:
    """Name the runs in the given folders that no evaluation is of."""
    from ..evaluation.report.comparison import PATTERN
    from ..progress import say
    from ..sweep import state_of

    for folder in map(Path, given):
        if not folder.is_dir() or any(folder.glob(PATTERN)):
            continue
        for run in sorted(folder.iterdir()):
            if _is_run(run) and not any(run.glob(PATTERN)):
                state = state_of(run)
                why = "is not evaluated" if state.complete else f"is unfinished ({state})"
                say(f"note: {run} {why} and not in the table")


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and (folder / "metrics.jsonl").is_file()
