"""The protocols that train the encoder: fine-tuning on all labels, or on few of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...errors import check_name
from ...features.baselines import random_encoder
from ...features.splits import labelled_split
from ...finetuning.finetune import FinetuneConfig, finetune
from ...probes.semi_supervised import labelled_subset
from .frozen import SUPERVISED, Scores, score

if TYPE_CHECKING:
    from ...data import PackedSkeletons
    from ...models import SkeletonModel

SHARES = (0.01, 0.1)


def recipes(config: FinetuneConfig) -> dict[str, FinetuneConfig]:
    """Return the recipe of each row: fresh weights train without layer decay (MAMP's public scripts)."""
    return {"random": dataclasses.replace(config, layer_decay=1.0), "encoder": config}


def compare_supervised(
    model: SkeletonModel,
    data: PackedSkeletons,
    split: str = "official",
    *,
    protocol: str = "finetune",
    seeds: Sequence[int] = (0,),
    config: FinetuneConfig | None = None,
    shares: Sequence[float] = SHARES,
    bodies: str = "existing",
    progress: Callable[[str], None] | None = None,
) -> dict[str, Scores]:
    """Fine-tune an encoder, and the same architecture from scratch, once for each seed.

    Args:
        model: the pre-trained encoder; it is left as it is.
        data: packed data, pre-processed as for training.
        split: the split's name.
        protocol: ``"finetune"`` trains on all training clips, ``"semi"`` on a class-balanced share of them, drawn
            by :func:`labelled_subset` with the same seed.
        seeds: of the fine-tuning, the choice of labels and the weights of the random encoder.
        config: the recipe, see :func:`recipes`; None takes the defaults.
        shares: of the labels, for ``"semi"``.
        bodies: see :func:`finetune`.
        progress: called with a line of text now and then; None = silent.

    Returns:
        ``{"random": ..., "encoder": ...}``: scores by column (``finetune``, or ``semi_1`` for 1 % of the labels),
        with ``train_clips`` and ``train_loss`` for each seed beside the accuracy.

    Raises:
        ValueError: as :func:`labelled_split`, :func:`labelled_subset` and :func:`finetune`.
    """
    check_name("protocol", protocol, SUPERVISED)
    if not seeds:
        raise ValueError("seeds is empty, expected at least one integer")
    train, test = labelled_split(data, split)
    columns: dict[str, Callable[[int], Tensor]] = {"finetune": lambda seed: train}
    if protocol == "semi":
        columns = {column_of(share): _subset(data, train, share) for share in shares}
    results: dict[str, Scores] = {}
    for row, recipe in recipes(FinetuneConfig() if config is None else config).items():
        results[row] = {}
        for column, choose in columns.items():
            runs: list[dict[str, Any]] = []
            for seed in seeds:
                chosen = choose(seed)
                start = random_encoder(model, seed) if row == "random" else model
                say = None if progress is None else _prefixed(progress, f"{row}, {column}, seed {seed}: ")
                result = finetune(start, data, (chosen, test), recipe, seed=seed, bodies=bodies, progress=say)
                runs.append(
                    {
                        "accuracy": result.accuracy,
                        "train_clips": int(chosen.sum()),
                        "train_loss": result.train_loss,
                    }
                )
                if say is not None:
                    say(f"{result.accuracy:.1f} % after {runs[-1]['train_clips']} training clips")
            results[row][column] = score([run["accuracy"] for run in runs]) | {
                name: [run[name] for run in runs] for name in ("train_clips", "train_loss")
            }
    return results


def column_of(share: float) -> str:
    """Return what the column of a share of the labels is called, ``semi_1`` for 0.01."""
    return f"semi_{100 * share:g}"


def _subset(data: PackedSkeletons, train: Tensor, share: float) -> Callable[[int], Tensor]:
    return lambda seed: labelled_subset(data.labels, train, share, seed)


def _prefixed(progress: Callable[[str], None], prefix: str) -> Callable[[str], None]:
    return lambda text: progress(prefix + text)
