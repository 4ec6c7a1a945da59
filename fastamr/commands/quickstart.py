"""``fastamr quickstart FOLDER --out DIR``: from a folder of clips, a folder a class, to a tested classifier.

It carries out other commands, each of which it prints as one would type it.
"""

from __future__ import annotations

import importlib.util
import json
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cli import main
from ..errors import UsageError
from .options import FLAG, CommandParser, Given, add_reading, reading

if TYPE_CHECKING:
    from ..data import PackedSkeletons

SPLIT = "mine"
MODEL: dict[str, Any] = {
    "frames": 32,
    "width": 64,
    "depth": 3,
    "heads": 4,
    "decoder_width": 64,
    "decoder_depth": 1,
    "decoder_heads": 4,
    "target_patches": 2,
    "guidance_windows": [4, 8],
    "stride": 4,
}
"""A model that trains in a minute on two cores (choice, as for ``fastamr demo``)."""

BATCH = 32
# Updates of the small pre-training: what suits a hundred clips (see docs/own_data.md), and some epochs of more.
_UPDATES, _MOST_UPDATES, _EPOCHS = 1200, 4000, 40
_TREE = "expected a folder a class: FOLDER/wave/0001.csv, FOLDER/squat/0001.csv, ... (or --labels FILE.csv)"


def run(words: list[str]) -> None:
    """Carry out the command."""
    given = _parser().parse(words)
    out = Path(given.out)
    _check(Path(given.folder), out, bool(given.overwrite))
    packed = str(out / "data.safetensors")
    before = _loaded(packed)
    data = _import(given, Path(packed))
    _check_classes(data, Path(given.folder))
    split = _split(given, data, packed)
    checkpoint = given.checkpoint or _pretrain(given, out, split, before)
    if given.checkpoint:
        packed = _convert(given.checkpoint, packed)
    device = ["--device", given.device]
    used = ["--checkpoint", checkpoint, "--data", packed, "--split", split]
    again = ["--overwrite"] if given.overwrite else []
    epochs = ["--recipe.epochs", str(given.epochs)] if given.epochs else []
    _step(
        "finetune",
        *used,
        "--out",
        str(out / "classifier"),
        "--seed",
        str(given.seed),
        *device,
        *epochs,
        *again,
    )
    _step("evaluate", *used, "--out", str(out / "evaluation.json"), *device)
    if importlib.util.find_spec("matplotlib") is None:
        print("\nno picture of the confusion: pip install 'fastamr[viz]'")
    else:
        pictures = ["--confusion", "classifier", "--data", packed, "--split", split, "--out", str(out)]
        _step("plot", str(out / "classifier"), *pictures)
    _conclude(out)


def _step(command: str, *words: str) -> None:
    """Print a command and carry it out; its failure ends the whole."""
    print(f"\n$ {shlex.join(['fastamr', command, *words])}", flush=True)
    code = main([command, *words])
    if code:
        raise SystemExit(code)


def _check(folder: Path, out: Path, overwrite: bool) -> None:
    """Refuse what would fail, or harm what is there, before anything is read."""
    if not folder.exists():
        raise FileNotFoundError(f"no folder {folder}; {_TREE}")
    if folder.resolve() in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"--out {out} lies in {folder}, which is read; name a folder outside")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    if (out / "classifier" / "config.json").exists() and not overwrite:
        raise FileExistsError(
            f"{out} already holds a classifier; pass --overwrite to make it anew, or name another folder"
        )


def _import(given: Given, packed: Path) -> PackedSkeletons:
    words = [given.folder, str(packed), "--labels", given.labels]
    for name, value in reading(given).items():
        option = name.replace("_", "-")
        if value is not None:
            words += (
                [f"--{option}" if value else f"--no-{option}"]
                if isinstance(value, bool)
                else [f"--{option}", str(value)]
            )
    _step("import", *words)
    from ..data import PackedSkeletons

    return PackedSkeletons.load(packed)


def _check_classes(data: PackedSkeletons, folder: Path) -> None:
    """Refuse data that no classifier can be trained and tested on."""
    counts = [count for count in data.labels[data.labels >= 0].bincount().tolist() if count]
    if len(counts) < 2:
        raise ValueError(
            f"{folder}: all {sum(counts)} clips are of one class, a classifier needs two; {_TREE}"
        )
    if max(counts) < 2:
        raise ValueError(
            f"{folder}: each of the {len(counts)} classes has one clip; at least two are needed, one to train on "
            f"and one to test on, and ten or more to learn from"
        )


def _split(given: Given, data: PackedSkeletons, packed: str) -> str:
    """Return the name of the split: one that the data brings along, unless a way is asked for, or a new one."""
    if data.splits and given.by is None:
        name = "official" if "official" in data.splits else next(iter(data.splits))
        print(f"\nnote: split {name!r} comes with the data and is used; --by random makes another")
        return name
    way = ["--by", given.by or "random", "--test", f"{given.test:g}", "--seed", str(given.seed)]
    _step("split", packed, *way, "--name", SPLIT)
    return SPLIT


def _loaded(packed: str) -> PackedSkeletons | None:
    """Return the data of an earlier run that is in the way; None where there is none, or no sound one."""
    from ..data import PackedSkeletons

    try:
        return PackedSkeletons.load(packed)
    except (OSError, ValueError):
        return None


def _trains_alike(one: PackedSkeletons, two: PackedSkeletons, split: str) -> bool:
    """Tell whether two data sets have the same training clips."""
    if split not in one.splits or one.names != two.names or one.coords.shape != two.coords.shape:
        return False
    same = bool((one.splits[split].train == two.splits[split].train).all())
    return same and bool((one.coords == two.coords).all())


def _pretrain(given: Given, out: Path, split: str, before: PackedSkeletons | None) -> str:
    """Pre-train a small model on the training clips, and return its folder; ``before`` is what was there before."""
    from ..data import PackedSkeletons

    packed = str(out / "data.safetensors")
    data = PackedSkeletons.load(packed)
    anew = given.overwrite
    if not anew and before is not None and not _trains_alike(before, data, split):
        print(f"\nnote: {out} was begun with other training clips; its pre-training begins anew")
        anew = True
    clips = int(data.split(split).train[data.body_clip].sum())
    batch = min(BATCH, clips)
    updates = min(_MOST_UPDATES, max(_UPDATES, _EPOCHS * math.ceil(clips / batch)))
    updates = given.updates or updates
    seconds = updates * _seconds_an_update(data, batch)
    print(
        f"\npre-training: {updates} updates of a small model, about {seconds:.0f} s; --checkpoint RUN uses another"
    )
    lengths = data.clip_frames()
    words = ["--data", packed, "--split", split, "--out", str(out / "pretrained"), "--model", "amr"]
    for name, value in MODEL.items():
        words += [
            f"--model.{name.replace('_', '-')}",
            *map(str, value if isinstance(value, list) else [value]),
        ]
    words += [
        "--preprocess",
        *_steps(data),
        "--updates",
        str(updates),
        "--batch-size",
        str(batch),
        "--lr",
        "0.002",
    ]
    words += ["--min-frames", str(max(8, min(MODEL["frames"], int(lengths.median()))))]
    words += ["--seed", str(given.seed), "--device", given.device, "--no-tensorboard"]
    words += ["--overwrite"] if anew else ["--resume", "auto"]
    _step("pretrain", *words)
    return str(out / "pretrained")


def _seconds_an_update(data: PackedSkeletons, batch: int) -> float:
    """Return what an update takes here on the CPU, as measured on a few."""
    import torch

    from ..demo import step_seconds
    from ..models import build_model

    with torch.random.fork_rng(devices=[]):
        model = build_model("amr", **MODEL, layout=data.layout.to_dict(), channels=data.coords.shape[-1])
        clips = torch.randn(batch, MODEL["frames"], data.layout.num_joints, data.coords.shape[-1])
        return step_seconds(model, clips, 3)


def _steps(data: PackedSkeletons) -> list[str]:
    """Return the pre-processing that suits the data: of one size, centred, turned to the front, of one frame rate."""
    from ..data import preprocess

    wanted = ["flip", "center"] if data.coords.shape[-1] == 2 else ["center", "align_body"]
    wanted.append("scale:unit=torso")
    rates = data.fps[data.fps > 0].unique()
    if len(rates) > 1 and bool((data.fps > 0).all()):
        wanted.append(f"resample:fps={float(data.fps.median()):g}")
    elif len(rates):
        lacking = int((~(data.fps > 0)).sum())
        if lacking:
            print(
                f"note: the frame rate of {lacking} clips is not known and taken as that of the others; --fps states it"
            )
    else:
        print(
            "note: the frame rate of the clips is not known; --fps states it, so that other rates can be predicted"
        )
    done: list[str] = []
    for step in wanted:
        try:
            preprocess(data.select([0]), [*done, step])
            done.append(step)
        except ValueError as error:
            print(f"note: step {step.partition(':')[0]} is left out: {error}")
    return done


def _convert(checkpoint: str, packed: str) -> str:
    """Map the data to the layout of a checkpoint, and return the file that has it."""
    from ..data import PackedSkeletons
    from ..models import load_pretrained

    model, data = load_pretrained(checkpoint), PackedSkeletons.load(packed)
    channels = data.coords.shape[-1]
    if model.config.channels != channels:
        raise ValueError(
            f"--checkpoint {checkpoint} is for {model.config.channels} channels, the data has {channels}, and no step "
            "makes one of the other: name another checkpoint, or omit it"
        )
    if model.layout == data.layout:
        return packed
    converted = str(Path(packed).with_name(f"data.{model.layout.name}.safetensors"))
    _step("convert", packed, converted, "--layout", model.layout.name)
    return converted


def _conclude(out: Path) -> None:
    """Say what was reached, beside what the raw coordinates reach, and how to use it."""
    classifier = json.loads((out / "classifier" / "classifier.json").read_text(encoding="utf-8"))
    rows = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))["results"]
    raw = {name: scores["accuracy"] for name, scores in rows["raw"].items() if scores}
    best = max(raw, key=lambda name: raw[name])
    tested = classifier["clips"]["test"]
    own = classifier["accuracy"]
    print(
        f"\nclassifier: {own:.1f} % of {tested} test clips (one clip is {100 / tested:.1f} %), trained on "
        f"{classifier['clips']['train']}; raw coordinates: {raw[best]:.1f} % ({best}), chance: "
        f"{100 / classifier['classes']:.1f} %"
    )
    if own <= raw[best]:
        print(
            "the classifier is no better than raw coordinates: more clips, or --checkpoint with a model that was "
            "pre-trained on more motion, may help"
        )
    words = shlex.join(["fastamr", "predict", "FILE", "--model", str(out / "classifier")])
    print(f"name the actions of a new file with:\n  {words}")


def _parser() -> CommandParser:
    text = "Make a classifier of one's own clips: import, split, features, training, test; every command is shown."
    parser = CommandParser("quickstart", "FOLDER --out DIR", text, epilog=f"{_TREE[0].upper()}{_TREE[1:]}.")
    parser.add_argument("folder", metavar="FOLDER", help="clips in any format that fastamr import reads")
    add = parser.add_argument_group("what is made").add_argument
    add("--out", required=True, metavar="DIR", help="the folder for data, models and pictures")
    add(
        "--checkpoint",
        metavar="RUN",
        help="a pre-trained model: folder, shipped model, or owner/name of the Hugging Face Hub; by default a small "
        "one is trained on the clips",
    )
    add("--labels", default="folder", metavar="folder|FILE", help="the clips' classes, as for fastamr import")
    add(
        "--by",
        metavar="WAY",
        help="what stays on one side, as for fastamr split; by default random, or the split that the data brings along",
    )
    add("--test", type=float, default=0.2, metavar="SHARE", help="of test clips")
    add("--seed", type=int, default=0, help="of split and training")
    add("--device", default="auto", metavar="NAME", help="auto, cpu or cuda")
    add("--overwrite", action=FLAG, help="make anew what DIR holds; without it an interrupted run continues")
    add_reading(parser.more("how the files are read"))
    add = parser.more("training").add_argument
    add("--updates", type=int, metavar="N", help="of the small pre-training; by default 1200 or more")
    add("--epochs", type=int, metavar="N", help="of the classifier; by default as fastamr finetune chooses")
    return parser
