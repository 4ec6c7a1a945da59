"""What an evaluation says of its data, and how it prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...features.baselines import RAW_FRAMES
from ...features.sampling import CENTRAL_SHARE
from ..protocols.transfer import describe_transfer
from .table import format_table

if TYPE_CHECKING:
    from ...data import PackedSkeletons
    from ...models import SkeletonModel
    from ..protocols.config import EvaluateConfig
    from ..protocols.detection import Stream

# How the models are called in the table; others go by their own name.
MODEL_NAMES = {
    "amr": "AMR",
    "skeleton_mae": "SkeletonMAE",
    "mamp": "MAMP",
    "gfp": "GFP",
    "asma": "ASMa",
    "slim": "SLiM",
}
ROW_NAMES = {"raw": "raw coordinates", "input": "encoder's input", "random": "random"}


def format_report(report: dict[str, Any]) -> str:
    """Return what :func:`evaluate` prints: the split's sizes and the table of accuracies in percent."""
    split, results = report["split"], report["results"]
    labels = row_labels(report)
    rows = {label: results[row] for row, label in labels.items() if row in results}
    for stream in report.get("streams", ()):
        name = MODEL_NAMES.get(stream["model"], stream["model"])
        rows[f"{name}, {stream['stream']}"] = stream["results"]["encoder"]
    lines = [_sizes(split)]
    lines += [f"warning: {text}" for text in report.get("warnings", ())]
    lines += [describe_transfer(note) for note in report.get("transfer", ())]
    lines += ["", format_table(rows)]
    if split.get("unlabelled"):
        lines.append(f"{split['unlabelled']} clips of the split without a label were left out")
    if any("logistic" in scores and scores["logistic"] is None for scores in rows.values()):
        lines.append("logistic regression needs scikit-learn: pip install 'fastamr[eval]'")
    return "\n".join(lines)


def row_labels(report: dict[str, Any]) -> dict[str, str]:
    """Return what the rows of a report's results are called."""
    name = report["model"]["name"]
    labels = {**ROW_NAMES, "encoder": MODEL_NAMES.get(name, name)}
    if "streams" not in report:
        return labels
    models = dict.fromkeys(stream["model"] for stream in report["streams"])
    labels["encoder"] = "+".join(MODEL_NAMES.get(model, model) for model in models)
    return {row: label if row == "raw" else f"{label}, fused" for row, label in labels.items()}


def _sizes(split: dict[str, Any]) -> str:
    if "train_streams" in split:
        return (
            f"split {split['name']!r}: {split['train_streams']} training and {split['test_streams']} test streams, "
            f"{split['train']} and {split['test']} frames, {split['classes']} classes "
            f"(background {split['background']:.1f} % of the test frames)"
        )
    return (
        f"split {split['name']!r}: {split['train']} training and {split['test']} test clips, "
        f"{split['classes']} classes (largest test class {split['largest_test_class']:.1f} %)"
    )


def split_warnings(
    config: EvaluateConfig, runs: Mapping[str, dict[str, Any] | None], given: Sequence[PackedSkeletons]
) -> list[str]:
    """Return a line for each run that was pre-trained on the training half of another split than is evaluated.

    Its accuracy may be that of clips which it was trained on. Transfer is to other data, so that a split's name means
    nothing there.

    Args:
        config: the evaluation, with its split.
        runs: by folder, what the run's ``config.yaml`` holds.
        given: the data of the evaluation.
    """
    found = []
    evaluated = config.split or ""
    for run, settings in runs.items():
        split = (settings or {}).get("split")
        trained_on_half = split is not None and (settings or {}).get("train_on") == "train"
        if config.protocol == "transfer" or not trained_on_half or split == evaluated:
            continue
        halves = [
            (one.splits[split].train, one.splits[evaluated].test)
            for one in given
            if split in one.splits and evaluated in one.splits
        ]
        seen = sum(int((train & test).sum()) for train, test in halves)
        if halves and not seen:
            continue
        share = f"{seen} of {sum(int(test.sum()) for _, test in halves)}" if halves else "some"
        found.append(
            f"{run} was pre-trained on the training clips of split {split!r}, not of {evaluated!r}: where it was "
            f"pre-trained on this data, {share} test clips were among them"
        )
    return found


def sampling(model: SkeletonModel, crop: float = CENTRAL_SHARE) -> dict[str, Any]:
    """Return how clips were cut and resized."""
    return {"crop": crop, "frames": model.frames, "raw_frames": RAW_FRAMES}


def describe_split(name: str, data: PackedSkeletons, halves: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Return the sizes of a split's labelled halves."""
    train, test = halves
    split, counts = data.split(name), torch.bincount(data.labels[test])
    return {
        "name": name,
        "train": int(train.sum()),
        "test": int(test.sum()),
        "classes": int(data.labels[train | test].unique().numel()),
        "largest_test_class": 100.0 * float(counts.max()) / float(counts.sum()),
        "unlabelled": int(((split.train | split.test) & (data.labels < 0)).sum()),
    }


def describe_streams(name: str, halves: tuple[Sequence[Stream], Sequence[Stream]]) -> dict[str, Any]:
    """Return the sizes of a split's halves of untrimmed streams; frames of unknown label do not count."""
    train, test = (torch.cat([stream.labels for stream in half]) for half in halves)
    known = int((test >= -1).sum())
    every = torch.cat([train, test])
    return {
        "name": name,
        "train_streams": len(halves[0]),
        "test_streams": len(halves[1]),
        "train": int((train >= -1).sum()),
        "test": known,
        "classes": int(every[every >= 0].unique().numel()),
        "background": 100.0 * int((test == -1).sum()) / known,
    }
