"""A run as its folder tells of it: settings, records, where it is, and what it was made on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..documents import MAX_BYTES, load_json_text, parse_json_text
from ..errors import naming
from ..features.run_settings import RUN_CONFIG, run_config
from ..finetuning.distill import PLAN_FILE
from ..finetuning.distill import REPORT_FILE as DISTILL_FILE
from ..finetuning.start import REPORT_FILE as CLASSIFIER_FILE
from ..sweep import state_of
from ..visualization.curves import METRICS_FILE, read_metrics
from .values import flat, listing, mapping, maybe, number, plain

PRETRAIN, FINETUNE, DISTILL = "pretrain", "finetune", "distill"
_MARKS = {DISTILL_FILE: DISTILL, PLAN_FILE: DISTILL, CLASSIFIER_FILE: FINETUNE, METRICS_FILE: ""}
# Where a run lies and how it is told of decides nothing.
_APART = ("out", "resume", "overwrite", "progress", "tensorboard", "profile", "log_every", "checkpoint_every")
_STUDENTS = {"distilled": "student, distilled", "labels": "student, labels only"}


@dataclass(frozen=True)
class Curve:
    """Points of a run over its epochs.

    Attributes:
        name: of what varies, ``loss``, ``loss/SET``, ``probe/SET`` or a key of a record.
        x: epochs.
        y: values, as many; NaN where a value is not finite.
    """

    name: str
    x: list[float]
    y: list[float]


@dataclass
class Run:
    """A run.

    Attributes:
        folder: where it lies.
        kind: ``pretrain``, ``finetune`` or ``distill``.
        settings: what decides it, as text.
        config: ``config`` of a classifier's or distillation's report, else what ``config.yaml`` holds.
        curves: of the losses, the rate and the probes, in the order of the file.
        target: what the loss measures: curves of one target stand on one axis.
        state: how far it is, in words.
        facts: sizes and times by name, as text.
        environment: versions, device, date.
        notes: warnings of the run and of its reading.
        results: rows of accuracies: what, percent of each seed, parameters.
        students: curves of the loss of a distillation's students, by what they are called.
    """

    folder: Path
    kind: str
    settings: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    target: str = ""
    state: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    results: list[tuple[str, list[float], str]] = field(default_factory=list)
    students: dict[str, Curve] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called: its folder as it was given."""
        return str(self.folder)


def is_run(folder: Path) -> bool:
    """Tell whether a folder is that of a run."""
    return folder.is_dir() and any((folder / name).is_file() for name in _MARKS)


def read_run(folder: Path) -> Run:
    """Return what a run's folder says.

    Raises:
        ValueError: a file in it is damaged; the message names it.
        OSError: it cannot be read.
    """
    kind = next(kind for name, kind in _MARKS.items() if (folder / name).is_file())
    if not kind:
        kind = PRETRAIN if (folder / RUN_CONFIG).is_file() else FINETUNE
    run = Run(folder, kind)
    if kind == DISTILL:
        _read_distillation(run)
        return run
    records = _records(run, folder)
    header = (records.get("header") or [{}])[-1]
    if kind == PRETRAIN:
        run.config = run_config(folder) or {}
        run.settings = flat({name: one for name, one in run.config.items() if name not in _APART})
        architecture = run.config.get("architecture")
        known = architecture if isinstance(architecture, dict) else {}
        run.target = ", ".join(
            plain(one)
            for one in (run.config.get("model"), known.get("target"), known.get("normalize"))
            if one
        )
        run.state = _state(folder)
    else:
        _read_classifier(run, header)
    run.facts |= _facts(header, records)
    run.environment = environment_of(header)
    return run


def environment_of(values: dict[str, Any]) -> dict[str, str]:
    """Return versions, device and date of a record that has them."""
    names = (
        "fastamr",
        "python",
        "torch",
        "cuda",
        "triton",
        "device_name",
        "threads",
        "precision",
        "processes",
    )
    found = {name: plain(values[name]) for name in names if values.get(name) is not None}
    if "platform" in values:
        found["system"] = plain(values["platform"])
    return found | ({"date": plain(values["started"])} if "started" in values else {})


def _state(folder: Path) -> str:
    state = state_of(folder)
    return "complete" if state.complete else f"unfinished: {state}"


def _records(run: Run, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the metrics of a folder into the run's curves and notes; a classifier of a frozen encoder has none."""
    path = folder / METRICS_FILE
    if run.kind == FINETUNE and not path.is_file():
        return {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            records = read_metrics(folder)
        except ValueError as error:
            if not _has_begun(path):
                raise
            run.notes.append(str(error))
            return {}
    told = [str(one.message) for one in caught]
    for kind in ("warning", "skipped"):
        told += [_told(kind, record) for record in records.get(kind, ())]
    run.notes += told[:20] + ([f"{len(told) - 20} more in {path}"] if len(told) > 20 else [])
    run.curves |= _curves(records.get("train", []), ("loss", "lr", "sequences_per_second"), "loss/")
    run.curves |= _curves(records.get("probe", []), ("knn_1",), "probe/")
    return records


def _has_begun(path: Path) -> bool:
    """Tell whether metrics begin with the header of a run, which has not logged anything yet."""
    with path.open("rb") as file:
        first = file.readline(MAX_BYTES)
    try:
        record = parse_json_text(first, str(path))
    except ValueError:
        return False
    return isinstance(record, dict) and record.get("kind") == "header"


def _told(kind: str, record: dict[str, Any]) -> str:
    update = plain(record.get("update"))
    if kind == "warning":
        return f"update {update}: {plain(record.get('message'))}"
    return f"update {update} was skipped: its loss or gradients were not finite"


def _curves(records: Sequence[dict[str, Any]], names: Sequence[str], beginning: str) -> dict[str, Curve]:
    sets = dict.fromkeys(name for record in records for name in record if name.startswith(beginning))
    found = {}
    for name in (*names, *sets):
        points = [(record["epoch"], maybe(record[name])) for record in records if name in record]
        if points:
            x = [value if (value := maybe(epoch)) is not None else float("nan") for epoch, _ in points]
            found[name] = Curve(name, x, [float("nan") if value is None else value for _, value in points])
    return found


def _facts(header: dict[str, Any], records: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    from ..benchmarking.timing import duration

    probes, found, last = records.get("probe", []), {}, {}
    if records.get("train"):
        last = records["train"][-1]
        found = {"epochs": f"{last['epoch']:.4g}", "last loss": f"{last['loss']:.4g}"}
        found["sequences/s"] = f"{last['sequences_per_second']:,.0f}"
    together = [record["knn_1"] for record in probes if "knn_1" in record]
    if together:
        found |= {"last probe": f"{together[-1]:.1f}", "best probe": f"{max(together):.1f}"}
    if (seconds := maybe(last.get("seconds"))) is not None:
        found["time of updates"] = duration(seconds)
    for name in ("parameters", "sequences", "visible", "tokens"):
        if (value := maybe(header.get(name))) is not None:
            found[name] = f"{value:,.0f}"
    return found


def _read_classifier(run: Run, header: dict[str, Any]) -> None:
    path = run.folder / CLASSIFIER_FILE
    if not path.is_file():
        plan = header.get("plan")
        run.settings = flat(plan) if isinstance(plan, dict) else {}
        run.target, run.state = "classifier", f"unfinished: there is no {CLASSIFIER_FILE} yet"
        return
    with naming(path, "train the classifier again"):
        report = mapping(load_json_text(path), "what it holds")
        run.config = mapping(report["config"], "config")
        recipe = mapping(report.get("recipe") or {}, "recipe")
        run.settings = flat(
            {name: one for name, one in run.config.items() if name not in (*_APART, "recipe")}
            | {"recipe": recipe}
        )
        clips = mapping(report["clips"], "clips")
        size = run.facts["parameters"] = f"{number(report['parameters'], 'parameters'):,.0f}"
        if report["accuracy"] is not None:
            what = f"classifier, {number(clips['test'], 'test'):,.0f} test clips"
            run.results = [(what, [number(report["accuracy"], "accuracy")], size)]
        run.notes += [plain(one) for one in listing(report.get("warnings", []), "warnings")]
    run.target, run.state = "classifier", "complete"


def _read_distillation(run: Run) -> None:
    path = run.folder / DISTILL_FILE
    if path.is_file():
        with naming(path, "distil again"):
            _read_distilled(run, mapping(load_json_text(path), "what it holds"))
    else:
        run.state = f"unfinished: there is no {DISTILL_FILE} yet"
        plan = run.folder / PLAN_FILE
        with naming(plan, "distil again"):
            run.settings = flat(mapping(load_json_text(plan), "what it holds"))
    run.target = "student"
    for kind, title in _STUDENTS.items():
        for folder in sorted(run.folder.glob(f"students/{kind}-*")):
            if not (folder / METRICS_FILE).is_file():
                continue
            inner = Run(folder, FINETUNE)
            records = _records(inner, folder)
            run.notes += inner.notes
            if "loss" in inner.curves:
                run.students[f"{title}, seed {folder.name.rpartition('-')[2]}"] = inner.curves["loss"]
            run.environment = run.environment or environment_of((records.get("header") or [{}])[-1])


def _read_distilled(run: Run, report: dict[str, Any]) -> None:
    run.state = "complete"
    run.config = mapping(report["config"], "config")
    kept = {name: one for name, one in run.config.items() if name not in (*_APART, "recipe", "student")}
    parts = {name: mapping(report[name], name) for name in ("student", "recipe")}
    run.settings = flat(kept | parts)
    results = mapping(report["results"], "results")
    counts = mapping(report["cost"]["parameters"], "parameters")
    sizes = {name: f"{number(counts[name], name):,.0f}" for name in ("teacher", "student")}
    run.facts["parameters"] = sizes["student"]
    for name, title in {"teacher": "teacher", **_STUDENTS}.items():
        values = listing(results[name]["per_seed"], f"per_seed of {name}")
        size = sizes["teacher" if name == "teacher" else "student"]
        run.results.append((title, [number(value, f"accuracy of {name}") for value in values], size))
        if not values:
            raise ValueError(f"per_seed of {name} is empty, expected an accuracy for each seed")
    latency = report.get("latency")
    if latency is not None:
        for size, entry in mapping(latency["batches"], "batches").items():
            times = entry["milliseconds"]
            run.facts[f"{size} clips, teacher and student"] = " and ".join(
                f"{number(times[name], name):.2f} ms" for name in ("teacher", "student")
            )
    run.notes += [plain(one) for one in listing(report.get("warnings", []), "warnings")]
