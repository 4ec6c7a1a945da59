"""``fastamr table RUN...``: evaluations side by side, beside published results, as markdown, LaTeX or CSV."""

from __future__ import annotations

from .options import FLAG, CommandParser, choice


def run(words: list[str]) -> None:
    """Carry out the command."""
    from ..evaluation.report.comparison import FORMATS, average_folds, compare_runs, find_reports, read_report
    from ..evaluation.report.published import DATA_SETS
    from ..files import check_writable, make_folder, write_text

    text = "Put evaluations side by side, by data set, split and protocol, beside published results."
    parser = CommandParser("table", "RUN...", text)
    parser.add_argument(
        "runs", metavar="RUN", nargs="+",
        help="folders of runs that fastamr evaluate has been at, a folder of such folders, or its JSON files",
    )  # fmt: skip
    add = parser.add_argument_group("the table").add_argument
    add("--format", **choice("format", FORMATS), default="markdown", help="of the table")
    add("--out", metavar="FILE", help="write it there instead of printing it")
    add("--published", **choice("published", ("auto", "none", *DATA_SETS)), default="auto",
        help="published results beside the measured ones: auto (where the data's file is called after a data set), "
        f"none, or those of {', '.join(DATA_SETS)}")  # fmt: skip
    add("--folds", action=FLAG, help="average the splits fold0, fold1, ... of a data set (cross-validation)")
    given = parser.parse(words)
    paths = find_reports(given.runs)
    if given.out:
        check_writable(given.out, *paths)
    reports = [read_report(path) for path in paths]
    groups = compare_runs(reports, published=given.published)
    text = FORMATS[given.format](average_folds(groups) if given.folds else groups)
    if given.out:
        write_text(make_folder(given.out), text)
        print(f"{len(reports)} evaluations, written to {given.out}")
    else:
        print(text, end="")
