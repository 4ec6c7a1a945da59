"""The demonstration: both methods pre-train for the same time on generated motion; a table, and how to read it."""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .benchmarking.machine import environment
from .data import PackedSkeletons, apply_missing, synthetic_actions
from .data.synthetic.random_clips import random_clips
from .evaluation import (
    extract_features,
    knn_accuracy,
    labelled_split,
    linear_probe,
    random_encoder,
    raw_features,
    standardize_features,
)
from .files import write_text
from .models import SkeletonModel, build_model, load_pretrained
from .tables import aligned
from .training import PretrainConfig, pretrain
from .visualization import Curve, draw_comparison
from .visualization.curves import read_metrics

STEPS = ["center", "align_body"]
METHODS = {"SkeletonMAE": "skeleton_mae", "AMR": "amr"}
RAW, RANDOM = "raw coordinates", "random encoder"
# Smaller than the papers' model in width, depth and frames, so that both methods train in minutes on two cores. Motion
# over four frames stands out of the sensor noise sooner than motion over one.
SMALL: dict[str, Any] = {
    "frames": 32,
    "width": 64,
    "depth": 3,
    "heads": 4,
    "decoder_width": 64,
    "decoder_depth": 1,
    "decoder_heads": 4,
}
SMALL_AMR: dict[str, Any] = {"target_patches": 2, "guidance_windows": [4, 8], "stride": 4}
POOLING = "regions"
TRIED = 24
"""Updates that the time of one is taken from; the first half, which is slower, is left out."""
PROBE_UPDATES = 2000
"""Updates of the linear probe, so that it converges on few clips."""


@dataclass
class DemoConfig:
    """What the demonstration does.

    Attributes:
        out: folder for the runs, the table and the picture.
        clips: generated clips, training and test together.
        seconds: of pre-training, the same for both methods.
        epochs: passes over the training clips instead of a time, the same for both methods.
        batch_size: body sequences in an update.
        lr: learning rate after the warm-up.
        step_sequences: sequences of the timed step at the papers' configuration.
        step_rounds: timed steps of each model; 0 for none.
        seed: of data, weights, masks and order.
    """

    out: str = "demo"
    clips: int = 1200
    seconds: float = 50.0
    epochs: float | None = None
    batch_size: int = 32
    lr: float = 2e-3
    step_sequences: int = 8
    step_rounds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.seconds < float("inf"):
            raise ValueError(f"seconds={self.seconds:g}: expected a positive number, for example 50")


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        encoder: what was probed.
        knn: cosine 1-NN accuracy in percent.
        linear: accuracy of a linear layer in percent (SGD on standardised features, until it converges).
        seconds: of pre-training, or None.
        updates: of pre-training, or None.
    """

    encoder: str
    knn: float
    linear: float
    seconds: float | None = None
    updates: int | None = None

    def accuracies(self) -> dict[str, float]:
        """Accuracy by probe."""
        return {"1-NN": self.knn, "linear": self.linear}


def run(config: DemoConfig) -> list[Row]:
    """Run the demonstration and return the table, which is also printed and written as JSON and PNG."""
    started = time.perf_counter()
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    data = synthetic_actions(config.clips, seed=config.seed)
    print(
        f"data: {data.num_clips} generated clips of {len(data.label_names)} actions, {data.num_frames} frames"
    )
    runs = {title: pre_train(name, data, folder / name, config) for title, name in METHODS.items()}
    rows = probe_all(data, runs, config)
    tests = int(labelled_split(data, "official")[1].sum())
    told = reading(rows, tests)
    steps = step_times(config) if config.step_rounds else {}
    seconds = time.perf_counter() - started
    report = {
        "config": dataclasses.asdict(config),
        **environment(torch.device("cpu")),
        "seconds": round(seconds, 1),
        "test_clips": tests,
        "pooling": POOLING,
        "rows": [dataclasses.asdict(row) for row in rows],
        "reading": told,
        "step_ms": {name: round(each * 1e3, 1) for name, each in steps.items()},
    }
    write_text(folder / "demo.json", json.dumps(report, indent=2) + "\n")
    draw_comparison(
        folder / "demo.png",
        {title: read_curve(path) for title, path in runs.items()},
        {row.encoder: row.accuracies() for row in rows},
        title=f"fastamr demo: {data.num_clips} generated clips",
        axis="seconds of pre-training",
    )
    lines = [format_table(rows), "", *told, *describe_steps(steps, config)]
    print(
        "\n" + "\n".join(lines) + f"\n\n{folder / 'demo.png'} shows curves and bars; {seconds:.0f} s in all"
    )
    return rows


def settings_of(name: str, folder: Path, config: DemoConfig) -> PretrainConfig:
    """Return the configuration of one method's run, without its length."""
    return PretrainConfig(
        model=name,
        architecture={**SMALL, **(SMALL_AMR if name == "amr" else {})},
        out=str(folder),
        preprocess=STEPS,
        batch_size=config.batch_size,
        lr=config.lr,
        min_frames=32,
        checkpoint_every=1e6,
        seed=config.seed,
        device="cpu",
        overwrite=True,
        tensorboard=False,
    )


def pre_train(name: str, data: PackedSkeletons, folder: Path, config: DemoConfig) -> Path:
    """Pre-train one method for the configuration's time, or its epochs, and return the run's folder."""
    settings = settings_of(name, folder, config)
    try:
        if config.epochs is not None:
            return pretrain(dataclasses.replace(settings, epochs=config.epochs), data=data)
        each = seconds_an_update(settings, data)
        updates = max(1, round(config.seconds / each))
        print(f"\n{name}: an update takes {each * 1e3:.0f} ms, {config.seconds:g} s are {updates:,} updates")
        return pretrain(dataclasses.replace(settings, updates=updates), data=data)
    except KeyboardInterrupt:
        # A run says how to continue it; the demonstration starts anew.
        raise KeyboardInterrupt("the demonstration has no result; it starts anew when called again") from None


def seconds_an_update(settings: PretrainConfig, data: PackedSkeletons) -> float:
    """Return what an update takes here, by a short run in a folder that is removed."""
    with tempfile.TemporaryDirectory(prefix="fastamr-demo-") as folder:
        short = dataclasses.replace(settings, out=folder, updates=TRIED, log_every=1, progress=False)
        pretrain(short, data=data, quiet=True)
        seconds = [record["seconds"] for record in read_metrics(folder)["train"]]
    half = len(seconds) // 2
    return (seconds[-1] - seconds[half - 1]) / (len(seconds) - half)


def probe_all(data: PackedSkeletons, runs: Mapping[str, Path], config: DemoConfig) -> list[Row]:
    """Probe coordinates, a random encoder and the pre-trained encoders on the data's own split."""
    models = {title: load_pretrained(path) for title, path in runs.items()}
    processed = apply_missing(data, STEPS)
    rows = [probe(RAW, raw_features(data), data, scaled=True)]
    encoders: dict[str, SkeletonModel] = {RANDOM: random_encoder(models["AMR"], config.seed), **models}
    for title, model in encoders.items():
        row = probe(title, extract_features(model, processed, pooling=POOLING), data)
        if title in runs:
            last = read_metrics(runs[title])["train"][-1]
            row = dataclasses.replace(row, seconds=last["seconds"], updates=last["update"])
        rows.append(row)
    return rows


def probe(title: str, features: Tensor, data: PackedSkeletons, *, scaled: bool = False) -> Row:
    """1-NN and a linear layer on one kind of features ``(N, F)``; ``scaled`` standardises them for 1-NN too."""
    train, test = (half.to(features.device) for half in labelled_split(data, "official"))
    labels = data.labels.to(features.device)
    pair = features[train], features[test]
    first, second = standardize_features(*pair) if scaled else pair
    sets = first, labels[train], second, labels[test]
    linear = linear_probe(*sets, standardize=True, min_updates=PROBE_UPDATES)
    return Row(title, knn_accuracy(*sets), linear.accuracy)


def reading(rows: Sequence[Row], tests: int) -> list[str]:
    """Return three sentences that say how to read the table; what they say follows from its figures.

    Args:
        rows: the table, of raw coordinates, a random encoder, SkeletonMAE and AMR.
        tests: how many clips were tested. Differences below two standard errors of that many are said to be level.
    """
    found = {row.encoder: row for row in rows}
    raw, fresh, mae, amr = (found[name] for name in (RAW, RANDOM, "SkeletonMAE", "AMR"))
    paid = _verdict(amr, fresh, tests, "pre-training pays", "it does harm")
    ahead = _verdict(amr, mae, tests, "AMR is ahead", "SkeletonMAE is ahead")
    worth = _verdict(amr, raw, tests, "the encoder is worth having", "coordinates are better")
    return [
        f"1. {_length(amr)} of pre-training give AMR {_gaps(amr, fresh, tests)} against the same encoder with random "
        f"weights: {paid}.",
        f"2. AMR made {amr.updates:,} updates in {_length(amr)}, SkeletonMAE {mae.updates:,} in {_length(mae)}, and "
        f"AMR has {_gaps(amr, mae, tests)} against SkeletonMAE: {ahead}.",
        f"3. Against raw coordinates, which need no training, AMR has {_gaps(amr, raw, tests)}: {worth}.",
    ]


def _length(row: Row) -> str:
    return f"{row.seconds:.0f} s"


def _signs(row: Row, other: Row, tests: int) -> dict[str, int]:
    """Return for each probe 1 where a row is above another one, -1 below, 0 within two standard errors."""
    signs = {}
    for name, accuracy in row.accuracies().items():
        second = other.accuracies()[name]
        spread = sum(share * (1 - share) for share in (accuracy / 100, second / 100)) / tests
        far = abs(accuracy - second) > 200 * spread**0.5
        signs[name] = (1 if accuracy > second else -1) if far else 0
    return signs


def _gaps(row: Row, other: Row, tests: int) -> str:
    """Return how far a row is from another one: ``+9.1 points in 1-NN and +0.6 (within chance) in linear``."""
    parts: list[str] = []
    for name, sign in _signs(row, other, tests).items():
        unit = "" if parts else " points"
        sure = "" if sign else " (within chance)"
        parts.append(f"{row.accuracies()[name] - other.accuracies()[name]:+.1f}{unit}{sure} in {name}")
    return " and ".join(parts)


def _verdict(row: Row, other: Row, tests: int, better: str, worse: str) -> str:
    """Say in which probes a row is better than another one, and in which worse."""
    signs = _signs(row, other, tests)
    said = []
    for words, sign in ((better, 1), (worse, -1)):
        names = [name for name, found in signs.items() if found == sign]
        if names:
            said.append(f"{words} in {'both probes' if len(names) == len(signs) else names[0]}")
    return ", ".join(said) or f"no difference that {tests} test clips can show"


def step_seconds(model: SkeletonModel, clips: Tensor, rounds: int) -> float:
    """Median seconds of forward, backward and AdamW after one warm-up step."""
    optimizer = torch.optim.AdamW(model.parameter_groups(0.05), lr=1e-3, fused=True)
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        loss = model(clips)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def step_times(config: DemoConfig) -> dict[str, float]:
    """Return the seconds of one step of each method at the papers' configuration, SkeletonMAE's in two forms."""
    clips = random_clips(config.step_sequences, seed=config.seed)
    print(f"timing one step at the papers' configuration, {config.step_sequences} sequences ...")
    models: dict[str, tuple[str, dict[str, Any]]] = {
        "SkeletonMAE": ("skeleton_mae", {"attention": "materialised"}),
        "SkeletonMAE, sdpa": ("skeleton_mae", {"attention": "sdpa"}),
        "AMR": ("amr", {}),
    }
    return {
        title: step_seconds(build_model(name, **options), clips, config.step_rounds)
        for title, (name, options) in models.items()
    }


def describe_steps(steps: Mapping[str, float], config: DemoConfig) -> list[str]:
    """Return lines on the timed steps; none where none was timed."""
    if not steps:
        return []
    amr = steps["AMR"]
    others = " and ".join(
        f"{seconds * 1e3:.0f} ms ({name}, {seconds / amr:.1f}x)"
        for name, seconds in (
            ("materialised", steps["SkeletonMAE"]),
            ("sdpa", steps["SkeletonMAE, sdpa"]),
        )
    )
    return [
        "",
        f"One step at the papers' configuration, {config.step_sequences} sequences: AMR {amr * 1e3:.0f} ms, "
        f"SkeletonMAE {others}",
    ]


def format_table(rows: Sequence[Row]) -> str:
    """The table as text."""
    lines = [["encoder", "1-NN", "linear", "pre-training", "updates"]]
    for row in rows:
        length = "-" if row.seconds is None else f"{row.seconds:.0f} s"
        updates = "-" if row.updates is None else f"{row.updates:,}"
        lines.append([row.encoder, f"{row.knn:.1f}", f"{row.linear:.1f}", length, updates])
    return aligned(lines)


def read_curve(folder: Path) -> Curve:
    """The loss curve of a run from its ``metrics.jsonl``, over the seconds of training."""
    train = read_metrics(folder)["train"]
    return Curve([record["seconds"] for record in train], [record["loss"] for record in train])
