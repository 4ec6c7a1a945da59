"""``fastamr report RUN... BENCH.json... --out report.html``: runs and benchmarks on one page of HTML."""

from __future__ import annotations

import os
from pathlib import Path

from .options import CommandParser


def run(words: list[str]) -> None:
    """Carry out the command."""
    given = _parser().parse(words)
    from ..files import check_writable, make_folder, write_text
    from ..report import ReportOptions, build_report

    # A page that lies among what is shown may be written anew; nothing else there is replaced.
    read = given.paths if Path(given.out).suffix != ".html" else filter(os.path.isfile, given.paths)
    check_writable(given.out, *read)
    options = ReportOptions(given.title, given.clips, given.seed)
    write_text(make_folder(given.out), build_report(given.paths, options))
    print(f"written to {given.out}")


def _parser() -> CommandParser:
    parser = CommandParser(
        "report",
        "RUN... BENCH.json... --out report.html",
        "Put runs, evaluations and benchmarks on one page of HTML, which loads nothing from elsewhere.",
        epilog="Nothing is trained. Two results of one kind are compared, the first being what later ones are held "
        "against; what is slower beyond the noise of the rounds is marked.",
    )
    parser.add_argument(
        "paths", metavar="PATH", nargs="+",
        help="folders of fastamr pretrain, finetune or distill, a folder of such folders, JSON of fastamr evaluate, "
        "folders or JSON of fastamr bench quick, ladder or profile, JSON of pytest-benchmark",
    )  # fmt: skip
    add = parser.add_argument_group("the page").add_argument
    add("--out", default="report.html", metavar="FILE", help="the page")
    add("--title", default="fastamr report", help="its heading")
    add("--clips", type=int, default=300, metavar="N",
        help="most clips, drawn at random, that embedding and confusion matrix of a saved model are computed of where "
        "its data lies here; 0 leaves both out")  # fmt: skip
    add("--seed", type=int, default=0, help="of that draw")
    return parser
