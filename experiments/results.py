#!/usr/bin/env python
"""Pre-train every method on real motion at one small size, evaluate it, and keep each result as it comes.

    python experiments/results.py --data ../shared/data --out results.jsonl             everything, in the order listed
    python experiments/results.py --data ../shared/data --out results.jsonl --only nw_ucla --methods amr --seeds 0
    python experiments/results.py --data ../shared/data --out results.jsonl --list      what is done and what is not
    python experiments/results.py --out results.jsonl --report                          the tables, as markdown

A run is a data set, a method, a variant of it and a seed. It is one line of OUT, appended when it is finished, with the
whole configuration, versions, seconds and the accuracies. Runs that OUT holds with the same configuration are left
out, so an interrupted table goes on where it stopped. The runs themselves are described in experiments/runs.yaml.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [entry for entry in (str(ROOT), str(ROOT / "experiments")) if entry not in sys.path]

import results_decoders  # noqa: E402, F401 - registers the decoders of the ablations
from results_file import append_result, read_results  # noqa: E402
from results_probes import has_features, is_complete, keep_features, kept_features, probe_splits  # noqa: E402
from results_report import markdown  # noqa: E402
from results_shared import in_metres, machine, read_set, train_encoder  # noqa: E402

from fastamr.data import PackedSkeletons, Split, apply_missing, synthetic_actions  # noqa: E402
from fastamr.errors import check_name  # noqa: E402
from fastamr.evaluation import extract_features, input_features, raw_features  # noqa: E402
from fastamr.models import build_model, load_pretrained  # noqa: E402
from fastamr.training import PretrainConfig  # noqa: E402
from fastamr.training.config import merge_settings, read_yaml  # noqa: E402

RUNS = ROOT / "experiments" / "runs.yaml"
# Rows without training: coordinates, and the encoders before their first update (ASMa has two of them, SLiM its own).
UNTRAINED = ("raw", "input", "random", "random_asma", "random_slim")
SETS = ("nw_ucla", "bandai_to_nw_ucla", "nw_ucla_dedup", "sbu_interaction", "ablations", "target_patches")
GENERATED = ("ablations", "target_patches")
TRIALS = ("nw_ucla_heldout", "bandai_heldout", "sbu_heldout")
FOLDS = tuple(f"fold{fold}" for fold in range(5))
HELD_OUT_SUBJECTS = (8, 9, 10)
GENERATED_CLIPS = 1024


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        set: the data set, a key of ``sets`` in runs.yaml.
        method: a model, or one of :data:`UNTRAINED`.
        variant: name of the change to the method; empty for none.
        seed: of everything random.
        split: that is trained and tested on; None takes all splits of the set.
        settings: of the pre-training; empty without training.
    """

    set: str
    method: str
    variant: str
    seed: int
    split: str | None
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """What the run is called in lists."""
        parts = (self.set, self.split if self.set == "sbu_interaction" else None, self.method, self.variant)
        return " ".join([*(part for part in parts if part), f"seed {self.seed}"])

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the run is tested on."""
        return (self.split,) if self.split else ("official", "dedup")

    @property
    def key(self) -> str:
        """A hash of all that the run's result depends on besides the code."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def command(self, data: str, out: str) -> str:
        """The command that makes this row."""
        command = f"python experiments/results.py --data {data} --out {out} --only {self.set} --methods {self.method}"
        command += f" --variants {shlex.quote(self.variant)}"
        return f"{command} --seeds {self.seed}"


def jobs(only: Sequence[str], seeds: Sequence[int], runs: Mapping[str, Any]) -> Iterator[Job]:
    """The runs of some data sets, all methods of a seed before the next seed.

    Args:
        only: data sets, in the order wanted.
        seeds: the seeds.
        runs: the content of runs.yaml.
    """
    for chosen in only:
        for seed in seeds:
            for method, variant, change in _rows(chosen, runs):
                if seed != seeds[0] and method in ("raw", "input"):
                    continue  # no chance in it
                for split in FOLDS if chosen == "sbu_interaction" else (runs["sets"][chosen].get("split"),):
                    yield Job(
                        chosen, method, variant, seed, split, _settings(runs, chosen, method, change, split)
                    )


def _rows(chosen: str, runs: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Method, variant and change of the rows of a data set."""
    for method in UNTRAINED[:-2] if chosen in GENERATED else UNTRAINED:
        yield method, "", {}
    varied = {
        key.split("/")[1]: value for key, value in runs["variants"].items() if key.startswith(f"{chosen}/")
    }
    # A table of trials holds the methods that are tried, a table of results all of them.
    tried = chosen in (*GENERATED, *TRIALS)
    for method in varied if tried and varied else runs["methods"]:
        for variant, change in varied.get(method, {"": {}}).items():
            yield method, variant, change


def _settings(
    runs: Mapping[str, Any], chosen: str, method: str, change: Mapping[str, Any], split: str | None
) -> dict[str, Any]:
    encoder = {"random": "amr", "random_asma": "asma", "random_slim": "slim"}.get(method, method)
    of_set = dict(runs["sets"][chosen])
    own = of_set.pop("methods", {}).get(encoder, {})
    settings: dict[str, Any] = {"model": encoder}
    for layer in (runs["common"], runs["methods"].get(encoder, {}), of_set, own, change):
        settings = merge_settings(settings, layer)
    if encoder not in runs["methods"]:
        return {"steps": settings["steps"]}
    return settings | {"split": None if settings.get("train_on") == "all" else split}


@functools.cache
def training_data(chosen: str, folder: str) -> PackedSkeletons:
    """The motion that a data set's runs train on, as it was recorded.

    Raises:
        FileNotFoundError: the data set is not in the folder.
    """
    if chosen in GENERATED:
        return synthetic_actions(GENERATED_CLIPS)
    return read_set(folder, "bandai_namco_2") if chosen.startswith("bandai") else test_data(chosen, folder)


@functools.cache
def test_data(chosen: str, folder: str) -> PackedSkeletons:
    """The motion that a data set's runs are evaluated on, as it was recorded."""
    if chosen in GENERATED:
        return training_data(chosen, folder)
    if chosen.startswith("sbu"):
        return _hold_out_pairs(in_metres(read_set(folder, "sbu_interaction")))
    return _hold_out_subjects(read_set(folder, "nw_ucla"))


def _hold_out_subjects(data: PackedSkeletons) -> PackedSkeletons:
    """Part NW-UCLA's official training clips by subject, so that settings can be chosen without the test clips."""
    held = torch.isin(data.columns["subject"], torch.tensor(HELD_OUT_SUBJECTS))
    train = data.split("official").train
    return dataclasses.replace(data, splits={**data.splits, "heldout": Split(train & ~held, train & held)})


def _hold_out_pairs(data: PackedSkeletons) -> PackedSkeletons:
    """Fold 0's training clips of SBU, those that fold 1 tests on held out."""
    train, held = data.split("fold0").train, data.split("fold1").test
    return dataclasses.replace(data, splits={**data.splits, "heldout": Split(train & ~held, train & held)})


def run(job: Job, folder: str, scratch: Path, keep: Path | None = None) -> dict[str, Any]:
    """Pre-train (unless the row needs none) and evaluate.

    Args:
        job: the run.
        folder: of the data sets.
        scratch: an empty folder for the run.
        keep: folder to write the features to; None keeps none.

    Returns:
        ``results`` (accuracies by split and probe), ``seconds`` of training and of evaluation, the last ``loss`` and
        ``terms``, ``warnings``.
    """
    given = test_data(job.set, folder)
    data = apply_missing(given, [step for step in job.settings["steps"] if not step.startswith("convert")])
    record: dict[str, Any] = {"warnings": []}
    if job.method in UNTRAINED:
        features = _untrained(job, given, data)
    else:
        trained = _pretrain(job, folder, scratch)
        record |= trained
        features = None
    started = time.perf_counter()
    if features is None:
        features = extract_features(load_pretrained(scratch), data)
    if keep is not None:
        keep_features(keep, job.key, features)
    record["results"] = probe_splits(features, data, job.splits, job.seed, scaled=job.method == "raw")
    return record | {"seconds_evaluation": round(time.perf_counter() - started, 1)}


def _untrained(job: Job, given: PackedSkeletons, data: PackedSkeletons) -> torch.Tensor:
    if job.method == "raw":
        return raw_features(given)
    if job.method == "input":
        return input_features(data)
    torch.manual_seed(job.seed)
    architecture = {"layout": data.layout.name, **job.settings["architecture"]}
    return extract_features(build_model(job.settings["model"], architecture), data)


def _pretrain(job: Job, folder: str, scratch: Path) -> dict[str, Any]:
    config = PretrainConfig.from_dict({**job.settings, "seed": job.seed, "out": str(scratch)})
    return train_encoder(config, training_data(job.set, folder))


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="folder of the data sets' folders")
    parser.add_argument("--out", required=True, type=Path, help="the JSON lines file that the table grows in")
    parser.add_argument("--only", nargs="+", default=list(SETS), help=f"of {' '.join(SETS + TRIALS)}")
    parser.add_argument(
        "--methods", nargs="+", help="methods, raw, input, random, random_asma or random_slim; default: all"
    )
    parser.add_argument("--variants", nargs="+", help="names of variants; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--features",
        type=Path,
        help="folder to keep each run's features in; lines of OUT without all of today's probes are probed again from\n"
        "the features that it holds, without training",
    )
    parser.add_argument(
        "--again", action="store_true", help="repeat runs that lack probes and have no features"
    )
    parser.add_argument("--runs", type=Path, default=RUNS, help="another table of runs")
    parser.add_argument("--list", action="store_true", help="list the runs and what is done, and stop")
    parser.add_argument("--report", action="store_true", help="print the tables of OUT and stop")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing; 0 done, 130 interrupted."""
    given = parse_arguments(argv)
    if given.report:
        print(markdown(read_results(given.out)))
        return 0
    for chosen in given.only:
        check_name("data set", chosen, (*SETS, *TRIALS))
    done = {record["key"]: record for record in read_results(given.out)}
    todo = [
        job
        for job in jobs(given.only, given.seeds, read_yaml(given.runs))
        if (given.methods is None or job.method in given.methods)
        and (given.variants is None or job.variant in given.variants)
    ]
    if given.list:
        for job in todo:
            print("    " if _is_pending(job, done, given) else "done", job.name)
        return 0
    try:
        for place, job in enumerate(todo):
            if _is_pending(job, done, given):
                print(f"{place + 1}/{len(todo)} {job.name}", end=" ", flush=True)
                print(_execute(job, done.get(job.key), given), flush=True)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    return 0


def _is_pending(job: Job, done: Mapping[str, Mapping[str, Any]], given: argparse.Namespace) -> bool:
    """Whether a run is to be made, or its probes again."""
    if job.key not in done:
        return True
    if is_complete(done[job.key]):
        return False
    cheap = job.method in UNTRAINED or has_features(given.features, job.key)
    return cheap or given.again


def _execute(job: Job, earlier: Mapping[str, Any] | None, given: argparse.Namespace) -> str:
    """Run or only probe, append, and return what to print.

    Args:
        job: the run.
        earlier: its line in OUT, which lacks probes; None if there is none.
        given: the command line.
    """
    if earlier is not None and has_features(given.features, job.key):
        data = test_data(job.set, given.data)
        features = kept_features(given.features, job.key, data.num_clips)
        results = probe_splits(features, data, job.splits, job.seed, scaled=job.method == "raw")
        record = {**earlier, "results": results, "probed_again": machine()}
    else:
        with tempfile.TemporaryDirectory(prefix="results-") as scratch:
            found = run(job, given.data, Path(scratch), given.features)
        command = job.command(given.data, str(given.out))
        record = {
            "key": job.key,
            **dataclasses.asdict(job),
            "command": command,
            "machine": machine(),
            **found,
        }
    append_result(given.out, record)
    return (
        "  ".join(
            f"{split}: "
            + " ".join(f"{probe} {scores[probe]['accuracy']:.1f}" for probe in scores if scores[probe])
            for split, scores in record["results"].items()
        )
        + f"  ({record.get('seconds', 0):.0f} s)"
    )


if __name__ == "__main__":
    sys.exit(main())
