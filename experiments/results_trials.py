#!/usr/bin/env python
"""Look into the runs of experiments/results.py: the linear probe's settings, and the motion that was trained on.

    python experiments/results.py --data ../shared/data --out OUT --features FOLDER --only nw_ucla_heldout ...
    python experiments/results_trials.py probes --data ../shared/data --features FOLDER  accuracies by setting
    python experiments/results_trials.py features --data ../shared/data --features FOLDER  scale and rank
    python experiments/results_trials.py motion --data ../shared/data                  how source and target data move

Everything is measured on the training clips of NW-UCLA's official split, the held-out subjects among them; the test
clips are not read.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import results  # noqa: E402
from results_probes import has_features, kept_features  # noqa: E402
from results_report import ROWS  # noqa: E402

from fastamr.data import PackedSkeletons, apply_missing  # noqa: E402
from fastamr.evaluation import labelled_split, standardize_features  # noqa: E402
from fastamr.features.sampling import sample_bodies  # noqa: E402
from fastamr.nn.feature_spread import effective_rank, feature_covariance  # noqa: E402
from fastamr.probes.linear_probe import NTU_UPDATES, fit_linear  # noqa: E402
from fastamr.tables import markdown, mean_text  # noqa: E402
from fastamr.training.config import read_yaml  # noqa: E402

AMR, MAMP = {"lr": 0.01, "batch_size": 256}, {"lr": 0.1, "batch_size": 128}
# Title -> whether the features are standardized, and the settings of fit_linear.
SETTINGS = {
    "AMR's, 100 epochs": (False, AMR),
    "AMR's, 15,700 updates": (False, AMR | {"min_updates": NTU_UPDATES}),
    "AMR's, 100 epochs, standardized": (True, AMR),
    "AMR's, 15,700 updates, standardized": (True, AMR | {"min_updates": NTU_UPDATES}),
    "MAMP's, 100 epochs": (False, MAMP),
    "MAMP's, 15,700 updates": (False, MAMP | {"min_updates": NTU_UPDATES}),
    "MAMP's, 100 epochs, standardized": (True, MAMP),
    "MAMP's, 15,700 updates, standardized": (True, MAMP | {"min_updates": NTU_UPDATES}),
}
Found = dict[tuple[str, str, str], list[tuple[int, Tensor]]]


def find_features(folder: Path, data: PackedSkeletons, variants: list[str]) -> Found:
    """Seeds and features of the held-out sets' runs that a folder holds, by set, method and variant."""
    found: Found = defaultdict(list)
    for job in results.jobs(["nw_ucla_heldout", "bandai_heldout"], (0, 1, 2), read_yaml(results.RUNS)):
        # Random encoders are the same in both sets.
        twice = job.set == "bandai_heldout" and job.method in results.UNTRAINED
        if job.variant in variants and not twice and has_features(folder, job.key):
            features = kept_features(folder, job.key, data.num_clips)
            found[job.set, job.method, job.variant].append((job.seed, features))
    return found


def show_probes(found: Found, data: PackedSkeletons) -> None:
    """Print accuracy on the held-out subjects, and accuracy and loss on the clips that the layer was trained on."""
    train, test = labelled_split(data, "heldout")
    train_y, test_y = data.labels[train], data.labels[test]
    names = [f"{ROWS[method]}, {chosen.split('_heldout')[0]}" for chosen, method, _ in found]
    print(
        f"{len(train_y)} clips to train, {len(test_y)} to test on: held-out / training accuracy, training loss\n"
    )
    rows = [["setting", *names]]
    for title, (scaled, settings) in SETTINGS.items():
        cells = []
        for runs in found.values():
            held, known, losses = [], [], []
            for seed, features in runs:
                x, tested = features[train], features[test]
                if scaled:
                    x, tested = standardize_features(x, tested)
                fit = fit_linear(x, train_y, seed=seed, **settings)
                for one, y, to in ((tested, test_y, held), (x, train_y, known)):
                    right = functional.linear(one.float(), fit.weight, fit.bias).argmax(1) == y
                    to.append(100 * float(right.double().mean()))
                losses.append(fit.train_loss)
            mean = statistics.fmean
            cells.append(f"{mean_text(held)} / {mean(known):.0f}, {mean(losses):.2f}")
        rows.append([title, *cells])
    print(markdown(rows))


def show_features(found: Found, data: PackedSkeletons) -> None:
    """Print the scale of the features of the training clips."""
    train, _ = labelled_split(data, "heldout")
    rows = [["features", "seeds", "norm of the mean", "deviation from it", "effective rank"]]
    for (chosen, method, variant), runs in found.items():
        parts = [[], [], []]
        for _, features in runs:
            x = features[train]
            parts[0].append(float(x.mean(0).norm()))
            parts[1].append(float((x - x.mean(0)).square().sum(1).mean().sqrt()))
            parts[2].append(float(effective_rank(feature_covariance(x))))
        shown = [f"{statistics.fmean(one):.1f}" for one in parts]
        rows.append([f"{chosen} {method} {variant}", str(len(runs)), *shown])
    print(markdown(rows))


def show_motion(folder: str) -> None:
    """Print how far and how smoothly the training clips of target and source move, as an encoder samples them."""
    rows = [["clips", "frames", "root's path, m", "steps of the joints, cm", "under loss_eps", "lag 1"]]
    for name, chosen in (("NW-UCLA", "nw_ucla_heldout"), ("Bandai-Namco", "bandai_heldout")):
        steps = read_yaml(results.RUNS)["sets"][chosen]["steps"]
        data = apply_missing(results.training_data(chosen, folder), steps)
        known = data.split("official").train if chosen == "nw_ucla_heldout" else None
        ids = torch.arange(data.num_bodies) if known is None else known[data.body_clip].nonzero()[:, 0]
        clips = sample_bodies(data, ids, 32)[0].double()
        motion = clips[:, 1:] - clips[:, :-1]
        path = motion[:, :, 0].norm(dim=-1).sum(1)
        step = 100 * motion.norm(dim=-1).mean((1, 2))
        spread = motion - motion.mean(1, keepdim=True)
        variance = spread.square().mean(1)
        target = spread / (variance + 1e-6).sqrt()[:, None]
        lag = (target[:, 1:] * target[:, :-1]).mean() / target.square().mean()
        still = 100 * (variance < 1e-6).double().mean()
        frames = torch.diff(data.offsets)[ids].double()
        ranges = [
            f"{low:.1f}, {mid:.1f}, {high:.1f}" for low, mid, high in map(_quartiles, (frames, path, step))
        ]
        rows.append([name, *ranges, f"{still:.0f} %", f"{lag:.2f}"])
    print(markdown(rows))


def _quartiles(values: Tensor) -> list[float]:
    return values.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=values.dtype)).tolist()


def main() -> None:
    """Read the command line and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["probes", "features", "motion"])
    parser.add_argument("--data", default="../shared/data", help="folder of the data sets' folders")
    parser.add_argument("--features", type=Path, help="folder that experiments/results.py kept features in")
    parser.add_argument("--variants", nargs="+", default=["", "chosen"])
    given = parser.parse_args()
    if given.what == "motion":
        return show_motion(given.data)
    if given.features is None:
        parser.error("--features names the folder that experiments/results.py kept the features in")
    data = results.test_data("nw_ucla_heldout", given.data)
    found = find_features(given.features, data, given.variants)
    return (show_probes if given.what == "probes" else show_features)(found, data)


if __name__ == "__main__":
    main()
