"""``fastamr distill``: a small student that learns from a classifier, beside one that learns without it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.joining import Gathered
from ..data.to_body import common_joints, source_layout
from ..devices import deterministic
from ..distributed import World
from ..documents import load_json_text
from ..features.clip_batches import ClipBatches
from ..features.run_settings import run_steps
from ..features.splits import describe_halves, untrained_classes
from ..files import write_text
from ..folders import FolderLock
from ..models import ActionClassifier, load_pretrained
from ..models.base import CONFIG_FILE, WEIGHTS_FILE, read_description
from ..progress import say
from ..tracking import check_trackers
from ..training.interrupt import StopSignals
from ..weights import find_model
from .classifier import accuracy_of, claim_folder
from .distill_config import DistillConfig
from .distill_loss import Teaching, reading
from .distill_report import build_report, format_report
from .fitting.classifier_step import FitSettings
from .fitting.fit import fit_classifier
from .fitting.keeping import FitKeeper, check_plan
from .gathering import TaughtClips, gather_data, labelled_halves, taught_clips
from .gathering import tell as show
from .linear_head import linear_classifier
from .training_data import describe_training

if TYPE_CHECKING:
    from ..data import PackedSkeletons

REPORT_FILE = "distill.json"
PLAN_FILE = "plan.json"
RESULT_FILE = "result.json"
TEACHER_FOLDER = "teacher"
# The student with its teacher, and the same student, recipe and seed with the labels alone.
KINDS = ("distilled", "labels")


def distill(
    config: DistillConfig,
    *,
    data: PackedSkeletons | None = None,
    unlabelled: Sequence[PackedSkeletons] | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train students with and without the teacher, compare all three, and save the first student.

    The folder then holds the student as ``ActionClassifier.from_pretrained`` loads it, ``distill.json``, and in
    ``students/KIND-SEED`` every student with its result: with ``resume`` those that are there are not trained again.
    A student that was cut short goes on from its checkpoint, to the bit. A teacher that was an encoder is kept with its
    head in ``teacher``. Started by torchrun, the processes share each batch; the first one alone writes.

    Args:
        config: the configuration.
        data: packed data in memory instead of the files that ``config.data`` names.
        unlabelled: data sets in memory, one for each file that ``config.unlabelled_data`` names, instead of these.
        quiet: do not print.

    Returns:
        What ``distill.json`` holds, see :func:`fastamr.finetuning.distill_report.build_report`, and ``notes`` and
        ``warnings``; of several processes the first one gets it, and the others an empty one.

    Raises:
        FileExistsError: the folder holds a distillation or model, and neither ``resume`` nor ``overwrite`` is set.
        FileNotFoundError: no model in the teacher's folder, or no such data file.
        ValueError: an unknown split, no labels, a teacher of other classes, data that it does not fit, or a resumed
            folder that was begun with other settings; a batch too small for the processes.
        FloatingPointError: a student's loss is not finite; its last checkpoint is kept.
        BlockingIOError: another process writes into the folder.
        ConnectionError: another process has ended.
        KeyboardInterrupt: stopped by a signal; students that are finished are kept, the one that trains is saved.
    """
    world = World.from_environment()
    device = world.pick_device(config.device)
    if world.first:
        check_trackers(config.track)
    out = _claim(config) if world.first else Path(config.out)
    lock = FolderLock(out, "fastamr distill") if world.first else contextlib.nullcontext()
    with lock, deterministic(config.deterministic, config.device), world.joined(device):
        return _distill(config, out, (data, unlabelled), device, world, quiet or not world.first)


def _distill(
    config: DistillConfig,
    out: Path,
    given: tuple[PackedSkeletons | None, Sequence[PackedSkeletons] | None],
    device: torch.device,
    world: World,
    quiet: bool,
) -> dict[str, Any]:
    """As :func:`distill`, into a folder that nobody else writes into."""
    teacher, gathered, steps, teacher_folder = _teacher(config, out, given[0], device, world)
    prepared = gathered.data
    halves = labelled_halves(config, gathered)
    taught = taught_clips(teacher, config, steps, gathered, halves, given[1])
    warnings = [*gathered.warnings, *untrained_classes(prepared, halves), *taught.warnings]
    notes = [*gathered.notes, *taught.notes]
    if not quiet:
        show(taught.line or describe_halves(prepared, gathered.split, halves), notes, warnings)
    _check_classes(teacher, prepared, halves[0])
    plan = _plan(config, prepared, taught)
    world.agree({"plan": plan})
    if world.first:
        _check_plan(config, out, plan)
    world.wait()
    tell = None if quiet else functools.partial(say, file=sys.stdout)
    with StopSignals(lambda: f"finished students are kept in {out}; continue with --resume"):
        batch_size = config.student_recipe().batch_size
        teacher_accuracy = accuracy_of(teacher, prepared, halves[1], batch_size, world)
        runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        for seed in config.seeds:
            for kind in KINDS:
                folder = out / "students" / f"{kind}-{seed}"
                result = _finished(folder)
                world.wait()  # all have read what is there
                if result is None:
                    result = _train(
                        config, kind, seed, teacher, gathered, taught, halves[1], folder, tell, world, plan
                    )  # fmt: skip
                runs[kind].append(result)
                if tell is not None:
                    tell(f"{kind}, seed {seed}: {result['accuracy']:.1f} %")
    if not world.first:
        world.wait()
        return {}
    student = ActionClassifier.from_pretrained(out / "students" / f"{KINDS[0]}-{config.seeds[0]}")
    student.save_pretrained(out)
    remarks = {"notes": notes, "warnings": warnings}
    report = remarks | build_report(
        config,
        prepared.describe(),
        {
            "train": len(taught.train),
            "test": int(halves[1].sum()),
            **({} if taught.unlabelled is None else {"unlabelled": len(taught.unlabelled.clips)}),
        },
        teacher=(teacher.cpu(), teacher_folder, teacher_accuracy),
        student=(student, out),
        runs=runs,
    )
    write_text(out / REPORT_FILE, json.dumps(report, indent=2) + "\n")
    world.wait()
    if not quiet:
        print(
            f"\n{format_report(report)}\n\nthe student of seed {config.seeds[0]} and {REPORT_FILE} are in {out}"
        )
    return report


def _teacher(
    config: DistillConfig, out: Path, data: PackedSkeletons | None, device: torch.device, world: World
) -> tuple[ActionClassifier, Gathered, list[Any], Path]:
    """Return the teacher on its device, the data pre-processed for it, by which steps, and the folder that holds it."""
    if read_description(config.teacher)["model"] == ActionClassifier.name:
        classifier = ActionClassifier.from_pretrained(config.teacher)
        gathered = gather_data(classifier, config, classifier.steps, data)
        if classifier.source is not None:  # perhaps of other clips than these
            classifier.source_joints = common_joints(gathered.data)
        return classifier.to(device), gathered, list(classifier.steps), find_model(config.teacher)
    encoder = load_pretrained(config.teacher)
    steps = run_steps(config.teacher)
    gathered = gather_data(encoder, config, steps, data)
    folder = out / TEACHER_FOLDER
    known = config.resume and (folder / CONFIG_FILE).is_file()
    world.wait()  # all have looked
    if known:
        return ActionClassifier.from_pretrained(folder).to(device), gathered, steps, folder
    train, _ = labelled_halves(config, gathered)
    classifier = linear_classifier(encoder.to(device), gathered.data, train, batch_size=config.batch_size)
    classifier.body_size = gathered.body_size
    world.share_tensors([*classifier.parameters(), *classifier.buffers()])
    if world.first:
        classifier.save_pretrained(folder)
    return classifier, gathered, steps, folder


def _check_classes(teacher: ActionClassifier, data: PackedSkeletons, train: Tensor) -> None:
    """Raise unless the teacher knows the classes of the training clips."""
    highest = int(data.labels[train].max())
    if highest >= teacher.classes:
        raise ValueError(
            f"the teacher knows {teacher.classes} classes, the data has class {highest}: "
            "distil on the data set that the teacher was trained on"
        )
    names = data.label_names[: teacher.classes]
    if teacher.class_names and names and tuple(names) != teacher.class_names[: len(names)]:
        wrong = next(place for place, name in enumerate(names) if name != teacher.class_names[place])
        raise ValueError(
            f"class {wrong} is {names[wrong]!r} in the data and {teacher.class_names[wrong]!r} for the teacher: "
            "distil on the data set that the teacher was trained on"
        )


def _claim(config: DistillConfig) -> Path:
    """Return the folder of the distillation; what it holds may only be touched with ``resume`` or ``overwrite``."""
    again = config.overwrite or config.resume
    out = claim_folder(config.out, config.teacher, *config.data, *config.unlabelled_data, overwrite=again)
    if (out / PLAN_FILE).is_file() and not (config.overwrite or config.resume):
        raise FileExistsError(
            f"out {str(out)!r} already holds a distillation; pass --resume to continue it, --overwrite to replace it, "
            "or name another folder"
        )
    mine = [] if (out / PLAN_FILE).is_file() else [path for path in _results(out) if path.is_file()]
    if mine:
        raise FileExistsError(
            f"{mine[0]} is a result without the {PLAN_FILE} of a distillation, and would be replaced: name another "
            "folder"
        )
    return out


def _results(out: Path) -> list[Path]:
    """Return where the results of students lie that were begun in a folder, by the names that they are given."""
    found = [path for kind in KINDS for path in out.glob(f"students/{kind}-*/{RESULT_FILE}")]
    return [path for path in found if path.parent.name.rpartition("-")[2].isdecimal()]


def _plan(config: DistillConfig, data: PackedSkeletons, taught: TaughtClips) -> dict[str, Any]:
    """Return what decides the students' results; what earlier distillations could not ask for is None by default."""
    weights = (find_model(config.teacher) / WEIGHTS_FILE).read_bytes()
    plan = {
        "split": config.split,
        "temperature": config.temperature,
        "soft": config.soft,
        "feature": config.feature,
        "student": dataclasses.asdict(config.student_config()),
        "recipe": config.student_recipe().decisive(),
        "data": data.fingerprint(),
        "labels": None if config.label_share == 1 else [config.label_share, config.label_seed],
        "unlabelled": None
        if taught.unlabelled is None
        else [taught.fingerprint, config.unlabelled_rest, config.unlabelled_share],
        "teacher": hashlib.sha256(weights).hexdigest(),
    }
    return json.loads(json.dumps(plan))


def _check_plan(config: DistillConfig, out: Path, plan: dict[str, Any]) -> None:
    """Keep the plan in the folder; refuse to mix the results of two plans.

    Raises:
        ValueError: the folder was begun with other settings, or its plan is damaged.
    """
    path = out / PLAN_FILE
    if path.is_file() and config.resume:
        try:
            before = load_json_text(path)
            if not isinstance(before, dict):
                raise ValueError("no mapping")
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}): start again with --overwrite") from None
        check_plan(before, plan)
        return
    for result in _results(out):
        result.unlink()
    write_text(path, json.dumps(plan, indent=2) + "\n")


def _finished(folder: Path) -> dict[str, Any] | None:
    """Return the result of a student that is done, or None."""
    path = folder / RESULT_FILE
    if not path.is_file():
        return None
    try:
        return load_json_text(path)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): remove it, and the student is trained again"
        ) from None


def _train(
    config: DistillConfig,
    kind: str,
    seed: int,
    teacher: ActionClassifier,
    gathered: Gathered,
    taught: TaughtClips,
    test: Tensor,
    folder: Path,
    tell: Callable[[str], None] | None,
    world: World,
    plan: dict[str, Any],
) -> dict[str, Any]:
    """Train one student, save it, and then its result, which marks it as done."""
    recipe, name = config.student_recipe(), f"{kind}, seed {seed}"
    device = next(teacher.parameters()).device
    teaches = kind == KINDS[0]
    data = gathered.data.to(device)
    learnt = taught.data.to(device) if teaches else data
    clips = taught.train.to(device)
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        student = ActionClassifier(
            config.student_config().build(teacher.encoder),
            teacher.classes,
            **recipe.head(),
            class_names=teacher.class_names,
            steps=teacher.steps,
            training_data=describe_training(data, clips),
            source=source_layout(data),
        ).to(device)
        objective = None
        if teaches:
            objective = Teaching(
                student,
                teacher,
                unlabelled=taught.unlabelled is not None,
                temperature=config.temperature,
                soft=config.soft,
                feature=config.feature,
            ).to(device)
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"kind": kind, "seed": seed, **plan}
        keeper = FitKeeper(
            folder, facts, plan["data"],
            every=config.checkpoint_every, resume=config.resume, world=world, quiet=tell is None,
            track=config.track, command="distill",
        )  # fmt: skip
        with reading(learnt if teaches and config.unlabelled_data else None, student, teacher):
            loss = fit_classifier(
                student,
                ClipBatches(learnt, student.encoder.frames),
                clips,
                taught.labels if teaches else data.labels,
                recipe,
                seed=seed,
                objective=objective,
                settings=FitSettings(config.precision, config.graph, config.on_nan, world),
                keeper=keeper,
                progress=None if tell is None else lambda text: tell(f"{name}: {text}"),
                bar="" if tell is None else name,
                unlabelled=taught.unlabelled if teaches else None,
            )
    result = {
        "seed": seed,
        "accuracy": accuracy_of(student, data, test, recipe.batch_size, world),
        "train_loss": loss,
        "seconds": time.perf_counter() - start,
    }
    student.body_size = gathered.body_size
    if world.first:
        student.save_pretrained(folder)
        write_text(folder / RESULT_FILE, json.dumps(result, indent=2) + "\n")
        keeper.remove()
    world.wait()
    return result
