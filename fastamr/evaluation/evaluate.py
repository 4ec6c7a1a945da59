"""``fastamr evaluate``: probe a checkpoint, its random twin and raw coordinates, and write JSON."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from .. import __version__
from ..data import PackedSkeletons, apply_missing, concatenate, load
from ..devices import pick_device
from ..errors import check_name
from ..files import write_text
from ..models import load_pretrained
from .baselines import RAW_FRAMES
from .features import BODIES, CENTRAL_SHARE, check_fit
from .protocols import PROTOCOLS, compare, labelled_split
from .table import format_table

RUN_CONFIG = "config.yaml"
CACHE_FOLDER = "features"
# How the models are called in the table; others go by their own name.
_LABELS = {"amr": "AMR", "skeleton_mae": "SkeletonMAE", "mamp": "MAMP", "gfp": "GFP"}


@dataclass
class EvaluateConfig:
    """What ``fastamr evaluate`` does.

    Attributes:
        checkpoint: folder of a run, or of ``save_pretrained``.
        data: packed files of one layout, which are evaluated together, or ``synthetic``.
        protocol: ``knn`` (cosine 1-NN and weighted 20-NN), ``linear`` (the AMR paper's linear probe, and
            logistic regression) or ``all``.
        split: name of the split.
        out: the JSON file; by default ``evaluation-SPLIT.json`` in the checkpoint's folder.
        batch_size: body sequences encoded at a time.
        device: ``auto`` (a GPU where there is one) or a torch device.
        bodies: ``existing`` averages the bodies that a clip has, ``field`` the empty ones of two too, as the
            released code does.
        standardize: scale the features for the linear probe by the training clips' statistics. Choice: off.
        seeds: of the linear probe and of the random encoder's weights; the table shows mean and deviation.
        cache: keep features in the checkpoint's folder, keyed by weights, data and settings.
    """

    checkpoint: str
    data: list[str]
    protocol: Literal["all", "knn", "linear"] = "all"
    split: str = "official"
    out: str | None = None
    batch_size: int = 256
    device: str = "auto"
    bodies: Literal["existing", "field"] = "existing"
    standardize: bool = False
    seeds: list[int] = field(default_factory=lambda: [0])
    cache: bool = True

    def __post_init__(self) -> None:
        self.checkpoint = str(self.checkpoint)
        sources: Any = self.data
        single = isinstance(sources, (str, Path))
        self.data = [str(item) for item in ([sources] if single else sources)]
        self.out = None if self.out is None else str(self.out)
        self.seeds = list(self.seeds)
        check_name("protocol", self.protocol, PROTOCOLS)
        check_name("bodies", self.bodies, BODIES)
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be at least 1 body sequence")
        if not self.seeds or any(seed < 0 for seed in self.seeds):
            raise ValueError(f"seeds={self.seeds} must hold at least one integer, none below 0")


def evaluate(
    config: EvaluateConfig, *, data: PackedSkeletons | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Probe a checkpoint and its two baselines, print the table, write the JSON.

    Data that lacks pre-processing steps of the run's configuration goes through them first, so that training
    and evaluation see the same input. The raw baseline starts from the data as it was given.

    Args:
        config: the configuration.
        data: packed data in memory instead of the files that ``config.data`` names.
        quiet: do not print.

    Returns:
        What the JSON holds: configuration, versions, data, split, and ``results`` with the scores of ``raw``,
        ``input``, ``random`` and ``encoder``.

    Raises:
        FileNotFoundError: no model in the folder, or no such data file.
        ValueError: an unknown split, no labels, an empty half, data that the model does not fit, a wrong
            device.
        OSError: the JSON cannot be written.
    """
    model = load_pretrained(config.checkpoint)
    steps = run_steps(config.checkpoint)
    given = [data] if data is not None else _load(config.data)
    for one in given:
        check_fit(model, one)
    raw = _join(given)
    prepared = _join([apply_missing(one, steps) for one in given])
    halves = labelled_split(prepared, config.split)
    device = pick_device(config.device)
    results = compare(
        model.to(device),
        prepared,
        config.split,
        protocol=config.protocol,
        seeds=config.seeds,
        standardize=config.standardize,
        raw_data=raw,
        cache=Path(config.checkpoint) / CACHE_FOLDER if config.cache else None,
        batch_size=config.batch_size,
        bodies=config.bodies,
    )
    report = {
        "config": dataclasses.asdict(config),
        "model": {"name": model.name, **model.config.to_dict()},
        "versions": _versions(),
        "device": str(device),
        "data": _describe(prepared),
        "split": _describe_split(config.split, prepared, halves),
        "sampling": {"crop": CENTRAL_SHARE, "frames": model.frames, "raw_frames": RAW_FRAMES},
        "results": results,
    }
    out = Path(config.out or Path(config.checkpoint) / f"evaluation-{config.split}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps(report, indent=2) + "\n")
    if not quiet:
        print(f"{format_report(report)}\n\nwritten to {out}")
    return report


def format_report(report: dict[str, Any]) -> str:
    """Return what :func:`evaluate` prints: the split's sizes and the table of accuracies in percent."""
    split, results, name = report["split"], report["results"], report["model"]["name"]
    rows = {
        "raw coordinates": results["raw"],
        "encoder's input": results["input"],
        "random": results["random"],
        _LABELS.get(name, name): results["encoder"],
    }
    lines = [
        f"split {split['name']!r}: {split['train']} training and {split['test']} test clips, "
        f"{split['classes']} classes (largest test class {split['largest_test_class']:.1f} %)",
        "",
        format_table(rows),
    ]
    if split["unlabelled"]:
        lines.append(f"{split['unlabelled']} clips of the split without a label were left out")
    if any("logistic" in scores and scores["logistic"] is None for scores in rows.values()):
        lines.append("logistic regression needs scikit-learn: pip install 'fastamr[eval]'")
    return "\n".join(lines)


def run_steps(checkpoint: str | Path) -> list[Any]:
    """Return the pre-processing steps that a run's ``config.yaml`` lists; none where there is no such file.

    Raises:
        ValueError: the file is damaged.
    """
    path = Path(checkpoint) / RUN_CONFIG
    if not path.is_file():
        return []
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): restore it, or evaluate a copy of the model without it"
        ) from None
    steps = values.get("steps") if isinstance(values, dict) else None
    return list(steps or [])


def _load(sources: Sequence[str]) -> list[PackedSkeletons]:
    if not sources:
        raise ValueError("data is missing: name packed files, or pass --data synthetic")
    return [load(source) for source in sources]


def _join(sets: Sequence[PackedSkeletons]) -> PackedSkeletons:
    return sets[0] if len(sets) == 1 else concatenate(sets)


def _versions() -> dict[str, str | None]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {
        "fastamr": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
    try:
        found["scikit-learn"] = version("scikit-learn")
    except PackageNotFoundError:
        found["scikit-learn"] = None
    return found


def _describe(data: PackedSkeletons) -> dict[str, Any]:
    return {
        "fingerprint": data.fingerprint(),
        "clips": data.num_clips,
        "bodies": data.num_bodies,
        "frames": data.num_frames,
        "layout": data.layout.name,
        "steps": list(data.steps),
    }


def _describe_split(
    name: str, data: PackedSkeletons, halves: tuple[torch.Tensor, torch.Tensor]
) -> dict[str, Any]:
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
