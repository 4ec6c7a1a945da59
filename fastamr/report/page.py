"""The whole page: parts of runs and of results, then environments and what was read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..pages import Part, Table, render_page
from ..version import __version__
from ..visualization.figures import new_figure
from .inputs import Inputs, read_inputs
from .pictures import picture_blocks
from .result_parts import result_parts
from .results import KINDS
from .run_parts import run_parts


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        title: heading of the page.
        clips: most clips, drawn at random, that embedding and confusion matrix are computed of; 0 leaves both out.
        seed: of that draw.

    Raises:
        ValueError: a number below 0.
    """

    title: str = "fastamr report"
    clips: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if self.clips < 0:
            raise ValueError(f"clips is {self.clips}, expected 0 or more")


def build_report(paths: Iterable[str | Path], options: ReportOptions | None = None) -> str:
    """Return one page of HTML about runs, evaluations and results of benchmarks; nothing is trained.

    Args:
        paths: folders and files, see :data:`fastamr.report.inputs.TAKEN`.
        options: what is shown.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: there is no such file or folder.
        ValueError: a file is damaged, or of a kind that a report does not show; the message names it.
    """
    options = options or ReportOptions()
    new_figure(1, 1)  # fails before anything is read where matplotlib is missing
    found = read_inputs(paths)
    parts = [
        *run_parts(found.runs, list(found.evaluations.values())),
        Part("What the models have learnt", list(picture_blocks(found.runs, options.clips, options.seed))),
        *result_parts(found.results),
        Part("Environment", list(_environments(found))),
    ]
    about = f"Written by fastamr {__version__} on {time.strftime('%Y-%m-%d')}; the page loads nothing from elsewhere."
    return render_page(options.title, parts, contents=True, about=about)


def _environments(found: Inputs) -> Iterator[Table]:
    made = [(run.name, f"fastamr {run.kind}", run.environment) for run in found.runs]
    made += [(result.file, KINDS[result.kind], result.environment) for result in found.results]
    for path, report in found.evaluations.items():
        versions = report.get("versions")
        known = versions if isinstance(versions, dict) else {}
        device = {"device": str(report["device"])} if "device" in report else {}
        facts = {name: str(value) for name, value in {**known, **device}.items()}
        made.append((str(path), "fastamr evaluate", facts))
    names = list(dict.fromkeys(name for _, _, facts in made for name in facts))
    rows = [["file", "written by", *names]]
    rows += [[file, by, *(facts.get(name, "-") for name in names)] for file, by, facts in made]
    if made:
        yield Table(rows, left=tuple(range(len(names) + 2)))
