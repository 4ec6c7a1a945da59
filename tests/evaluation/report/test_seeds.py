"""Runs that differ in their seed only are one row; those that are not complete are said to be so."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from fastamr.cli import main
from fastamr.evaluation.report.comparison import Cell, Group, compare_runs, format_csv, format_markdown
from fastamr.evaluation.report.seeds import group_seeds, mark_unfinished


def report(seed: int, accuracy: float, run: str = "", **settings: Any) -> dict[str, Any]:
    """What the evaluation of a run with two seeds of its own writes, as far as tables read it."""
    run = run or f"runs/seed-{seed}"
    pretraining = {"model": "amr", "seed": seed, "out": run, "lr": 1e-3, "data": ["ntu60.st"]} | settings
    values = {"raw": 50.0, "random": 40.0, "encoder": accuracy}
    return {
        "config": {"checkpoint": run, "data": ["mine.st"], "protocol": "linear", "split": "xsub"},
        "model": {"name": "amr"},
        "split": {"name": "xsub"},
        "results": {
            name: {"linear": {"accuracy": value, "per_seed": [value - 1, value + 1]}}
            for name, value in values.items()
        },
        "pretraining": {run: pretraining},
    }


def tables(*reports: dict[str, Any]) -> list[Group]:
    return compare_runs(reports, published="none")


def shown(groups: list[Group]) -> list[tuple[str, str, str]]:
    return [(row.label, row.run, str(row.cells["linear"])) for group in groups for row in group.rows]


def test_mean_deviation_and_number_are_those_of_the_runs() -> None:
    groups = group_seeds(tables(report(0, 80.0), report(1, 82.0), report(2, 84.0)))
    runs = "runs/{seed-0, seed-1, seed-2} (n = 3)"
    assert shown(groups) == [
        ("raw coordinates", "", "50.0 ± 1.4"),
        ("random AMR", runs, "40.0 ± 1.4"),  # the same encoder for all of them: its own two seeds
        ("AMR", runs, "82.0 ± 2.0"),  # of 80, 82 and 84
    ]
    assert groups[0].rows[-1].cells["linear"] == Cell((80.0, 82.0, 84.0))
    assert f"| AMR | {runs} | 82.0 ± 2.0 | measured |" in format_markdown(groups)
    row = list(csv.DictReader(io.StringIO(format_csv(groups))))[-1]
    assert (row["mean"], row["deviation"], row["seeds"]) == ("82.0", "2.0", "3")


@pytest.mark.parametrize(
    "other",
    [
        report(1, 82.0, lr=2e-3),
        report(1, 82.0, data=["other.st"]),
        report(0, 82.0, "runs/again"),  # the same seed once more
        report(1, 82.0) | {"pretraining": {}},  # of a version that did not write it
        report(1, 82.0) | {"model": {"name": "mamp"}},
    ],
)
def test_runs_that_differ_in_more_or_in_less_stay_apart(other: dict[str, Any]) -> None:
    given = tables(report(0, 80.0), other)
    assert shown(group_seeds(given)) == shown(given)


def test_two_settings_are_two_rows_and_folders_do_not_count() -> None:
    groups = group_seeds(
        tables(
            report(0, 80.0, "a/0"), report(1, 82.0, "b/1", log_every=7, data=["elsewhere/ntu60.st"]),
            report(0, 70.0, "a/2", lr=2e-3), report(1, 72.0, "b/3", lr=2e-3),
        )
    )  # fmt: skip
    found = [(run, value) for name, run, value in shown(groups) if name == "AMR"]
    assert found == [("a/0, b/1 (n = 2)", "81.0 ± 1.4"), ("a/2, b/3 (n = 2)", "71.0 ± 1.4")]


def test_a_value_that_one_run_lacks_is_no_mean() -> None:
    second = report(1, 82.0)
    second["results"]["encoder"]["linear"] = None
    assert shown(group_seeds(tables(report(0, 80.0), second)))[-1][2] == "None"


def test_a_run_that_is_not_complete_is_in_no_group_and_says_so() -> None:
    groups = tables(report(0, 80.0), report(1, 82.0), report(2, 84.0))
    mark_unfinished(groups, {"runs/seed-2": "update 5 of 9"})
    assert [one for one in shown(group_seeds(groups)) if one[0].startswith("AMR")] == [
        ("AMR", "runs/{seed-0, seed-1} (n = 2)", "81.0 ± 1.4"),
        ("AMR (unfinished: update 5 of 9)", "runs/seed-2", "84.0 ± 1.4"),
    ]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two complete runs, one that is not, all evaluated; and two that are not evaluated."""
    for seed in range(5):
        run = tmp_path / f"seed-{seed}"
        run.mkdir()
        for name in ("config.yaml", "config.json", "model.safetensors"):
            (run / name).write_text("")
        (run / "metrics.jsonl").write_text('{"kind": "header", "updates": 9}\n')
        if seed != 2 and seed != 4:
            (run / "complete.json").write_text('{"updates": 9}')
        if seed < 3:
            text = json.dumps(report(seed, 80.0 + seed, str(run)))
            (run / "evaluation-mine-xsub-linear.json").write_text(text)
    return tmp_path


def test_command(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(runs)]) == 0
    output = capsys.readouterr()
    assert f"| AMR | {runs}/{{seed-0, seed-1}} (n = 2) | 80.5 ± 0.7 | measured |" in output.out
    assert f"| AMR (unfinished: nothing is saved) | {runs}/seed-2 | 82.0 ± 1.4 | measured |" in output.out
    assert output.err == (
        f"note: {runs}/seed-3 is not evaluated and not in the table\n"
        f"note: {runs}/seed-4 is unfinished (nothing is saved) and not in the table\n"
    )
    assert main(["table", str(runs), "--no-group"]) == 0
    assert f"| AMR | {runs}/seed-0 | 80.0 ± 1.4 | measured |" in capsys.readouterr().out
