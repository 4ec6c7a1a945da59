#!/usr/bin/env python
"""Does distillation pay? Teacher, student from labels, student distilled, without and with unlabelled clips.

    python experiments/distillation.py --data ../shared/data --out distillation.jsonl --choose    trials, then the table
    python experiments/distillation.py --data ../shared/data --out distillation.jsonl --list      what is done
    python experiments/distillation.py --out distillation.jsonl --report                          the table, as markdown

One encoder of layout `body` is pre-trained on the training halves of all sets together, without labels, and kept in
WORK. For each set, share of the labels and seed a teacher is fine-tuned on these labels alone, and `fastamr distill`
trains three students: from the same labels, beside the teacher, and beside it with the training clips whose labels are
left out and those of the other sets. That is a run: one line of OUT. Runs and trials that OUT holds are left out.

With --choose, temperature and balance are chosen first by a grid, on a tenth of the labels, by the mean accuracy on
held-out subjects of the training half. Each trial is a line of OUT too; test clips take no part in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [entry for entry in (str(ROOT), str(ROOT / "experiments")) if entry not in sys.path]

from results import machine  # noqa: E402
from results_file import append_result, read_results  # noqa: E402

from fastamr.data import PackedSkeletons, Split, apply_missing, concatenate  # noqa: E402
from fastamr.data.load import read  # noqa: E402
from fastamr.data.to_body import as_body  # noqa: E402
from fastamr.export.graph import example_inputs  # noqa: E402
from fastamr.export.onnx_file import OnnxModel, export_onnx  # noqa: E402
from fastamr.features.splits import labelled_split  # noqa: E402
from fastamr.finetuning.distill import distill  # noqa: E402
from fastamr.finetuning.distill_config import DistillConfig  # noqa: E402
from fastamr.finetuning.few_clips import FEW_CLIPS, few_clips_recipe  # noqa: E402
from fastamr.finetuning.finetune import FinetuneConfig, finetune  # noqa: E402
from fastamr.models import ActionClassifier, load_pretrained  # noqa: E402
from fastamr.probes import labelled_subset  # noqa: E402
from fastamr.tables import markdown, mean_text  # noqa: E402
from fastamr.training import PretrainConfig, pretrain  # noqa: E402

SETS = ("msr_action3d", "utkinect", "nw_ucla", "kard", "msrc12")
"""What the encoder is pre-trained on, and whose clips teach without a label."""
STEPS = ["drop_empty_frames", "center", "align_body"]
HELD_OUT = {
    "msr_action3d": (7, 9),
    "utkinect": (7, 9),
    "nw_ucla": (8, 9, 10),
    "kard": (7, 9),
    "msrc12": (23, 25, 27, 29),
}
"""Subjects of the training half that trials are tested on."""
MODEL = {"layout": "body", "frames": 32, "width": 64, "depth": 4, "heads": 4, "decoder_width": 64, "decoder_depth": 2,
         "decoder_heads": 4, "target_patches": 4, "guidance_windows": [4, 8, 16]}  # fmt: skip
STUDENT = {"width": 24, "depth": 2, "heads": 3}
KINDS = {"teacher": "teacher", "labels": "student, labels only", "distilled": "student, distilled",
         "unlabelled": "student, distilled, with unlabelled clips"}  # fmt: skip
GRID = [(temperature, soft) for temperature in (1.0, 2.0, 4.0) for soft in (0.5, 0.9)]
TRIAL_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Job:
    """A run, or a trial.

    Attributes:
        kind: ``run`` or ``trial``.
        set: the data set.
        share: of the training labels.
        seed: of the choice of labels, the teacher and the students.
        temperature: of the soft labels.
        soft: weight of the teacher's answers against the labels.
        updates: of the pre-training.
        student_updates: least updates of a student.
        epochs: of a teacher; None = as many as `fastamr finetune` takes.
    """

    kind: str
    set: str
    share: float
    seed: int
    temperature: float
    soft: float
    updates: int
    student_updates: int
    epochs: int | None

    @property
    def key(self) -> str:
        """A hash of all that the result depends on besides the code."""
        text = json.dumps([dataclasses.asdict(self), MODEL, STUDENT, STEPS, SETS], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """What it is called in lists."""
        text = f"{self.kind} {self.set}, {100 * self.share:g} % of the labels, seed {self.seed}"
        return f"{text}, temperature {self.temperature:g}, soft {self.soft:g}"


class Study:
    """The data, the encoder and the runs.

    Args:
        given: the command line.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self._data: dict[str, PackedSkeletons] = {}

    def data(self, name: str) -> PackedSkeletons:
        """Return a set with its splits ``official`` and ``heldout``."""
        if name not in self._data:
            one = read(Path(self.given.data, name, f"{name}.npz"))
            self._data[name] = with_splits(one, HELD_OUT[name])
        return self._data[name]

    def trials(self) -> list[Job]:
        """Return the grid of temperature and balance, for each set and seed."""
        return [
            self._job("trial", chosen, TRIAL_SHARE, seed, temperature, soft)
            for chosen in self.given.sets
            for temperature, soft in GRID
            for seed in self.given.seeds
        ]

    def runs(self, records: Sequence[dict[str, Any]]) -> Iterator[Job]:
        """Yield the runs, with what the trials of their set chose where there are any."""
        for seed in self.given.seeds:
            for chosen in self.given.sets:
                temperature, soft = choice(records, chosen) or (self.given.temperature, self.given.soft)
                for share in self.given.shares:
                    yield self._job("run", chosen, share, seed, temperature, soft)

    def _job(self, kind: str, chosen: str, share: float, seed: int, temperature: float, soft: float) -> Job:
        given = self.given
        return Job(
            kind, chosen, share, seed, temperature, soft, given.updates, given.student_updates, given.epochs
        )

    def encoder(self) -> Path:
        """Return the folder of the encoder, pre-trained where it is missing."""
        folder = self.given.work / f"encoder-{self.given.updates}"
        if not (folder / "complete.json").is_file():
            sets = [as_body(apply_missing(self.data(name), STEPS)) for name in SETS]
            joined = concatenate(sets, sources=SETS)
            config = PretrainConfig(
                data=["memory"], out=str(folder), architecture=MODEL, updates=self.given.updates, batch_size=64,
                min_frames=16, split="official", device="cpu", progress=False, overwrite=True,
                preprocess=STEPS,
            )  # fmt: skip
            pretrain(config, data=joined, quiet=True)
        return folder

    def run(self, job: Job) -> dict[str, Any]:
        """Return accuracies, clips, parameters, latency and seconds of a run, or the accuracies of a trial."""
        data, split, start = (
            self.data(job.set),
            "official" if job.kind == "run" else "heldout",
            time.perf_counter(),
        )
        if job.kind == "trial":
            data = training_half(data)
        encoder = self.encoder()
        with tempfile.TemporaryDirectory(prefix="distillation-") as scratch:
            teacher = Path(scratch, "teacher")
            clips = _teach(job, load_pretrained(encoder), data, split, teacher)
            others = [name for name in SETS if name != job.set]
            reports = {}
            for kind, more in (("distilled", {}), ("unlabelled", {"unlabelled_data": others})):
                more = dict(more, unlabelled_rest=True) if more and job.share < 1 else more
                config = DistillConfig(
                    teacher=str(teacher), data=[job.set], out=str(Path(scratch, kind)), split=split, seeds=[job.seed],
                    temperature=job.temperature, soft=job.soft, label_share=job.share, label_seed=job.seed,
                    student=STUDENT, recipe=_student_recipe(job, clips), device="cpu", latency=False, **more,
                )  # fmt: skip
                unlabelled = [self.data(name) for name in others]
                reports[kind] = distill(config, data=data, unlabelled=unlabelled, quiet=True)
            found: dict[str, Any] = {"results": _accuracies(reports), "clips": reports["unlabelled"]["clips"]}
            if job.kind == "run":
                found |= costs({"teacher": teacher, "student": Path(scratch, "unlabelled")}, Path(scratch))
        return found | {"seconds": round(time.perf_counter() - start, 1)}


def with_splits(data: PackedSkeletons, held_out: Sequence[int]) -> PackedSkeletons:
    """Return a set with its split by subjects or views as ``official``, and ``heldout`` inside its training half."""
    official = data.splits.get("official") or data.splits["is_train"]
    held = torch.isin(data.columns["subject"], torch.tensor(held_out))
    train = official.train
    return dataclasses.replace(
        data, splits={"official": official, "heldout": Split(train & ~held, train & held)}
    )


def training_half(data: PackedSkeletons) -> PackedSkeletons:
    """Return a set without the labels and the official split of its test clips: what a trial is given."""
    labels = torch.where(data.splits["official"].train, data.labels, -1)
    return dataclasses.replace(data, labels=labels, splits={"heldout": data.splits["heldout"]})


def _teach(job: Job, encoder: Any, data: PackedSkeletons, split: str, folder: Path) -> int:
    """Fine-tune a teacher on the labels that count, save it, and return how many they are."""
    ready = apply_missing(data, STEPS)
    train, test = labelled_split(ready, split)
    chosen = labelled_subset(ready.labels, train, job.share, job.seed) if job.share < 1 else train
    clips, settings = int(chosen.sum()), {"min_frames": 16}
    if job.epochs is not None:
        settings["epochs"] = job.epochs
    if clips < FEW_CLIPS:
        settings, _ = few_clips_recipe(clips, settings)
    result = finetune(encoder, ready, (chosen, test), FinetuneConfig(**settings), seed=job.seed)
    result.classifier.save_pretrained(folder)
    return clips


def _student_recipe(job: Job, clips: int) -> dict[str, Any]:
    """Return the recipe of all students: as many epochs as the least number of updates takes."""
    batch = min(32, clips)
    per_epoch = math.ceil(clips / batch)
    return {
        "epochs": math.ceil(job.student_updates / per_epoch),
        "batch_size": batch,
        "lr": 2e-3,
        "min_frames": 16,
    }


def _accuracies(reports: dict[str, Any]) -> dict[str, float]:
    """Return the accuracy of each row; both distillations have the same teacher and the same student from labels."""
    first, second = (reports[kind]["results"] for kind in ("distilled", "unlabelled"))
    for kind in ("teacher", "labels"):
        if first[kind]["accuracy"] != second[kind]["accuracy"]:
            raise RuntimeError(
                f"{kind} reached {first[kind]['accuracy']} and {second[kind]['accuracy']} in one run"
            )
    rows = {kind: first[kind]["accuracy"] for kind in ("teacher", "labels", "distilled")}
    return rows | {"unlabelled": second["distilled"]["accuracy"]}


def costs(folders: dict[str, Path], scratch: Path, rounds: int = 15) -> dict[str, Any]:
    """Return parameters, and milliseconds of one clip of one body: PyTorch and ONNX Runtime, all taking turns.

    Args:
        folders: classifiers by name.
        scratch: a folder for the exported files.
        rounds: that count; the median is reported, after one that does not count.
    """
    models = {name: ActionClassifier.from_pretrained(folder) for name, folder in folders.items()}
    calls = {}
    for name, model in models.items():
        export_onnx(model, scratch / f"{name}.onnx")
        inputs = example_inputs(model, 1, 1)
        graph = OnnxModel(scratch / f"{name}.onnx")
        named: dict[str, np.ndarray] = {
            key: value.numpy() for key, value in zip(graph.description["inputs"], inputs, strict=True)
        }
        calls[name, "onnx"] = lambda graph=graph, named=named: graph(**named)
        config = model.encoder.config
        clip = torch.randn(1, config.frames, config.joints, config.channels)
        calls[name, "torch"] = lambda model=model, clip=clip: model(clip)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    with torch.inference_mode():
        for turn in range(rounds + 1):
            for key, call in calls.items():
                begin = time.perf_counter()
                call()
                if turn:
                    times[key].append(1e3 * (time.perf_counter() - begin))
    latency: dict[str, dict[str, float]] = {name: {} for name in models}
    for (name, engine), values in times.items():
        latency[name][engine] = round(statistics.median(values), 3)
    return {
        "parameters": {name: model.num_parameters() for name, model in models.items()},
        "latency_ms": latency,
    }


def choice(records: Sequence[dict[str, Any]], chosen: str) -> tuple[float, float] | None:
    """Return temperature and balance of a set's best trials, by the mean accuracy with unlabelled clips, or None."""
    found: dict[tuple[float, float], list[float]] = {}
    for record in records:
        if record["kind"] == "trial" and record["set"] == chosen:
            key = (record["temperature"], record["soft"])
            found.setdefault(key, []).append(record["results"]["unlabelled"])
    return max(found, key=lambda key: statistics.fmean(found[key])) if found else None


def report(records: Sequence[dict[str, Any]]) -> str:
    """Return the table, the cost and every trial as markdown."""
    runs = [record for record in records if record["kind"] == "run"]
    lines = [["set", "labels", "clips", "seeds", "temperature, soft", *KINDS.values()]]
    groups: dict[Any, list[dict[str, Any]]] = {}
    names = ("set", "share", "temperature", "soft", "updates", "student_updates", "epochs")
    for record in runs:
        groups.setdefault(tuple(record[name] for name in names), []).append(record)
    for (chosen, share, temperature, soft, *_), some in sorted(groups.items(), key=str):
        accuracies = [mean_text([one["results"][kind] for one in some], "±") for kind in KINDS]
        clips = f"{some[0]['clips']['train']} + {some[0]['clips'].get('unlabelled', 0)}"
        lines.append(
            [chosen, f"{100 * share:g} %", clips, str(len(some)), f"{temperature:g}, {soft:g}", *accuracies]
        )
    parts = [markdown(lines)]
    if runs:
        costs = [["", "parameters", "PyTorch, 1 clip", "ONNX Runtime, 1 clip"]]
        for name in ("teacher", "student"):
            engines = [
                f"{statistics.median(one['latency_ms'][name][engine] for one in runs):.1f} ms"
                for engine in ("torch", "onnx")
            ]
            counts = sorted({one["parameters"][name] for one in runs})
            costs.append(
                [
                    name,
                    " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1]))),
                    *engines,
                ]
            )
        parts.append(markdown(costs))
    trials: dict[Any, list[dict[str, Any]]] = {}
    for record in records:
        if record["kind"] == "trial":
            trials.setdefault((record["set"], record["temperature"], record["soft"]), []).append(record)
    if trials:
        rows = [["set", "temperature", "soft", "seeds", *KINDS.values()]]
        for (chosen, temperature, soft), some in sorted(trials.items()):
            means = [mean_text([one["results"][kind] for one in some], "±") for kind in KINDS]
            rows.append([chosen, f"{temperature:g}", f"{soft:g}", str(len(some)), *means])
        parts.append("Trials, on held-out subjects of the training half:\n\n" + markdown(rows))
    return "\n\n".join(parts)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="folder of the data sets' folders")
    parser.add_argument("--out", required=True, type=Path, help="the JSON lines file that the table grows in")
    parser.add_argument("--work", type=Path, default=Path("runs/distillation"), help="folder of the encoder")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["msr_action3d", "utkinect"])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.05, 0.1, 1.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=1600, help="of the pre-training")
    parser.add_argument("--student-updates", type=int, default=600, help="least updates of a student")
    parser.add_argument("--epochs", type=int, help="of a teacher; default: as fastamr finetune")
    parser.add_argument("--temperature", type=float, default=2.0, help="without trials")
    parser.add_argument("--soft", type=float, default=0.5, help="without trials")
    parser.add_argument("--choose", action="store_true", help="make the trials that are missing first")
    parser.add_argument("--list", action="store_true", help="list the runs and what is done, and stop")
    parser.add_argument("--report", action="store_true", help="print the tables of OUT and stop")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing; 0 done, 130 interrupted."""
    given = parse_arguments(argv)
    if given.report:
        print(report(read_results(given.out)))
        return 0
    study = Study(given)
    try:
        if given.choose:
            _work(study, study.trials())
        _work(study, list(study.runs(read_results(given.out))))
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    return 0


def _work(study: Study, jobs: Sequence[Job]) -> None:
    """Carry out the jobs that OUT lacks, or only list them."""
    out = study.given.out
    done = {record["key"] for record in read_results(out)}
    for place, job in enumerate(jobs, 1):
        if study.given.list:
            print("done" if job.key in done else "    ", job.name)
        elif job.key not in done:
            print(f"{place}/{len(jobs)} {job.name}", end=" ", flush=True)
            record = {"key": job.key, **dataclasses.asdict(job), "machine": machine(), **study.run(job)}
            append_result(out, record)
            shown = "  ".join(f"{kind} {value:.1f}" for kind, value in record["results"].items())
            print(f"{shown}  ({record['seconds']:.0f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
