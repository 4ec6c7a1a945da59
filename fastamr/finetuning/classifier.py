"""``fastamr finetune``: one classifier from a pre-trained encoder or from a classifier, tested and saved."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from ..data.joining import Gathered, choose_split, gather, open_sets
from ..devices import check_one_process, deterministic, pick_device, versions
from ..errors import check_name
from ..features.clip_batches import ClipBatches
from ..features.extract import check_fit
from ..features.splits import describe_halves, training_split, untrained_classes
from ..files import check_writable, write_text
from ..folders import FolderLock, note_written
from ..models import ActionClassifier
from ..models.base import CONFIG_FILE, WEIGHTS_FILE, model_files
from ..probes.checks import percent_equal
from ..progress import say
from ..training.config import TRAIN_ON
from ..training.interrupt import StopSignals
from .command import shell_command
from .few_clips import FEW_CLIPS, few_clips_recipe
from .finetune import FinetuneConfig, count_classes, finetune, names_of, predict
from .linear_head import linear_classifier
from .start import REPORT_FILE, Start, load_start, trained_before

if TYPE_CHECKING:
    from ..data import PackedSkeletons
    from ..models import SkeletonModel


@dataclass
class ClassifierConfig:
    """What ``fastamr finetune`` does.

    Attributes:
        checkpoint: folder of a run, of ``save_pretrained``, or of a classifier, which is continued: its encoder, and
            its head where the classes have the same names.
        data: packed files of one layout, which are used together, or ``synthetic``.
        out: folder of the classifier.
        split: name of the split: it trains on the training clips, and the test clips give the accuracy. Files without
            it are trained on whole, where another file has it.
        train_on: ``train`` (the training clips of the split) or ``all`` clips with a label; then nothing is tested.
        label_numbers: take the labels of files that do not name their classes for the numbers of those that do.
        frozen: leave the encoder as it is and fit a linear head to its features (logistic regression); the encoder
            learns too by default. Below 200 training clips the recipe then suits few of them, see
            :func:`~fastamr.finetuning.few_clips.few_clips_recipe`; ``--no-frozen`` takes the usual one.
        recipe: settings of :class:`FinetuneConfig` that differ from the defaults, and win over those for few clips;
            none of them with ``frozen``.
        seed: of the fine-tuning.
        batch_size: body sequences encoded at a time with ``frozen``.
        device: ``auto`` (a GPU where there is one) or a torch device.
        deterministic: take only algorithms that give the same bits in every run on this machine with as many threads;
            on a GPU slower, see docs/reliability.md. On a CPU that holds without it too.
        overwrite: replace the model that the folder holds.
    """

    checkpoint: str
    data: list[str]
    out: str
    split: str = "official"
    train_on: Literal["train", "all"] = "train"
    label_numbers: bool = False
    frozen: bool | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    batch_size: int = 256
    device: str = "auto"
    deterministic: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        self.checkpoint, self.out = str(self.checkpoint), str(self.out)
        self.data = as_sources(self.data)
        check_name("train_on", self.train_on, TRAIN_ON)
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must be zero or more")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be at least 1 body sequence")
        if self.frozen and self.recipe:
            raise ValueError(
                f"recipe.{next(iter(self.recipe))} has no effect with frozen, which trains no encoder: omit one of them"
            )
        check_part("recipe", self.recipe, FinetuneConfig)
        FinetuneConfig(**self.recipe)


def train_classifier(
    config: ClassifierConfig, *, data: PackedSkeletons | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Train a classifier on an encoder, or continue one, test it after the last epoch, and save it.

    Data that lacks pre-processing steps of the run goes through them first. The folder then holds what
    ``ActionClassifier.from_pretrained`` loads, and ``classifier.json``.

    Args:
        config: the configuration.
        data: packed data in memory instead of the files that ``config.data`` names.
        quiet: do not print.

    Returns:
        What ``classifier.json`` holds: ``config`` with what was chosen, ``start`` (``kind``, ``head``, and ``chain``:
        the folders behind it), ``recipe`` (complete; None with ``frozen``), ``command`` (does the same again, for data
        in files), ``versions``, ``data``, ``clips``, ``classes``, ``parameters`` and ``accuracy`` (test, percent; None
        where nothing is tested), ``notes`` and ``warnings``.

    Raises:
        FileExistsError: the folder holds a model, and ``overwrite`` is not set; or it is that of the checkpoint.
        BlockingIOError: another process writes into the folder.
        FileNotFoundError: no model in the folder, or no such data file.
        ValueError: an unknown split, no labels or one class, data that the model does not fit, a wrong device, several
            processes.
        KeyboardInterrupt: the training was stopped by a signal; nothing is written.
    """
    check_one_process()
    out = claim_folder(config.out, config.checkpoint, *config.data, overwrite=config.overwrite)
    with FolderLock(out, "fastamr finetune"), deterministic(config.deterministic, config.device):
        return _train_classifier(config, out, data, quiet)


def _train_classifier(
    config: ClassifierConfig, out: Path, data: PackedSkeletons | None, quiet: bool
) -> dict[str, Any]:
    """As :func:`train_classifier`, into a folder that nobody else writes into."""
    start = load_start(config.checkpoint)
    gathered = gather_data(start.source, config, start.steps, data)
    prepared = gathered.data
    train, test = training_split(prepared, gathered.split)
    warnings = [*gathered.warnings, *untrained_classes(prepared, (train, test))]
    if gathered.split is not None:
        warnings += trained_before(start, config.data, gathered.split)
    plan = _plan(config, start, prepared, train)
    config, recipe = plan.config, plan.recipe
    if not quiet:
        tell(describe_halves(prepared, gathered.split, (train, test)), gathered.notes, warnings)
        for line in plan.told:
            print(line)
    model = start.model.to(pick_device(config.device))
    with StopSignals(lambda: f"nothing was written into {out}"):
        if recipe is None:
            classifier = linear_classifier(model, prepared, train, batch_size=config.batch_size)
            accuracy = accuracy_of(classifier, prepared, test, config.batch_size)
        else:
            show: Any = (
                {} if quiet else {"progress": functools.partial(say, file=sys.stdout), "bar": "finetune"}
            )
            result = finetune(
                model, prepared, (train, test), recipe, seed=config.seed, head=plan.weights, **show
            )
            classifier, accuracy = result.classifier, result.accuracy
    report: dict[str, Any] = {
        "config": dataclasses.asdict(config),
        "start": {
            "kind": "encoder" if start.classifier is None else "classifier",
            "chain": list(start.chain),
            "head": plan.head,
        },
        "recipe": None if recipe is None else dataclasses.asdict(recipe),
        "command": shell_command("finetune", dataclasses.asdict(config)),
        "versions": versions(),
        "data": prepared.describe(),
        "clips": {"train": int(train.sum()), "test": int(test.sum())},
        "classes": classifier.classes,
        "parameters": classifier.num_parameters(),
        "accuracy": accuracy if test.any() else None,
        "notes": list(gathered.notes),
        "warnings": warnings,
    }
    classifier.body_size = gathered.body_size
    note_written(out, CONFIG_FILE, WEIGHTS_FILE, REPORT_FILE)
    classifier.save_pretrained(out)
    write_text(out / REPORT_FILE, json.dumps(report, indent=2) + "\n")
    if not quiet:
        tested = (
            f"{accuracy:.1f} % of {report['clips']['test']} test clips"
            if test.any()
            else "nothing was tested"
        )
        print(f"{tested}; the classifier is in {out}")
    return report


class _Plan(NamedTuple):
    """What a fine-tuning does.

    Attributes:
        config: the configuration with what was chosen: ``frozen`` is set, ``recipe`` is what differs from the defaults.
        recipe: the complete recipe; None with a frozen encoder.
        weights: what the head begins with; None = fresh ones.
        head: where they come from, in words.
        told: lines for the person who asked.
    """

    config: ClassifierConfig
    recipe: FinetuneConfig | None
    weights: dict[str, torch.Tensor] | None
    head: str
    told: list[str]


def _plan(config: ClassifierConfig, start: Start, data: PackedSkeletons, train: torch.Tensor) -> _Plan:
    """Choose what was left open by what is continued and by the number of training clips."""
    told = []
    if config.frozen:
        weights, recipe, head = None, None, "a new linear head"
    else:
        names = names_of(data, count_classes(data.labels[train]))
        weights, form, head = start.head(names, config.recipe)
        settings, clips = form | config.recipe, int(train.sum())
        if config.frozen is None and clips < FEW_CLIPS:
            settings, text = few_clips_recipe(clips, settings)
            told.append(text)
        config = dataclasses.replace(config, frozen=False, recipe=settings)
        recipe = FinetuneConfig(**settings)
    if start.classifier is not None:
        told.insert(0, f"continues the classifier in {config.checkpoint}: its encoder, and {head}")
    return _Plan(config, recipe, weights, head, told)


def accuracy_of(
    classifier: ActionClassifier, data: PackedSkeletons, test: torch.Tensor, batch_size: int = 256
) -> float:
    """Return the share of the test clips that a classifier names correctly, in percent; NaN where there is none.

    Args:
        classifier: the classifier; the work is done on its device.
        data: packed data, pre-processed for it.
        test: ``(N,)`` bool, the clips to test on, all labelled.
        batch_size: clips at a time.
    """
    device = next(classifier.parameters()).device
    data = data.to(device)
    clips = test.to(device).nonzero()[:, 0]
    if not len(clips):
        return math.nan
    batches = ClipBatches(data, classifier.encoder.frames)
    return percent_equal(predict(classifier, batches, clips, batch_size), data.labels[clips])


def claim_folder(out: str | Path, *inputs: str | Path, overwrite: bool = False) -> Path:
    """Return the folder of a result, made where it is missing.

    Args:
        out: the folder.
        inputs: folders and files that are read, which the result must not replace.
        overwrite: whether a model in the folder may be replaced.

    Raises:
        FileExistsError: it is a file, holds a model that may not be replaced, or is one of the inputs.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"out {str(folder)!r} is a file; name a folder")
    if (folder / CONFIG_FILE).exists() and not overwrite:
        raise FileExistsError(
            f"out {str(folder)!r} already holds a model; pass --overwrite to replace it, or name another folder"
        )
    files = [file for source in inputs for file in model_files(source)]
    for name in (CONFIG_FILE, WEIGHTS_FILE, REPORT_FILE):
        check_writable(folder / name, *files)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def as_sources(data: Any) -> list[str]:
    """Return the names of data files as a list, also of a single one."""
    return [str(item) for item in ([data] if isinstance(data, (str, Path)) else data)]


def check_part(part: str, settings: dict[str, Any], config: Any) -> None:
    """Raise ``ValueError`` for a setting that a dataclass lacks, with the nearest one that it has."""
    known = [item.name for item in dataclasses.fields(config)]
    for name in settings:
        check_name(f"option of {part}", name, known)


def prepare_data(
    model: SkeletonModel | ActionClassifier,
    sources: list[str],
    steps: Any,
    given: PackedSkeletons | None,
    split: str | None = None,
) -> PackedSkeletons:
    """Load the data, or take what is given, with its split, and apply the steps that it lacks."""
    sets, names = (open_sets(sources), sources) if given is None else ([given], ["the data"])
    split = None if split is None else choose_split(split, sets)
    return _fitting(model, gather(sets, names, steps, split=split, layout=_encoder(model).layout)).data


def gather_data(
    model: SkeletonModel | ActionClassifier,
    config: Any,
    steps: Any,
    given: PackedSkeletons | None,
) -> Gathered:
    """Load the data of a configuration, or take what is given, with its split, and apply the steps that it lacks.

    Args:
        model: what the data is for; its body size is what that of the data is compared with.
        config: has ``data``, ``split``, ``label_numbers``, and perhaps ``train_on``.
        steps: the pre-processing of the model's training.
        given: data in memory instead of the files that the configuration names.

    Returns:
        The data; its ``split`` is None where the configuration asks for all clips.

    Raises:
        ValueError: an unknown split, or data that do not fit together or the model.
        FileNotFoundError: no such data file.
    """
    sets, names = (open_sets(config.data), config.data) if given is None else ([given], ["the data"])
    everything = getattr(config, "train_on", "train") == "all"
    gathered = gather(
        sets,
        names,
        steps,
        split=None if everything else choose_split(config.split, sets),
        layout=_encoder(model).layout,
        unnamed="numbers" if config.label_numbers else "refuse",
        reference=model.body_size,
    )
    return _fitting(model, gathered)


def tell(sizes: str, notes: Sequence[str], warnings: Sequence[str]) -> None:
    """Print what a person should know of the data: warnings on standard error, the rest on standard output."""
    for line in (*notes, sizes):
        print(line, flush=True)
    for line in warnings:
        say(f"warning: {line}")


def _encoder(model: SkeletonModel | ActionClassifier) -> SkeletonModel:
    return model.encoder if isinstance(model, ActionClassifier) else model


def _fitting(model: SkeletonModel | ActionClassifier, gathered: Gathered) -> Gathered:
    check_fit(_encoder(model), gathered.data)
    return gathered
