"""``fastamr finetune``: one classifier from a pre-trained encoder or from a classifier, tested and saved."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from ..devices import deterministic, versions
from ..distributed import World
from ..errors import check_name
from ..features.clip_batches import ClipBatches
from ..features.splits import describe_halves, training_split, untrained_classes
from ..files import check_writable, write_text
from ..folders import FolderLock, note_written
from ..models import ActionClassifier
from ..models.base import CONFIG_FILE, WEIGHTS_FILE, model_files
from ..probes.checks import percent_equal
from ..progress import say
from ..tracking import check_names, check_trackers
from ..training.checkpoint import COMPLETE_FILE, STATE_FILE, mark_complete
from ..training.config import GRAPH, ON_NAN, TRAIN_ON
from ..training.interrupt import StopSignals
from ..training.metrics.metrics import METRICS_FILE
from ..training.update.precision import PRECISIONS
from ..weights import find_model
from .command import shell_command
from .few_clips import FEW_CLIPS, few_clips_recipe
from .finetune import FinetuneConfig, count_classes, finetune, names_of, predict
from .fitting.classifier_step import FitSettings
from .fitting.keeping import STATE_FILES, FitKeeper, check_plan
from .gathering import gather_data, prepare_data, tell
from .linear_head import linear_classifier
from .start import REPORT_FILE, Start, load_start, trained_before

if TYPE_CHECKING:
    from ..data import PackedSkeletons

__all__ = [
    "ClassifierConfig",
    "accuracy_of",
    "as_sources",
    "check_computation",
    "check_part",
    "claim_folder",
    "gather_data",
    "prepare_data",
    "tell",
    "train_classifier",
]


FROZEN_FORM = ("pooling", "bodies")
"""Settings of the recipe that a frozen encoder's features have too."""


@dataclass
class ClassifierConfig:
    """What ``fastamr finetune`` does.

    Attributes:
        checkpoint: folder of a run, a shipped model, ``owner/name`` of the Hugging Face Hub; or a classifier, which is
            continued: its encoder, and its head where the classes have the same names.
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
            with ``frozen`` only ``pooling`` (by default ``mean``) and ``bodies``.
        seed: of the fine-tuning.
        batch_size: body sequences encoded at a time with ``frozen``.
        device: ``auto`` (a GPU where there is one) or a torch device.
        deterministic: take only algorithms that give the same bits in every run on this machine with as many threads;
            on a GPU slower, see docs/reliability.md. On a CPU that holds without it too.
        precision: ``auto`` is bfloat16 autocast on GPUs that have it and float32 elsewhere; or ``float32``, ``tf32``,
            ``bfloat16``, ``float16``.
        graph: ``auto`` records an update as one CUDA graph on a GPU, and is eager elsewhere or where that fails;
            ``on`` stops where it fails; ``off`` is always eager.
        on_nan: ``stop`` ends the run where a loss is not finite; ``skip`` leaves the update out and goes on.
        checkpoint_every: epochs between two checkpoints, which ``resume`` goes on from; 0 for none on the way.
        track: who else gets the metrics: ``tensorboard``, ``mlflow``, ``wandb``, or ``MODULE:CLASS`` of one's own, see
            docs/pretraining.md.
        resume: continue the fine-tuning that the folder holds; start one where it holds none.
        overwrite: replace the model that the folder holds.
    """

    checkpoint: str
    data: list[str]
    out: str = "classifier"
    split: str = "official"
    train_on: Literal["train", "all"] = "train"
    label_numbers: bool = False
    frozen: bool | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    batch_size: int = 256
    device: str = "auto"
    deterministic: bool = False
    precision: str = "auto"
    graph: str = "auto"
    on_nan: str = "stop"
    checkpoint_every: float = 10.0
    track: list[str] = field(default_factory=list)
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        self.checkpoint, self.out = str(self.checkpoint), str(self.out)
        self.data = as_sources(self.data)
        check_name("train_on", self.train_on, TRAIN_ON)
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must be zero or more")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be at least 1 body sequence")
        without_effect = [name for name in self.recipe if name not in FROZEN_FORM]
        if self.frozen and without_effect:
            raise ValueError(
                f"recipe.{without_effect[0]} has no effect with frozen, which trains no encoder: omit one of them"
            )
        if self.frozen and self.track:
            raise ValueError("track has no effect with frozen, which makes no updates: omit one of them")
        check_computation(self)
        check_part("recipe", self.recipe, FinetuneConfig)
        FinetuneConfig(**self.recipe)


def train_classifier(
    config: ClassifierConfig, *, data: PackedSkeletons | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Train a classifier on an encoder, or continue one, test it after the last epoch, and save it.

    Data that lacks pre-processing steps of the run goes through them first. The folder then holds what
    ``ActionClassifier.from_pretrained`` loads, ``classifier.json`` and, written last, ``complete.json``. While it
    trains there is ``state.safetensors``, from which ``resume`` goes on to the bit. Started by torchrun, the processes
    share each batch: the same run as in one process, up to rounding; the first one alone writes.

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
        FileExistsError: the folder holds a model, and ``overwrite`` is not set; or it is that of the checkpoint; with
            ``resume``, a model that nothing says how to go on from.
        BlockingIOError: another process writes into the folder.
        FileNotFoundError: no model in the folder, or no such data file.
        ValueError: an unknown split, no labels or one class, data that the model does not fit, a wrong device, a batch
            too small for the processes; with ``resume`` a run that was begun with other settings.
        FloatingPointError: the loss is not finite; the last checkpoint is kept, and the clips of that update are
            written into the folder.
        ConnectionError: another process has ended.
        KeyboardInterrupt: the training was stopped by a signal, after it was saved.
    """
    world = World.from_environment()
    device = world.pick_device(config.device)
    if world.first:
        check_trackers(config.track)
        _claim(config)
    lock = FolderLock(config.out, "fastamr finetune") if world.first else contextlib.nullcontext()
    with lock, deterministic(config.deterministic, config.device), world.joined(device):
        return _train_classifier(config, world, device, data, quiet or not world.first)


def _claim(config: ClassifierConfig) -> None:
    """Refuse a folder that holds what this run is not to touch.

    Raises:
        FileExistsError: it does.
    """
    again = config.overwrite or config.resume
    out = claim_folder(config.out, config.checkpoint, *config.data, overwrite=again)
    if not again and (out / STATE_FILE).is_file():
        raise FileExistsError(
            f"out {str(out)!r} holds a run that was cut short ({STATE_FILE}); pass --resume to continue it, "
            "--overwrite to replace it, or name another folder"
        )
    known = (out / STATE_FILE).is_file() or _done(out) is not None
    if config.resume and (out / CONFIG_FILE).exists() and not known:
        raise FileExistsError(
            f"out {str(out)!r} holds a model without a checkpoint to continue from: pass --overwrite to replace it, or "
            "name another folder"
        )


def _done(out: Path) -> dict[str, Any] | None:
    """Return the plan of the fine-tuning that a folder holds completely, or None."""
    try:
        plan = json.loads((out / COMPLETE_FILE).read_text(encoding="utf-8"))["plan"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    complete = all((out / name).is_file() for name in (CONFIG_FILE, WEIGHTS_FILE, REPORT_FILE))
    return plan if complete and isinstance(plan, dict) else None


def _train_classifier(
    config: ClassifierConfig, world: World, device: torch.device, data: PackedSkeletons | None, quiet: bool
) -> dict[str, Any]:
    """As :func:`train_classifier`, into a folder that nobody else writes into."""
    out = Path(config.out)
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
    facts = _facts(config, gathered.split, plan)
    if config.resume and (before := _done(out)) is not None:
        world.wait()  # all have read what is there
        check_plan(before, facts)
        if not quiet:
            print(f"{out} is complete")
        return json.loads((out / REPORT_FILE).read_text(encoding="utf-8"))
    world.wait()
    if world.first:
        (out / COMPLETE_FILE).unlink(missing_ok=True)
    model = start.model.to(device)
    keeper = FitKeeper(
        out,
        facts,
        facts["data"],
        every=config.checkpoint_every,
        resume=config.resume,
        world=world,
        quiet=quiet,
        track=config.track,
    )
    with StopSignals(lambda: _kept(keeper)):
        if recipe is None:
            classifier = linear_classifier(
                model, prepared, train, batch_size=config.batch_size, **config.recipe
            )
            accuracy = accuracy_of(classifier, prepared, test, config.batch_size)
        else:
            show: Any = (
                {} if quiet else {"progress": functools.partial(say, file=sys.stdout), "bar": "finetune"}
            )
            settings = FitSettings(config.precision, config.graph, config.on_nan, world)
            result = finetune(
                model, prepared, (train, test), recipe,
                seed=config.seed, head=plan.weights, settings=settings, keeper=keeper, **show,
            )  # fmt: skip
            classifier, accuracy = result.classifier, result.accuracy
    config = dataclasses.replace(config, resume=False)
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
        "processes": world.size,
        "clips": {"train": int(train.sum()), "test": int(test.sum())},
        "classes": classifier.classes,
        "parameters": classifier.num_parameters(),
        "accuracy": accuracy if test.any() else None,
        "notes": list(gathered.notes),
        "warnings": warnings,
    }
    classifier.body_size = gathered.body_size
    if world.first:
        note_written(out, CONFIG_FILE, WEIGHTS_FILE, REPORT_FILE, COMPLETE_FILE)
        classifier.save_pretrained(out)
        write_text(out / REPORT_FILE, json.dumps(report, indent=2) + "\n")
        mark_complete(out, {"plan": facts})
        keeper.remove()
    world.wait()
    if not quiet:
        tested = (
            f"{accuracy:.1f} % of {report['clips']['test']} test clips"
            if test.any()
            else "nothing was tested"
        )
        print(f"{tested}; the classifier is in {out}")
    return report


def _kept(keeper: FitKeeper) -> str:
    """Say what a signal leaves."""
    if keeper.saved_at:
        return f"{keeper.kept()}; continue with --resume"
    return f"nothing was written into {keeper.folder}"


def _facts(config: ClassifierConfig, split: str | None, plan: _Plan) -> dict[str, Any]:
    """Return what decides the result of a fine-tuning, as JSON gives it back."""
    weights = (find_model(config.checkpoint) / WEIGHTS_FILE).read_bytes()
    facts = {
        "kind": "fine-tuning",
        "checkpoint": hashlib.sha256(weights).hexdigest(),
        "data": plan.fingerprint,
        "train_on": config.train_on,
        "split": split,
        "seed": config.seed,
        "head": plan.head,
        "recipe": config.recipe or None if plan.recipe is None else plan.recipe.decisive(),
    }
    return json.loads(json.dumps(facts))


class _Plan(NamedTuple):
    """What a fine-tuning does.

    Attributes:
        config: the configuration with what was chosen: ``frozen`` is set, ``recipe`` is what differs from the defaults.
        recipe: the complete recipe; None with a frozen encoder.
        weights: what the head begins with; None = fresh ones.
        head: where they come from, in words.
        told: lines for the person who asked.
        fingerprint: of the data.
    """

    config: ClassifierConfig
    recipe: FinetuneConfig | None
    weights: dict[str, torch.Tensor] | None
    head: str
    told: list[str]
    fingerprint: str


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
    return _Plan(config, recipe, weights, head, told, data.fingerprint())


def accuracy_of(
    classifier: ActionClassifier,
    data: PackedSkeletons,
    test: torch.Tensor,
    batch_size: int = 256,
    world: World | None = None,
) -> float:
    """Return the share of the test clips that a classifier names correctly, in percent; NaN where there is none.

    Args:
        classifier: the classifier; the work is done on its device.
        data: packed data, pre-processed for it.
        test: ``(N,)`` bool, the clips to test on, all labelled.
        batch_size: clips at a time.
        world: the processes that share the clips; None = this one alone.
    """
    device = next(classifier.parameters()).device
    data = data.to(device)
    clips = test.to(device).nonzero()[:, 0]
    if not len(clips):
        return math.nan
    batches = ClipBatches(data, classifier.encoder.frames)
    return percent_equal(predict(classifier, batches, clips, batch_size, world), data.labels[clips])


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
    for name in (CONFIG_FILE, WEIGHTS_FILE, REPORT_FILE, *STATE_FILES, METRICS_FILE, COMPLETE_FILE):
        check_writable(folder / name, *files)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_computation(config: Any) -> None:
    """Raise ``ValueError`` for an unknown name of how updates are computed, with the nearest one that there is."""
    check_name("precision", config.precision, PRECISIONS)
    check_name("graph", config.graph, GRAPH)
    check_name("on_nan", config.on_nan, ON_NAN)
    config.track = list(config.track)
    check_names(config.track)
    if config.checkpoint_every < 0:
        raise ValueError(f"checkpoint_every={config.checkpoint_every:g} must be zero or more epochs")
    if config.resume and config.overwrite:
        raise ValueError("resume and overwrite exclude each other: pass one of the two")


def as_sources(data: Any) -> list[str]:
    """Return the names of data files as a list, also of a single one."""
    return [str(item) for item in ([data] if isinstance(data, (str, Path)) else data)]


def check_part(part: str, settings: dict[str, Any], config: Any) -> None:
    """Raise ``ValueError`` for a setting that a dataclass lacks, with the nearest one that it has."""
    known = [item.name for item in dataclasses.fields(config)]
    for name in settings:
        check_name(f"option of {part}", name, known)
