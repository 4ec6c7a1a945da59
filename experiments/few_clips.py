#!/usr/bin/env python
"""Which recipe suits few labelled clips: accuracies on generated motion by number of clips, recipe and seed.

    python experiments/few_clips.py OUT [--updates 400] [--clips 16 40 80 160] [--seeds 0 1 2]

A small AMR encoder is pre-trained once on generated motion without labels (OUT/run, kept). Then each recipe trains on
so many clips of other people, as many of each class, and is tested on 400 clips of yet others.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from fastamr.data import PackedSkeletons, apply_missing, synthetic_actions
from fastamr.evaluation import labelled_split
from fastamr.finetuning.classifier import accuracy_of
from fastamr.finetuning.few_clips import few_clips_recipe
from fastamr.finetuning.finetune import FinetuneConfig, finetune
from fastamr.finetuning.linear_head import linear_classifier
from fastamr.models import SkeletonModel, load_pretrained
from fastamr.probes import labelled_subset
from fastamr.tables import markdown
from fastamr.training import PretrainConfig, pretrain

ACTIONS = ("wave", "point", "punch", "kick", "squat", "bow", "jump", "walk")
MODEL = {"frames": 32, "width": 64, "depth": 3, "heads": 4, "decoder_width": 64, "decoder_depth": 1, "decoder_heads": 4,
         "target_patches": 2, "guidance_windows": [4, 8], "stride": 4}  # fmt: skip
# None = the encoder frozen, logistic regression on its features.
SMALL_BATCHES = {"hidden": 0, "batch_size": 8, "layer_decay": 0.65, "dropout": 0.0, "drop_path": 0.1}
DEFAULT = "few_clips_recipe"
RECIPES: dict[str, dict | None] = {
    "frozen": None,
    "usual": {},
    "batches of 8, 100 epochs": SMALL_BATCHES,
    DEFAULT: {},
}


def main() -> None:
    """Print a table of accuracies: mean and standard deviation over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--updates", type=int, default=400, help="of the pre-training")
    parser.add_argument("--clips", type=int, nargs="+", default=[16, 40, 80, 160])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    given = parser.parse_args()
    model = pretrained(given.out / "run", given.updates)
    data = apply_missing(synthetic_actions(1200, seed=7, actions=ACTIONS, train_share=0.65), ["center"])
    train, test = labelled_split(data, "official")
    test &= test.cumsum(0) <= 400
    rows = [
        [name, *(cell(model, data, train, test, name, count, given.seeds) for count in given.clips)]
        for name in given.recipes
    ]
    print(markdown([["recipe", *(f"{count} clips" for count in given.clips)], *rows]))


def pretrained(folder: Path, updates: int) -> SkeletonModel:
    """Return the encoder that the folder holds, trained where it holds none."""
    if not (folder / "model.safetensors").exists():
        data = synthetic_actions(1000, seed=0)
        config = PretrainConfig(
            data=["memory"], out=str(folder), architecture=MODEL, updates=updates, batch_size=64, min_frames=32,
            train_on="all", device="cpu", progress=False,
        )  # fmt: skip
        pretrain(config, data=data)
    return load_pretrained(folder)


def cell(
    model: SkeletonModel,
    data: PackedSkeletons,
    train: torch.Tensor,
    test: torch.Tensor,
    name: str,
    count: int,
    seeds: list[int],
) -> str:
    """Return the accuracy of one recipe on so many clips, in percent."""
    found, start = [], time.perf_counter()
    for seed in seeds:
        chosen = labelled_subset(data.labels, train, count / int(train.sum()), seed)
        recipe = RECIPES[name]
        if recipe is None:
            classifier = linear_classifier(model, data, chosen)
            found.append(accuracy_of(classifier, data, test))
        else:
            settings = {"min_frames": 32} | recipe
            if name == DEFAULT:
                settings, _ = few_clips_recipe(int(chosen.sum()), settings)
            config = FinetuneConfig(**settings)
            found.append(finetune(model, data, (chosen, test), config, seed=seed).accuracy)
    spread = statistics.stdev(found) if len(found) > 1 else 0.0
    text = f"{statistics.mean(found):.1f} ± {spread:.1f}"
    print(f"{name}, {count} clips: {text} ({time.perf_counter() - start:.0f} s)", flush=True)
    return text


if __name__ == "__main__":
    main()
