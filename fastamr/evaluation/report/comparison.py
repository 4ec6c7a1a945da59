"""Tables from the JSON files of evaluations, beside published results."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...documents import load_json_text
from ...errors import check_name
from ...tables import deviation, markdown, mean_text
from .published import DATA_SETS, PUBLISHED, data_set_of
from .report import MODEL_NAMES, row_labels
from .row_settings import differences, settings_of
from .table import TITLES, title

PATTERN = "evaluation*.json"
FOLD = re.compile(r"fold\d+")
CSV_COLUMNS = (
    *("data", "split", "protocol", "method", "settings", "run", "numbers", "source"),
    *("probe", "mean", "deviation", "seeds"),
)
MEASURED, AS_PUBLISHED = "measured", "published"
PROTOCOL_NAMES = {"finetune": "fine-tuned encoder", "semi": "few labels"}


class Cell(NamedTuple):
    """A result in percent.

    Attributes:
        values: one a seed; a published result is a single one.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return sum(self.values) / len(self.values)

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the seeds; None for a single value."""
        return deviation(self.values)

    def __str__(self) -> str:
        return mean_text(self.values)


@dataclass
class Row:
    """A line of a table.

    Args:
        method: the encoder, or the baseline.
        run: folder of the run; "" for what does not depend on one.
        source: where the values come from: ``"measured"``, or the paper.
        cells: by column; None = could not run.
        settings: of the evaluation, as text.
        note: the settings in which it differs from other rows of the same method and run; "" where it is alone.
        pretraining: the configuration of each run behind it, where the file says it.
    """

    method: str
    run: str
    source: str
    cells: dict[str, Cell | None] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict, compare=False)
    note: str = ""
    pretraining: list[dict[str, Any]] = field(default_factory=list, compare=False)

    @property
    def label(self) -> str:
        """What the row is called."""
        return f"{self.method} ({self.note})" if self.note else self.method


@dataclass
class Group:
    """The results of one data set, split and protocol.

    Args:
        data: name of the data set, from the files'.
        split: name of the split.
        protocol: ``"frozen encoder"``, or as ``fastamr evaluate`` calls it.
        rows: measured ones.
        published: those of papers.
    """

    data: str
    split: str
    protocol: str
    rows: list[Row] = field(default_factory=list)
    published: list[Row] = field(default_factory=list)

    @property
    def heading(self) -> str:
        """What the table is called."""
        return f"{self.data}, split {self.split}, {PROTOCOL_NAMES.get(self.protocol, self.protocol)}"

    @property
    def columns(self) -> list[str]:
        """The probes, in the order of :data:`TITLES`."""
        present = dict.fromkeys(name for row in (*self.rows, *self.published) for name in row.cells)
        known = [name for name in TITLES if name in present]
        return [*known, *(name for name in present if name not in TITLES)]


def read_report(path: Path) -> dict[str, Any]:
    """Return what an evaluation wrote.

    Raises:
        ValueError: the file is not of an evaluation.
    """
    try:
        report = load_json_text(path)
    except ValueError as error:
        raise ValueError(f"{error}: evaluate the run again") from None
    parts = ("config", "model", "split", "results")
    missing = [part for part in parts if not isinstance(report, dict) or part not in report]
    if missing:
        raise ValueError(
            f"{path} was not written by fastamr evaluate (it lacks {', '.join(missing)}): name files that it wrote"
        )
    return report


def find_reports(runs: Iterable[str | Path]) -> list[Path]:
    """Return the JSON files that are named, and those in the folders that are named, each once.

    A folder without such a file stands for those of its folders that have one, as ``runs`` for all runs in it.

    Raises:
        FileNotFoundError: there is no such file or folder, or no evaluation in it.
    """
    found: dict[Path, None] = {}
    for run in map(Path, runs):
        if run.is_dir():
            inside = sorted(run.glob(PATTERN)) or sorted(run.glob(f"*/{PATTERN}"))
            if not inside:
                raise FileNotFoundError(
                    f"{run} holds no {PATTERN}: run fastamr evaluate --checkpoint {run} --data FILE first"
                )
            found |= dict.fromkeys(inside)
        elif run.is_file():
            found[run] = None
        else:
            raise FileNotFoundError(f"no file or folder {run}: name a run, or a file of fastamr evaluate")
    return list(found)


def compare_runs(reports: Iterable[dict[str, Any]], *, published: str = "auto") -> list[Group]:
    """Sort the rows of evaluations by data set, split and protocol, beside published results.

    The protocols ``knn``, ``linear`` and ``all`` are one, ``"frozen encoder"``. Rows that say the same, such as the
    raw coordinates beside several encoders, or less than another one does (``knn`` beside ``all``), stand once.
    Rows of one encoder that say different things name the settings in which they differ.

    Args:
        reports: what :func:`read_report` returns.
        published: ``"auto"`` adds published results where the data's file is called after their data set, ``"none"``
            none, and a name of :data:`fastamr.evaluation.report.published.DATA_SETS` those of that data set.

    Raises:
        ValueError: an unknown data set.
    """
    check_name("published", published, ("auto", "none", *DATA_SETS))
    groups: dict[tuple[str, str, str], Group] = {}
    for report in reports:
        config = report["config"]
        data = "+".join(Path(name).stem for name in config["data"])
        protocol = "frozen encoder" if config["protocol"] in ("all", "knn", "linear") else config["protocol"]
        key = (data, report["split"]["name"], protocol)
        group = groups.setdefault(key, Group(*key))
        for row in _rows(report):
            if not any(_says_all(other, row) for other in group.rows):
                group.rows = [other for other in group.rows if not _says_all(row, other)] + [row]
    ordered = [groups[key] for key in sorted(groups)]
    for group in ordered:
        group.rows.sort(key=_order)
        _tell_apart(group.rows)
        name = data_set_of(group.data) if published == "auto" else published
        group.published = _published(name, group.split, group.protocol)
    return ordered


def _tell_apart(rows: Sequence[Row]) -> None:
    """Note the settings in which rows of one name differ; those of folders that changed in between have none."""
    named: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        named.setdefault((row.method, row.run), []).append(row)
    for same in named.values():
        for row, note in zip(same, differences([row.settings for row in same]), strict=True):
            row.note = note


def _says_all(row: Row, other: Row) -> bool:
    """Return whether a row holds every value of another one of the same encoder."""
    same = (row.method, row.run, row.source) == (other.method, other.run, other.source)
    return same and other.cells.items() <= row.cells.items()


def average_folds(groups: Iterable[Group]) -> list[Group]:
    """Return the groups with those of splits ``fold0``, ``fold1``, ... of one data set and protocol made one.

    A row's value for a seed is its mean over the folds, so that the spread is that of the seeds. Rows that are not
    there for every fold, or more than once for one, are left out, because their mean would be of something else.

    Raises:
        ValueError: the folds of a group have no row in common.
    """
    merged: dict[tuple[str, str], list[Group]] = {}
    others = []
    for group in groups:
        if FOLD.fullmatch(group.split):
            merged.setdefault((group.data, group.protocol), []).append(group)
        else:
            others.append(group)
    for (data, protocol), folds in merged.items():
        if len(folds) == 1:
            others += folds
            continue
        tables = [Counter((row.label, row.run) for row in fold.rows) for fold in folds]
        rows = [row for row in folds[0].rows if all(one[row.label, row.run] == 1 for one in tables)]
        if not rows:
            raise ValueError(
                f"{data}, {protocol}: splits {', '.join(fold.split for fold in folds)} have no row in common; "
                "evaluate each run on every fold"
            )
        splits = f"{len(folds)} folds"
        group = Group(data, splits, protocol, [_mean_row(row, folds) for row in rows])
        others.append(group)
    return sorted(others, key=lambda group: (group.data, group.split, group.protocol))


def _mean_row(row: Row, folds: Sequence[Group]) -> Row:
    same = [one for fold in folds for one in fold.rows if (one.label, one.run) == (row.label, row.run)]
    cells: dict[str, Cell | None] = {}
    for name in row.cells:
        found = [one.cells.get(name) for one in same]
        present = [cell.values for cell in found if cell is not None]
        # As many seeds in every fold, or their means could not be taken seed by seed.
        whole = len(present) == len(folds) and len({len(values) for values in present}) == 1
        cells[name] = (
            Cell(tuple(sum(values) / len(folds) for values in zip(*present, strict=True))) if whole else None
        )
    return dataclasses.replace(row, cells=cells)


def _rows(report: dict[str, Any]) -> list[Row]:
    config = report["config"]
    runs = " + ".join([config["checkpoint"], *config.get("fuse", [])])
    labels, settings = row_labels(report), settings_of(config)
    known = report.get("pretraining") or {}
    every = [known.get(run) or {} for run in (config["checkpoint"], *config.get("fuse", []))]
    # What an encoder is given depends on the run's steps, raw coordinates do not.
    found = [
        Row(
            f"random {labels['encoder']}" if row == "random" else labels[row],
            "" if row == "raw" else runs,
            MEASURED,
            _cells(scores),
            settings,
            pretraining=[] if row == "raw" else every,
        )
        for row, scores in report["results"].items()
        if row in labels
    ]
    for stream in report.get("streams", ()):
        name = f"{MODEL_NAMES.get(stream['model'], stream['model'])}, {stream['stream']}"
        cells = _cells(stream["results"]["encoder"])
        run = stream["checkpoint"]
        found.append(Row(name, run, MEASURED, cells, settings, pretraining=[known.get(run) or {}]))
    return found


def _cells(scores: dict[str, Any]) -> dict[str, Cell | None]:
    return {name: None if score is None else Cell(tuple(score["per_seed"])) for name, score in scores.items()}


def _order(row: Row) -> int:
    """Return where a row stands: baselines first, then encoders as they were given."""
    baselines = ("raw coordinates", "encoder's input", "random")
    return next((place for place, name in enumerate(baselines) if row.method.startswith(name)), 3)


def _published(data: str | None, split: str, protocol: str) -> list[Row]:
    rows: dict[tuple[str, str], Row] = {}
    for one in PUBLISHED:
        if (one.data, one.split, one.protocol) == (data, split, protocol):
            row = rows.setdefault((one.method, one.source), Row(one.method, "", one.source))
            row.cells[one.column] = Cell((one.value,))
    return list(rows.values())


def format_markdown(groups: Sequence[Group]) -> str:
    """Return a markdown table for each group; published rows come last and name their source below."""
    sources = number_sources(groups)
    parts = []
    for group in groups:
        lines = [["method", "run", *map(title, group.columns), "numbers"]]
        for row in group.rows:
            lines.append([row.label, row.run, *_texts(row, group.columns), MEASURED])
        for row in group.published:
            number = f"{AS_PUBLISHED} [{sources[row.source]}]"
            lines.append([row.method, "", *_texts(row, group.columns), number])
        parts.append(f"### {group.heading}\n\n{markdown(lines, left=(0, 1, -1))}")
    notes = ["Percent; mean ± standard deviation over the seeds where there are several."]
    if sources:
        notes.append(
            "Published: as the papers report them, with their own pre-processing; not measured here.\n"
        )
        notes += [f"[{number}] {source}" for source, number in sources.items()]
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


def format_csv(groups: Sequence[Group]) -> str:
    """Return a line for each number, with the columns :data:`CSV_COLUMNS`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for group in groups:
        for row in (*group.rows, *group.published):
            kind = MEASURED if row.source == MEASURED else AS_PUBLISHED
            source = "" if row.source == MEASURED else row.source
            for name, cell in row.cells.items():
                if cell is not None:
                    seeds = len(cell.values) if kind == MEASURED else ""
                    numbers = [cell.mean, "" if cell.deviation is None else cell.deviation, seeds]
                    where = [group.data, group.split, group.protocol]
                    what = [row.method, row.note, row.run, kind, source, name]
                    writer.writerow([*where, *what, *numbers])
    return text.getvalue()


def number_sources(groups: Sequence[Group]) -> dict[str, int]:
    """Number the sources of published rows, from 1."""
    names = dict.fromkeys(row.source for group in groups for row in group.published)
    return {name: place for place, name in enumerate(names, 1)}


def _texts(row: Row, columns: Sequence[str]) -> list[str]:
    return [str(row.cells.get(name) or "-") for name in columns]
