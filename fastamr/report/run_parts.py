"""What a report says of runs: overview, settings that differ, curves, data sets of mixtures, accuracies, warnings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..evaluation.report.comparison import compare_runs
from ..evaluation.report.table import title as column_title
from ..pages import Cell, Chart, Part, Table, Text
from ..tables import mean_text
from .charts import draw_curves
from .runs import DISTILL, PRETRAIN, Curve, Run

_MOST_SETS = 28


def run_parts(runs: Sequence[Run], evaluations: Sequence[dict[str, Any]]) -> Iterator[Part]:
    """Yield the parts about runs and evaluations; those that have nothing to say have no block."""
    yield Part("Runs", [_overview(runs)] if runs else [])
    yield Part("Settings", list(_settings(runs)))
    yield Part("Curves", list(_curves(runs)))
    yield Part("Data sets of a mixture", list(_by_set(runs)))
    yield Part("Evaluations", list(_evaluations(evaluations)))
    yield Part("Classifiers", list(_classifiers(runs)))
    notes = [Text(f"{run.name}: {note}", "warning") for run in runs for note in run.notes]
    yield Part("Warnings of the runs", notes)


def _overview(runs: Sequence[Run]) -> Table:
    names = list(dict.fromkeys(name for run in runs for name in run.facts))
    rows: list[list[str]] = [["run", "command", "state", *names]]
    for run in runs:
        facts = [run.facts.get(name, "-") for name in names]
        rows.append([run.name, run.kind, run.state or "-", *facts])
    return Table(rows, left=(0, 1, 2))


def _settings(runs: Sequence[Run]) -> Iterator[Table | Text]:
    """Settings in which runs of one kind differ, then all of them, folded."""
    for kind in dict.fromkeys(run.kind for run in runs):
        same = [run for run in runs if run.kind == kind]
        names = list(dict.fromkeys(name for run in same for name in run.settings))
        rows = [[name, *(run.settings.get(name, "-") for run in same)] for name in names]
        head, left = ["setting", *(run.name for run in same)], tuple(range(len(same) + 1))
        differing = [row for row in rows if len(set(row[1:])) > 1]
        if differing:
            yield Table([head, *differing], left=left, title=f"{kind}: settings that differ")
        elif len(same) > 1:
            yield Text(f"{kind}: the runs differ in no setting")
        if rows:
            yield Table([head, *rows], left=left, title=f"{kind}: all {len(rows)} settings", folded=True)


def _curves(runs: Sequence[Run]) -> Iterator[Chart]:
    """Losses of one target on one axis, never those of several; then probes, rates and throughput."""
    trained = [run for run in runs if "loss" in run.curves]
    for target in dict.fromkeys((run.kind, run.target) for run in trained):
        same = [run for run in trained if (run.kind, run.target) == target]
        what = "loss of the pre-training" if target[0] == PRETRAIN else "loss of the classifier"
        title = f"{what}: {target[1]}" if target[0] == PRETRAIN and target[1] else what
        yield _chart(title, same, "loss", "loss (no unit)")
    for run in runs:
        if run.kind == DISTILL and run.students:
            names = list(run.students)
            yield draw_curves(
                f"loss of the students of {run.name}", list(run.students.values()), names, "loss (no unit)"
            )
    probed = [run for run in runs if "knn_1" in run.curves]
    for setting in dict.fromkeys(_probe_of(run) for run in probed):
        same = [run for run in probed if _probe_of(run) == setting]
        yield _chart(f"probe of the frozen encoder: 1-NN{setting}", same, "knn_1", "accuracy (%)")
    if trained:
        yield _chart("learning rate", trained, "lr", "learning rate")
        yield _chart("throughput", trained, "sequences_per_second", "sequences / s", from_zero=True)


def _probe_of(run: Run) -> str:
    """Return what a probe's accuracy is of: only those of one split of the same data can be compared."""
    data, split = run.settings.get("data", ""), run.settings.get("split", "none")
    return f" on split {split} of {data}" if split != "none" else f" on {data}"


def _chart(title: str, runs: Sequence[Run], curve: str, label: str, *, from_zero: bool = False) -> Chart:
    curves = [run.curves[curve] for run in runs]
    return draw_curves(title, curves, [run.name for run in runs], label, from_zero=from_zero)


def _by_set(runs: Sequence[Run]) -> Iterator[Chart]:
    for run in runs:
        for beginning, title, whole, label in (
            ("loss/", "loss of each set", "loss", "loss (no unit)"),
            ("probe/", "probe of each set", "knn_1", "accuracy (%)"),
        ):
            names = [name for name in run.curves if name.startswith(beginning)]
            if not names:
                continue
            curves: list[Curve] = [run.curves[name] for name in names]
            labels = [name.removeprefix(beginning) for name in names]
            if whole in run.curves:
                curves, labels = [run.curves[whole], *curves], ["all training sets", *labels]
            yield draw_curves(f"{title}: {run.name}", curves, labels, label)


def _evaluations(reports: Sequence[dict[str, Any]]) -> Iterator[Table | Text]:
    groups = compare_runs(reports)
    for group in groups:
        rows: list[list[str | Cell]] = [["method", "run", *map(column_title, group.columns), "numbers"]]
        for row in (*group.rows, *group.published):
            cells = [str(row.cells.get(name) or "-") for name in group.columns]
            rows.append([row.label, row.run, *cells, row.source])
        yield Table(rows, left=(0, 1, -1), title=group.heading)
    if groups:
        yield Text("Percent; mean ± standard deviation over the seeds where there are several.")


def _classifiers(runs: Sequence[Run]) -> Iterator[Table]:
    rows: list[list[str]] = [["run", "what", "accuracy (%)", "seeds", "parameters"]]
    for run in runs:
        rows += [
            [run.name, what, mean_text(values), str(len(values)), size] for what, values, size in run.results
        ]
    if len(rows) > 1:
        yield Table(rows, left=(0, 1))
