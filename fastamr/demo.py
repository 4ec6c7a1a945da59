"""The demonstration: pre-train both methods on generated motion, probe them, time a step, print the table."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .data import PackedSkeletons, apply_missing, synthetic_actions
from .data.synthetic.random_clips import random_clips
from .devices import environment
from .evaluation import (
    extract_features,
    input_features,
    labelled_split,
    probe_features,
    random_encoder,
    raw_features,
)
from .files import write_text
from .models import SkeletonModel, build_model, load_pretrained
from .tables import aligned
from .training import PretrainConfig, pretrain
from .visualization import Curve, draw_comparison
from .visualization.curves import read_metrics

STEPS = ["center", "align_body"]
METHODS = {"SkeletonMAE": "skeleton_mae", "AMR": "amr"}
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


@dataclass
class DemoConfig:
    """What the demonstration does.

    Attributes:
        out: folder for the runs, the table and the picture.
        clips: generated clips, training and test together.
        epochs: passes over the training clips, the same for both methods.
        batch_size: body sequences in an update.
        lr: learning rate after the warm-up.
        step_sequences: sequences of the timed step at the papers' configuration.
        step_rounds: timed steps of each model.
        seed: of data, weights, masks and order.
    """

    out: str = "demo"
    clips: int = 1200
    epochs: float = 45
    batch_size: int = 32
    lr: float = 2e-3
    step_sequences: int = 8
    step_rounds: int = 3
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        encoder: what was probed.
        knn: cosine 1-NN accuracy in percent.
        linear: accuracy of the linear probe in percent (AMR's protocol: SGD, 100 epochs).
        logistic: accuracy of logistic regression in percent, or None without scikit-learn.
        step_ms: milliseconds of one pre-training step at the papers' configuration.
        speedup: against the materialised SkeletonMAE.
        note: said behind the row.
    """

    encoder: str
    knn: float
    linear: float
    logistic: float | None = None
    step_ms: float | None = None
    speedup: float | None = None
    note: str = ""

    def accuracies(self) -> dict[str, float]:
        """Accuracy by probe."""
        found = {"1-NN": self.knn, "linear": self.linear}
        return found if self.logistic is None else {**found, "logistic": self.logistic}


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
    rows = with_step_times(rows, config)
    text = format_table(rows)
    seconds = time.perf_counter() - started
    report = {
        "config": dataclasses.asdict(config),
        **environment(torch.device("cpu")),
        "seconds": round(seconds, 1),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    write_text(folder / "demo.json", json.dumps(report, indent=2) + "\n")
    draw_comparison(
        folder / "demo.png",
        {title: read_curve(path) for title, path in runs.items()},
        {row.encoder: row.accuracies() for row in rows},
        title=f"fastamr demo: {data.num_clips} generated clips, {config.epochs:g} epochs each",
    )
    print(f"\n{text}\n\n{folder / 'demo.png'} shows curves and bars; {seconds:.0f} s in all")
    return rows


def pre_train(name: str, data: PackedSkeletons, folder: Path, config: DemoConfig) -> Path:
    """Pre-train one method with the small configuration and return the run's folder."""
    settings = PretrainConfig(
        model=name,
        architecture={**SMALL, **(SMALL_AMR if name == "amr" else {})},
        out=str(folder),
        preprocess=STEPS,
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        min_frames=32,
        checkpoint_every=config.epochs,
        seed=config.seed,
        device="cpu",
        overwrite=True,
        tensorboard=False,
    )
    try:
        return pretrain(settings, data=data)
    except KeyboardInterrupt:
        # A run says how to continue it; the demonstration starts anew.
        raise KeyboardInterrupt("the demonstration has no result; it starts anew when called again") from None


def probe_all(data: PackedSkeletons, runs: dict[str, Path], config: DemoConfig) -> list[Row]:
    """Probe coordinates, a random encoder and the pre-trained encoders on the data's own split."""
    models = {title: load_pretrained(path) for title, path in runs.items()}
    processed = apply_missing(data, STEPS)
    rows = [
        probe("raw coordinates", raw_features(data), data, scaled=True),
        probe("encoder's input", input_features(processed), data),
    ]
    encoders: dict[str, SkeletonModel] = {"random": random_encoder(models["AMR"], config.seed), **models}
    for title, model in encoders.items():
        rows.append(probe(title, extract_features(model, processed), data))
    return rows


def probe(title: str, features: Tensor, data: PackedSkeletons, *, scaled: bool = False) -> Row:
    """1-NN, linear probe and logistic regression of one kind of features, as ``fastamr evaluate`` runs them."""
    halves = labelled_split(data, "official")
    scores = probe_features([features], data.labels, halves, standardize_all=scaled)
    logistic = scores["logistic"]
    return Row(
        title,
        scores["knn_1"]["accuracy"],
        scores["linear"]["accuracy"],
        None if logistic is None else logistic["accuracy"],
    )


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


def with_step_times(rows: list[Row], config: DemoConfig) -> list[Row]:
    """Time one step of each method at the papers' configuration and fill the last columns in."""
    clips = random_clips(config.step_sequences, seed=config.seed)
    print(f"timing one step at the papers' configuration, {config.step_sequences} sequences ...")
    rounds = config.step_rounds
    plain = step_seconds(build_model("skeleton_mae", attention="materialised"), clips, rounds)
    fused = step_seconds(build_model("skeleton_mae", attention="sdpa"), clips, rounds)
    amr = step_seconds(build_model("amr"), clips, rounds)
    note = f"(materialised; sdpa: {fused * 1e3:.0f} ms)"
    times = {"SkeletonMAE": (plain, note), "AMR": (amr, "")}
    return [
        dataclasses.replace(
            row,
            step_ms=times[row.encoder][0] * 1e3,
            speedup=plain / times[row.encoder][0],
            note=times[row.encoder][1],
        )
        if row.encoder in times
        else row
        for row in rows
    ]


def format_table(rows: list[Row]) -> str:
    """The table as text."""
    lines = [["encoder", "1-NN", "linear", "logistic", "pre-training step", "speed-up", ""]]
    for row in rows:
        logistic = "-" if row.logistic is None else f"{row.logistic:.1f}"
        step = "-" if row.step_ms is None else f"{row.step_ms:.0f} ms"
        speed = "-" if row.speedup is None else f"{row.speedup:.1f}x"
        lines.append([row.encoder, f"{row.knn:.1f}", f"{row.linear:.1f}", logistic, step, speed, row.note])
    return aligned(lines, left=(0, -1))


def read_curve(folder: Path) -> Curve:
    """The loss curve of a run from its ``metrics.jsonl``."""
    train = read_metrics(folder)["train"]
    return Curve([record["epoch"] for record in train], [record["loss"] for record in train])
