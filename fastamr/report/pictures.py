"""What saved encoders and classifiers make of a few clips of their data: nothing is trained, files are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import STRAY, shortened, told
from ..pages import Chart, Table, Text
from ..progress import say
from .charts import draw_confusion, draw_points
from .runs import DISTILL, FINETUNE, PRETRAIN, Run

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ..data import PackedSkeletons

_FEWEST = 5
# Classes of the table below a confusion matrix.
_MOST_CLASSES = 200


def picture_blocks(runs: Sequence[Run], clips: int, seed: int) -> Iterator[Chart | Table | Text]:
    """Yield embeddings of pre-training runs and confusion matrices, or why there is none.

    Args:
        runs: of any kind; those without a saved model are told.
        clips: most clips of a drawing, drawn at random; 0 yields nothing.
        seed: of that draw.
    """
    for run in runs if clips else ():
        try:
            if run.kind == PRETRAIN:
                yield from _of_encoder(run, clips, seed)
            elif run.kind in (FINETUNE, DISTILL):
                yield from _of_classifier(run, clips, seed)
        except (ValueError, OSError, RuntimeError, *STRAY) as error:
            yield Text(f"{run.name}: no picture of what it has learnt: {told(error)}", "warning")


def _source(run: Run) -> str:
    """Return the file of a run's data, as its settings name it.

    Raises:
        ValueError: there are several, or none.
        FileNotFoundError: it is not here.
    """
    sources = run.config.get("data")
    if isinstance(sources, str):
        sources = [sources]
    if not isinstance(sources, list) or len(sources) != 1 or not isinstance(sources[0], str):
        raise ValueError(
            f"its data is {shortened(sources)}, one file can be shown: fastamr plot {run.name} --data FILE draws others"
        )
    if not Path(sources[0]).is_file():
        raise FileNotFoundError(f"its data {sources[0]} is not here: start where it lies")
    return sources[0]


def _drawn(mask: Tensor, clips: int, seed: int) -> Tensor:
    """Return the numbers of at most so many of the clips of a mask, in their order."""
    import torch

    places = mask.nonzero()[:, 0]
    if len(places) <= clips:
        return places
    chosen = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))[:clips]
    return places[chosen.sort().values]


def _split_of(run: Run, data: PackedSkeletons) -> str | None:
    """Return the split of a run's settings, else the data's first."""
    name = run.config.get("split")
    if name is not None and name not in data.splits:
        raise ValueError(f"its split {shortened(name)} is not in {_source(run)}")
    return name or next(iter(data.splits), None)


def _names(data: PackedSkeletons) -> list[str]:
    count = max(len(data.label_names), int(data.labels.max()) + 1 if data.num_clips else 0)
    return [data.label_names[k] if k < len(data.label_names) else f"class {k}" for k in range(count)]


def _of_encoder(run: Run, clips: int, seed: int) -> Iterator[Chart | Table | Text]:
    import torch

    from ..data import load
    from ..features import extract_features
    from ..features.run_settings import run_steps
    from ..finetuning.gathering import prepare_data
    from ..models import load_pretrained
    from ..visualization.embedding import project

    source = _source(run)
    model, data = load_pretrained(run.folder), load(source)
    split = _split_of(run, data)
    halves = None if split is None else data.split(split)
    used = torch.ones(data.num_clips, dtype=torch.bool) if halves is None else halves.train | halves.test
    places = _drawn(used, clips, seed)
    if len(places) < _FEWEST:
        raise ValueError(f"{source} has {len(places)} clips, expected at least {_FEWEST}")
    say(f"{run.name}: features of {len(places)} clips")
    shown = prepare_data(model, [source], run_steps(run.folder), data.select(places), None)
    features = extract_features(model, shown).cpu()
    labels = shown.labels.cpu().numpy()
    points, axes = project(features.numpy(), "pca")
    title = f"features of {run.name}, {len(places):,} of {int(used.sum()):,} clips"
    yield draw_points(title, points, labels, _names(shown), axes)
    if halves is not None and len(places) == int(used.sum()):
        yield from _neighbours(run, split or "", features, shown, halves.train[places])


def _neighbours(
    run: Run, split: str, features: Tensor, data: PackedSkeletons, train: Tensor
) -> Iterator[Chart | Table]:
    """The 1-NN probe of all clips of a small split: it compares, and trains nothing."""
    from ..probes import knn_predict

    known = data.labels >= 0
    first, second = train & known, ~train & known
    if not (first.any() and second.any()):
        return
    found = knn_predict(features[first], data.labels[first], features[second]).numpy()
    truth = data.labels[second].numpy()
    yield from _confusion(f"1-NN of {run.name}, split {split}", truth, found, _names(data))


def _of_classifier(run: Run, clips: int, seed: int) -> Iterator[Chart | Table | Text]:
    from ..data import load
    from ..features.clip_batches import ClipBatches
    from ..features.splits import labelled_split
    from ..finetuning.finetune import predict
    from ..finetuning.gathering import prepare_data
    from ..models import ActionClassifier

    source = _source(run)
    classifier, data = ActionClassifier.from_pretrained(run.folder), load(source)
    split = _split_of(run, data)
    if split is None:
        return  # trained on everything: nothing is left to test it on
    test = labelled_split(data, split)[1]
    places = _drawn(test, clips, seed)
    say(f"{run.name}: classes of {len(places)} clips")
    shown = prepare_data(classifier, [source], classifier.steps, data.select(places), None)
    rows = (shown.labels >= 0).nonzero()[:, 0]
    found = predict(classifier, ClipBatches(shown, classifier.encoder.frames), rows, 64).cpu().numpy()
    names = list(classifier.class_names) or _names(shown)
    own = _names(shown)
    known = [own[code] if shown.label_names else names[code] for code in shown.labels[rows].tolist()]
    names += [name for name in dict.fromkeys(known) if name not in names]
    truth = np.array([names.index(name) for name in known])
    what = f"classifier of {run.name}, split {split}, {len(places):,} of {int(test.sum()):,} test clips"
    yield from _confusion(what, truth, found, names)


def _confusion(
    title: str, truth: NDArray[np.int64], found: NDArray[np.int64], names: Sequence[str]
) -> Iterator[Chart | Table]:
    """Draw the classes that occur, and list what each is mostly taken for."""
    from ..visualization.confusion import confusion_matrix

    counts = confusion_matrix(truth, found, len(names))
    kept = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    counts = counts[np.ix_(kept, kept)]
    right = 100 * np.trace(counts) / counts.sum()
    yield draw_confusion(
        title, counts, f"{right:.1f} % of {counts.sum():,} clips right; numbers: the table below"
    )
    rows = [["class", "number", "clips", "right", "mostly taken for"]]
    for place in range(min(len(kept), _MOST_CLASSES)):
        row = counts[place].copy()
        total, hits, row[place] = int(row.sum()), int(row[place]), 0
        other = f"{names[kept[int(row.argmax())]]} ({int(row.max())})" if row.any() else "-"
        share = f"{100 * hits / total:.0f} %" if total else "-"
        rows.append([names[kept[place]], str(place), str(total), share, other])
    yield Table(rows, left=(0, -1), title=f"classes: {title}", folded=True)
