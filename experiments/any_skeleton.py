#!/usr/bin/env python
"""One encoder for every skeleton against one for each: pre-train, probe frozen features, keep each result as it comes.

    python experiments/any_skeleton.py --data ../shared/data --out any_skeleton.jsonl               the main table
    python experiments/any_skeleton.py --out any_skeleton.jsonl --rows raw random --minutes 20      one sitting
    python experiments/any_skeleton.py --out any_skeleton.jsonl --tables ablations trials           the studies
    python experiments/any_skeleton.py --out any_skeleton.jsonl --list       what is done and what is not
    python experiments/any_skeleton.py --out any_skeleton.jsonl --report     the tables, as markdown

A run is a tested set, a row, a variant of it (its budget, or a change of a study) and a seed: one line of OUT, appended
when it is finished, with the whole configuration, versions, seconds and hardware. Runs that OUT holds with the same
configuration are left out. WORK keeps the pre-trained encoders and the features, so that one pre-training serves the
probes of all sets; it can be deleted at any time. The runs are described in experiments/any_skeleton.yaml.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [entry for entry in (str(ROOT), str(ROOT / "experiments")) if entry not in sys.path]

from any_skeleton_parts.encoders import features_of, trained  # noqa: E402
from any_skeleton_parts.plan import Job, jobs  # noqa: E402
from any_skeleton_parts.report import PROBES, markdown  # noqa: E402
from any_skeleton_parts.sets import COORDINATES, Coordinates, prepared, recorded  # noqa: E402
from results_file import append_result, read_results  # noqa: E402
from results_shared import machine  # noqa: E402

from fastamr.data import PackedSkeletons  # noqa: E402
from fastamr.errors import check_name  # noqa: E402
from fastamr.evaluation import labelled_split, standardize_features  # noqa: E402
from fastamr.probes import linear_probe  # noqa: E402
from fastamr.probes.knn import knn_accuracy  # noqa: E402
from fastamr.probes.linear_probe import NTU_UPDATES, logistic_regression  # noqa: E402
from fastamr.training.config import read_yaml  # noqa: E402

RUNS = ROOT / "experiments" / "any_skeleton.yaml"
LEARNED = Coordinates(lambda data: torch.empty(0), scaled=False)


def probe(
    features: torch.Tensor, data: PackedSkeletons, split: str, seed: int, how: Coordinates
) -> dict[str, float]:
    """Return the test accuracies of a split in percent.

    Args:
        features: ``(N, D)`` of the clips.
        data: the clips, with labels.
        split: the split's name.
        seed: of the linear probe.
        how: whether neighbours are compared in standardized features, and C of logistic regression.

    Returns:
        ``linear`` (SGD on standardized features for as many updates as AMR's protocol has on NTU-60), ``logistic`` and
        ``knn_1`` (cosine).
    """
    train, test = labelled_split(data, split)
    x, y, tested, truth = features[train], data.labels[train], features[test], data.labels[test]
    linear = linear_probe(x, y, tested, truth, standardize=True, min_updates=NTU_UPDATES, seed=seed)
    near, far = standardize_features(x, tested) if how.scaled else (x, tested)
    return {
        "linear": linear.accuracy,
        "logistic": logistic_regression(x, y, tested, truth, C=how.C),
        "knn_1": knn_accuracy(near, y, far, truth, k=1),
    }


def run(job: Job, folder: str, work: Path) -> dict[str, Any]:
    """Make what WORK lacks of a run's encoders and features, and probe them.

    Args:
        job: the run.
        folder: of the data sets' folders.
        work: WORK.

    Returns:
        ``results`` (percent by split, pooling and probe), ``encoders`` (the key of each split's), ``pretraining`` (by
        key) and ``seconds_evaluation``.
    """
    records = {one.key: trained(one, folder, work) for one in job.trained}
    started = time.perf_counter()
    data = recorded(job.plan, folder) if job.coordinates else prepared(job.plan, folder)
    raw = COORDINATES[job.coordinates].make(data) if job.coordinates else None
    results: dict[str, Any] = {}
    for split, encoder in job.encoders.items():
        results[split] = {}
        for pooling in job.poolings:
            if encoder is None:
                assert raw is not None
                found, how = raw, COORDINATES[job.coordinates]
            else:
                bodies = job.plan.get("bodies", "existing")
                found, how = features_of(encoder, job.set, data, pooling, bodies, work), LEARNED
            results[split][pooling] = probe(found, data, split, job.seed, how)
    return {
        "results": results,
        "encoders": job.keys,
        "pretraining": {
            one.key: one.described() | records.get(one.key, {}) for one in job.encoders.values() if one
        },
        "seconds_evaluation": round(time.perf_counter() - started, 1),
    }


def is_complete(job: Job, line: Mapping[str, Any]) -> bool:
    """Return whether a line has every split, pooling and probe of a run."""
    return all(
        name in line["results"].get(split, {}).get(pooling, {})
        for split in job.encoders
        for pooling in job.poolings
        for name in PROBES
    )


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="folder of the data sets' folders")
    parser.add_argument("--out", required=True, type=Path, help="the JSON lines file that the table grows in")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/any_skeleton"), help="folder of encoders and features"
    )
    parser.add_argument("--tables", nargs="+", default=["main"], help="main, or studies of the plan")
    for name in ("sets", "rows", "variants"):
        parser.add_argument(f"--{name}", nargs="+", help=f"some {name} of the plan; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, help="begin no run after this time")
    parser.add_argument(
        "--again", action="store_true", help="make lines anew that lack a split, pooling or probe"
    )
    parser.add_argument("--runs", type=Path, default=RUNS, help="another plan")
    parser.add_argument("--list", action="store_true", help="list the runs and what is done, and stop")
    parser.add_argument("--report", action="store_true", help="print the tables of OUT and stop")
    return parser.parse_args(argv)


def chosen_jobs(given: argparse.Namespace) -> list[Job]:
    """Return the runs that a command line names.

    Raises:
        ValueError: it names a table, a set or a row that the plan does not have.
    """
    plan = read_yaml(given.runs)
    known = {
        "table": ["main", *plan["studies"]],
        "set": list(plan["sets"]),
        "row": [*plan["rows"], *plan["studies"]],
    }
    for kind, names in known.items():
        for name in getattr(given, f"{kind}s") or ():
            check_name(kind, name, names)
    return [
        job
        for job in jobs(plan, given.seeds)
        if job.table in given.tables
        and all(
            wanted is None or value in wanted
            for wanted, value in ((given.sets, job.set), (given.rows, job.row), (given.variants, job.variant))
        )
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing; 0 done or out of time, 130 interrupted."""
    given = parse_arguments(argv)
    lines = read_results(given.out)
    if given.report:
        print(markdown(lines))
        return 0
    done = {line["key"]: line for line in lines}
    todo = chosen_jobs(given)

    pending = [
        job for job in todo if job.key not in done or (given.again and not is_complete(job, done[job.key]))
    ]
    if given.list:
        for job in todo:
            print("    " if job in pending else "done", job.name)
        return 0
    started = time.monotonic()
    try:
        for place, job in enumerate(pending):
            if given.minutes is not None and time.monotonic() - started >= 60 * given.minutes:
                print(f"{given.minutes:g} minutes are over, {len(pending) - place} runs are left")
                return 0
            print(f"{place + 1}/{len(pending)} {job.name}", end=" ", flush=True)
            print(_execute(job, given), flush=True)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    return 0


def _execute(job: Job, given: argparse.Namespace) -> str:
    """Make a run, append its line, and return what to print."""
    found = run(job, given.data, given.work)
    line = {
        "key": job.key,
        **{
            name: getattr(job, name)
            for name in ("table", "set", "row", "variant", "seed", "poolings", "plan")
        },
        "command": job.command("../shared/data", given.out.name, "runs/any_skeleton"),
        "machine": machine(),
        **found,
    }
    append_result(given.out, line)
    texts = []
    for split, poolings in found["results"].items():
        for pooling, scores in poolings.items():
            shown = " ".join(f"{name} {value:.1f}" for name, value in scores.items())
            texts.append(" ".join(filter(None, (split, pooling, shown))))
    return "  ".join(texts)


if __name__ == "__main__":
    sys.exit(main())
