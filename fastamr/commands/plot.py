"""``fastamr plot RUN --out DIR``: curves of a run, embedding of its features, attention maps, confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .options import FLAG, CommandParser, Given, choice

if TYPE_CHECKING:
    from ..data import PackedSkeletons
    from ..models import SkeletonModel

FORMATS = ("png", "svg", "pdf")
METHODS = ("pca", "tsne")
PROBES = ("knn", "linear", "classifier")


def run(words: list[str]) -> None:
    """Carry out the command."""
    given = _parser().parse(words)
    from ..files import check_writable
    from ..models.base import model_files
    from ..visualization.curves import draw_curves, read_metrics
    from ..visualization.figures import new_figure

    new_figure(1, 1)  # fails before anything is computed where matplotlib is missing
    out = Path(given.out)
    if len(given.run) > 1:
        _several(given, out)
        return
    if given.width is not None:
        raise UsageError("--width is that of a figure of several runs: name more than one, or omit it")
    given.run = given.run[0]
    folder = Path(given.run)
    draw: dict[str, Callable[[Path], None]] = {}
    wanted = {
        name: value for name in ("embedding", "attention", "confusion") if (value := getattr(given, name))
    }
    if given.confusion == "classifier":
        draw["confusion"] = _classifier_confusion(given.run, given)
        del wanted["confusion"]
    if wanted:
        model, data = _load(given.run, given.data, given.split)
        model.check_pooling(given.pooling)
        draw |= {name: _drawing(name, value, given, model, data) for name, value in wanted.items()}
    if not (wanted or draw) or (folder / "metrics.jsonl").is_file():
        records = read_metrics(folder)
        draw = {"curves": lambda path: draw_curves(path, records, title=str(folder)), **draw}
    paths = {name: out / f"{name}.{given.format}" for name in draw}
    for path in paths.values():
        check_writable(path, *given.data, *model_files(folder))
    out.mkdir(parents=True, exist_ok=True)
    for name, make in draw.items():
        path = paths[name]
        make(path)
        print(f"written to {path}")


def _several(given: Given, out: Path) -> None:
    """Draw several runs in one figure."""
    from ..evaluation.report.report import MODEL_NAMES
    from ..features.run_settings import run_config
    from ..files import check_writable
    from ..visualization.curves import read_metrics
    from ..visualization.figures import width_inches
    from ..visualization.several_runs import draw_runs, loss_kind

    alone = [name for name in ("embedding", "attention", "confusion") if getattr(given, name)]
    if alone:
        raise UsageError(f"--{alone[0]} is of one run: name one, or omit it")
    if len(set(given.run)) < len(given.run):
        raise UsageError("a run is named twice: name each once")
    records = {run: read_metrics(run) for run in given.run}
    configs = {run: run_config(run) or {} for run in given.run}
    models = {
        run: MODEL_NAMES.get(str(one.get("model")), str(one.get("model"))) for run, one in configs.items()
    }
    path = out / f"runs.{given.format}"
    check_writable(path, *(Path(run) / "metrics.jsonl" for run in given.run))
    out.mkdir(parents=True, exist_ok=True)
    width = 10.0 if given.width is None else width_inches(given.width)
    draw_runs(path, records, {run: loss_kind(one) for run, one in configs.items()}, models, width=width)
    print(f"written to {path}")


def _load(folder: str, sources: list[str], split: str | None) -> tuple[SkeletonModel, PackedSkeletons]:
    """Return the model of a run and its data (or other data), pre-processed as for the training."""
    from ..data.joining import open_sets
    from ..features.run_settings import run_config, run_steps
    from ..finetuning.classifier import prepare_data
    from ..models import load_pretrained

    model, steps = load_pretrained(folder), run_steps(folder)
    sources = sources or list((run_config(folder) or {}).get("data") or [])
    if not sources:
        raise ValueError(f"{folder} does not say which data it was trained on: name packed files with --data")
    splits = [name for one in open_sets(sources) for name in one.splits]
    chosen = _split(split, splits) if split or splits else None
    return model, prepare_data(model, sources, steps, None, chosen)


def _drawing(
    name: str, value: str, given: Given, model: SkeletonModel, data: PackedSkeletons
) -> Callable[[Path], None]:
    """Check what a figure needs, and return what draws it."""
    from ..visualization.clip import find_clip

    if name == "attention":
        clip = find_clip(data, given.clip)
        return lambda path: _attention(path, model, data, clip, given.unit)
    if name == "embedding":
        return lambda path: _embedding(path, value, given, model, data)
    from ..features.splits import labelled_split

    split = _split(given.split, data.splits)
    halves = labelled_split(data, split)
    return lambda path: _confusion(path, value, split, halves, model, data, given.pooling)


def _split(name: str | None, splits: Iterable[str]) -> str:
    known = list(splits)
    if name is None and known and "official" not in known:
        return known[0]
    return name or "official"


def _attention(path: Path, model: SkeletonModel, data: PackedSkeletons, clip: int, unit: str | None) -> None:
    from ..features.extract import given_joints
    from ..visualization.attention_maps import draw_attention
    from ..visualization.overlays import model_clip

    known = given_joints(model, data)
    draw_attention(path, model, model_clip(data, clip, model.frames), unit=unit, **known)


def _embedding(path: Path, method: str, given: Given, model: SkeletonModel, data: PackedSkeletons) -> None:
    import torch

    from ..features import extract_features
    from ..visualization.embedding import draw_embedding, project

    test = None
    if given.split is not None or data.splits:
        split = data.split(_split(given.split, data.splits))
        chosen, test = split.train | split.test, split.test
        data, test = (data, test) if bool(chosen.all()) else (data.select(chosen), test[chosen])
    if data.num_clips > given.most:
        places = torch.randperm(data.num_clips, generator=torch.Generator().manual_seed(given.seed))[
            : given.most
        ]
        places = places.sort().values
        data, test = data.select(places), None if test is None else test[places]
    features = extract_features(model, data, pooling=given.pooling)
    points, axes_names = project(features.cpu().numpy(), method, seed=given.seed)
    draw_embedding(
        path,
        points,
        data.labels.cpu().numpy(),
        _class_names(data),
        axes_names,
        test=None if test is None else test.cpu().numpy(),
        title=f"features of {given.run}, {data.num_clips:,} clips",
    )


def _class_names(data: PackedSkeletons) -> list[str]:
    count = max(len(data.label_names), int(data.labels.max()) + 1)
    return [data.label_names[k] if k < len(data.label_names) else f"class {k}" for k in range(count)]


def _confusion(
    path: Path, probe: str, split: str, halves: Any, model: Any, data: PackedSkeletons, pooling: str
) -> None:
    import numpy as np

    from ..features import extract_features
    from ..probes import knn_predict, linear_probe
    from ..visualization.confusion import confusion_matrix, draw_confusion

    features = extract_features(model, data, pooling=pooling)
    labels = data.labels.to(features.device)
    train, test = (mask.to(features.device) for mask in halves)
    sets = features[train], labels[train], features[test]
    if probe == "knn":
        predicted = knn_predict(*sets).cpu().numpy()
    else:
        predicted = np.array(linear_probe(*sets, labels[test]).predicted, dtype=np.int64)
    names = _class_names(data)
    counts = confusion_matrix(labels[test].cpu().numpy(), predicted, len(names))
    what = "1-NN" if probe == "knn" else "linear probe"
    draw_confusion(path, counts, names, title=f"{what} of the frozen encoder, split {split!r}")


def _classifier_confusion(folder: str, given: Given) -> Callable[[Path], None]:
    """Test a classifier of ``fastamr finetune``, and return what draws its confusion matrix."""
    import numpy as np

    from ..features.clip_batches import ClipBatches
    from ..features.splits import labelled_split
    from ..finetuning.classifier import prepare_data
    from ..finetuning.finetune import predict
    from ..models import ActionClassifier
    from ..visualization.confusion import confusion_matrix, draw_confusion

    classifier = ActionClassifier.from_pretrained(folder)
    if not given.data:
        raise ValueError(f"{folder} is a classifier: name packed files to test it on with --data")
    data = prepare_data(classifier, given.data, classifier.steps, None)
    split = _split(given.split, data.splits)
    clips = labelled_split(data, split)[1].nonzero()[:, 0]
    found = predict(classifier, ClipBatches(data, classifier.encoder.frames), clips, 64).cpu().numpy()
    names = list(classifier.class_names) or _class_names(data)
    known = [
        data.label_names[code] if data.label_names else names[code] for code in data.labels[clips].tolist()
    ]
    names += [name for name in dict.fromkeys(known) if name not in names]
    truth = np.array([names.index(name) for name in known])
    counts = confusion_matrix(truth, found, len(names))
    return lambda path: draw_confusion(path, counts, names, title=f"classifier in {folder}, split {split!r}")


def _parser() -> CommandParser:
    text = "Draw the curves of a run and, where asked for, what its encoder has learnt."
    parser = CommandParser("plot", "RUN... --out DIR", text)
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="+",
        help="the folder of a run of fastamr pretrain, or of a classifier; with pictures of the encoder also a shipped "
        "model, or owner/name of the Hugging Face Hub. Several runs: one figure, of their losses by target, "
        "and of accuracy against hours",
    )
    add = parser.add_argument_group("pictures").add_argument
    add("--out", required=True, metavar="DIR", help="the folder for the pictures; made where it is missing")
    add("--format", default="png", **choice("format", FORMATS), help="of the pictures")
    add("--width", metavar="column|text|INCHES",
        help="of a figure of several runs: column (3.25 inches) and text (6.875) are those of papers")  # fmt: skip
    add("--embedding", **choice("embedding", METHODS), help="also draw the features in two dimensions")
    add("--attention", action=FLAG, help="also draw the encoder's attention over the skeleton of --clip")
    add("--confusion", **choice("confusion", PROBES),
        help="also draw the confusion matrix of a probe of the frozen encoder, or of a classifier")  # fmt: skip
    add = parser.add_argument_group("what is drawn").add_argument
    add("--data", nargs="+", default=[], metavar="FILE", help="packed files, by default those of the run")
    add("--clip", default="0", metavar="N|NAME", help="the clip of --attention, by number or name")
    add("--split", metavar="NAME",
        help="of the probe, and of the embedding's edges: official, else the first")  # fmt: skip
    add("--pooling", default="mean", metavar="NAME",
        help="of the drawn features' tokens: mean (default), regions, regions+time or mean+max")  # fmt: skip
    add("--most", type=int, default=3000, metavar="CLIPS", help="clips of the embedding, drawn at random")
    add("--seed", type=int, default=0, help="of t-SNE and of that draw")
    add("--unit", metavar="NAME",
        help="unit of the coordinates, written on the axes; '' for none; by default m, px for 2-D joints")  # fmt: skip
    return parser
