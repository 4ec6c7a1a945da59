#!/usr/bin/env python
"""Train weights that come with the package: model, card and registry entry, in a time that is given.

    python tools/train_weights.py body-small --data ui_prmd=../shared/data/ui_prmd/ui_prmd.npz
    python tools/train_weights.py body-small --data ui_prmd=FILE --minutes 10 --work runs/trial

tools/weights/NAME.yaml says what the model is trained on, and how. The command prepares the data in WORK, times a few
updates, trains as many as fit into the time, probes the encoder on people that it has not seen, and writes
fastamr/weights/NAME/ and the entry in fastamr/weights/registry.json. An interrupted training goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [entry for entry in [str(ROOT)] if entry not in sys.path]

import torch  # noqa: E402

from fastamr.data import PackedSkeletons, preprocess, read, synthetic_actions  # noqa: E402
from fastamr.devices import processor, versions  # noqa: E402
from fastamr.errors import check_name  # noqa: E402
from fastamr.evaluation.evaluate import evaluate  # noqa: E402
from fastamr.evaluation.protocols.config import EvaluateConfig  # noqa: E402
from fastamr.files import write_text  # noqa: E402
from fastamr.models import load_pretrained  # noqa: E402
from fastamr.training import PretrainConfig, pretrain  # noqa: E402
from fastamr.training.config import read_yaml  # noqa: E402
from fastamr.visualization.curves import read_metrics  # noqa: E402
from fastamr.weights import CARD_FILE, WEIGHTS_FILE, read_description, registry  # noqa: E402
from fastamr.weights.card import model_card  # noqa: E402

RECIPES = ROOT / "tools" / "weights"
SPLIT = "official"
TRIED = 12
"""Updates that the time of one is taken from; the first ones, which are slower, are left out."""

SHARE = 0.9
"""Of the time that is left after them for updates, so that a machine that slows down a little is no fault (choice)."""

PROBING = 0.1
"""The share of the whole time, of at most ten minutes, that is kept for the probes (choice)."""

ROWS = {"raw": "raw coordinates", "random": "encoder, not trained", "encoder": "encoder"}
PROBES = {"knn_1": "1-NN", "linear": "linear", "logistic": "logistic"}


@dataclass(frozen=True)
class Recipe:
    """What tools/weights/NAME.yaml says; its head explains the fields."""

    summary: str
    licence: str
    pretrain: dict[str, Any]
    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    generated: dict[str, Any] = field(default_factory=dict)
    evaluate: dict[str, Any] = field(default_factory=dict)
    convert: str | None = None

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Read a recipe.

        Raises:
            FileNotFoundError: there is none.
            ValueError: an unknown field.
        """
        values = read_yaml(path)
        for name in values:
            check_name(f"field of {path}", name, [item.name for item in dataclasses.fields(cls)])
        for name, settings in values.get("sets", {}).items():
            for part in settings:
                check_name(f"field of set {name}", part, ("split", "probes", "about"))
        return cls(**values)


def prepare(recipe: Recipe, files: Mapping[str, str], work: Path) -> tuple[list[str], dict[str, str]]:
    """Write the packed files of the training and of the probes.

    Returns:
        The files to train on; the file of each probe by ``SET: PROBE``.
    """
    training, probes = [], {}
    if recipe.generated:
        # Without a split, so that every clip trains.
        data = dataclasses.replace(synthetic_actions(**recipe.generated), splits={})
        training.append(_packed(data, recipe, work / "generated.safetensors"))
    for name, settings in recipe.sets.items():
        data = read(files[name])
        split = data.split(settings["split"])
        data = dataclasses.replace(data, splits={SPLIT: split})
        training.append(_packed(data, recipe, work / f"{name}.safetensors"))
        for probe, column in settings.get("probes", {}).items():
            file = training[-1]
            if column != "label":
                file = _packed(_labelled(data, column), recipe, work / f"{name}-{probe}.safetensors")
            probes[f"{name}: {probe}"] = file
    return training, probes


def _packed(data: PackedSkeletons, recipe: Recipe, path: Path) -> str:
    steps = [f"convert:layout={recipe.convert}"] if recipe.convert else []
    preprocess(data, steps).save(path)
    return str(path)


def _labelled(data: PackedSkeletons, column: str) -> PackedSkeletons:
    """Return the data with a column's values in the place of the labels."""
    check_name("column of the data", column, data.columns)
    values, labels = data.columns[column].to(torch.int64).unique(return_inverse=True)
    return dataclasses.replace(
        data, labels=labels, label_names=tuple(f"{column} {value}" for value in values.tolist())
    )


def seconds_an_update(settings: Mapping[str, Any]) -> float:
    """Return what an update takes here, by a short run in a folder that is removed.

    Raises:
        ValueError: the weights would be too large for the package.
    """
    with tempfile.TemporaryDirectory(prefix="train-weights-") as folder:
        config = PretrainConfig.from_dict({**settings, "out": folder, "updates": TRIED, "log_every": 1})
        pretrain(config, quiet=True)
        size = (Path(folder) / WEIGHTS_FILE).stat().st_size
        if size > registry.MOST_BYTES:
            raise ValueError(
                f"the weights would have {size:,} bytes, at most {registry.MOST_BYTES:,} are shipped: take a smaller "
                "width or depth"
            )
        seconds = [record["seconds"] for record in read_metrics(folder)["train"]]
    half = len(seconds) // 2
    return (seconds[-1] - seconds[half - 1]) / (len(seconds) - half)


def train(recipe: Recipe, files: Sequence[str], work: Path, deadline: float, say: Any = print) -> Path:
    """Pre-train until a time of :func:`time.monotonic`, and return the run's folder."""
    run, plan = work / "run", work / "plan.json"
    settings: dict[str, Any] = {
        "split": SPLIT if recipe.sets else None, "tensorboard": False, "checkpoint_every": 1e6,
        **recipe.pretrain, "data": list(files),
    }  # fmt: skip
    if plan.is_file() and run.is_dir():
        updates = json.loads(plan.read_text(encoding="utf-8"))["updates"]
        say(f"{run} was begun with {updates} updates and goes on; remove {work} to begin anew")
    else:
        seconds = seconds_an_update(settings)
        updates = max(1, int(SHARE * max(0.0, deadline - time.monotonic()) / seconds))
        say(f"an update takes {seconds * 1e3:.0f} ms: {updates} updates")
        write_text(plan, json.dumps({"updates": updates}) + "\n")
    config = PretrainConfig.from_dict({**settings, "out": str(run), "updates": updates, "resume": "auto"})
    return pretrain(config)


def probe(recipe: Recipe, run: Path, files: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return the rows of the card's table: each probe of coordinates, of the untrained and of the trained encoder."""
    rows: list[tuple[str, ...]] = [("probe", "features", *PROBES.values())]
    for name, file in files.items():
        settings: dict[str, Any] = {"cache": False, **recipe.evaluate}
        out = run.parent / f"{Path(file).stem}.json"
        report = evaluate(EvaluateConfig(str(run), [file], split=SPLIT, out=str(out), **settings), quiet=True)
        for row, title in ROWS.items():
            scores = report["results"][row]
            cells = (f"{scores[one]['accuracy']:.1f}" if scores.get(one) else "-" for one in PROBES)
            rows.append((name, title, *cells))
    return rows


def release(
    name: str, recipe: Recipe, run: Path, figures: Sequence[Sequence[str]], command: str
) -> registry.Shipped:
    """Write the model's folder in the package, its card and its entry in the registry."""
    folder = registry.HOME / registry.check_shipped_name(name)
    model = load_pretrained(run)
    model.save_pretrained(folder)
    summary = read_metrics(run)["summary"][-1]
    parameters = sum(one.numel() for one in model.parameters())
    used = ", ".join(f"{package} {version}" for package, version in versions().items())
    about = [settings["about"].strip() for settings in recipe.sets.values()]
    if recipe.generated:
        about.insert(0, "Generated motion (`fastamr.data.synthetic_actions`), free of terms.")
    sections = {
        "Data and terms": "\n".join(f"- {text}" for text in about)
        + f"\n\nThe weights are under {recipe.licence}.",
        "Training": f"```bash\n{command}\n```\n\n{summary['updates']} updates ({summary['epochs']:.1f} epochs), "
        f"{summary['seconds'] / 60:.1f} minutes of updates with OMP_NUM_THREADS={torch.get_num_threads()} "
        f"({processor()}), {parameters:,} parameters; {used}. The recipe is `tools/weights/{name}.yaml`.",
        "Limits": "Trained on single people who are seen from the front, indoors, in whole; it knows no hands and no "
        "faces. The figures are accuracies in percent on people that it was not trained on.",
    }
    card = model_card(
        name, read_description(folder), folder, licence=recipe.licence, sections=sections, figures=figures
    )
    write_text(folder / CARD_FILE, card)
    terms = " ".join(" ".join(text.split()) for text in about)
    return registry.register_weights(name, summary=recipe.summary, licence=recipe.licence, terms=terms)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", help="of the model; tools/weights/NAME.yaml is its recipe")
    parser.add_argument(
        "--data", nargs="*", default=[], metavar="SET=FILE", help="the file of each set of the recipe"
    )
    parser.add_argument("--minutes", type=float, default=180.0, help="for all: data, training and probes")
    parser.add_argument("--recipe", type=Path, help="another recipe")
    parser.add_argument("--work", type=Path, help="folder for data and run; by default runs/weights-NAME")
    return parser.parse_args(argv)


def sources(recipe: Recipe, given: Sequence[str]) -> dict[str, str]:
    """Return the file of each set.

    Raises:
        ValueError: a set of the recipe has none, or none of the recipe's sets has the name.
        FileNotFoundError: there is no such file.
    """
    files = {}
    for word in given:
        name, _, file = word.partition("=")
        check_name("set", name, recipe.sets)
        if not Path(file).exists():
            raise FileNotFoundError(f"--data {word}: no file {file}")
        files[name] = file
    missing = [name for name in recipe.sets if name not in files]
    if missing:
        raise ValueError(f"no file for {', '.join(missing)}: pass --data {missing[0]}=FILE")
    return files


def main(argv: Sequence[str] | None = None) -> int:
    """Train, probe and write; 0 done, 1 an error, 130 interrupted."""
    given = parse_arguments(argv)
    started = time.monotonic()
    deadline = started + 60 * given.minutes - min(600.0, PROBING * 60 * given.minutes)
    try:
        registry.check_shipped_name(given.name)
        recipe = Recipe.load(given.recipe or RECIPES / f"{given.name}.yaml")
        files = sources(recipe, given.data)
        work = given.work or ROOT / "runs" / f"weights-{given.name}"
        work.mkdir(parents=True, exist_ok=True)
        training, probes = prepare(recipe, files, work)
        run = train(recipe, training, work, deadline)
        figures = probe(recipe, run, probes)
        # Names of files only: where they lay is nobody's business.
        words = ["python", "tools/train_weights.py", given.name]
        words += ["--data", *(f"{name}={Path(file).name}" for name, file in files.items())] if files else []
        command = shlex.join([*words, "--minutes", f"{given.minutes:g}"])
        entry = release(given.name, recipe, run, figures, command)
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    for row in figures:
        print("  ".join(row))
    print(f"{entry.name}: {entry.bytes / 1e6:.1f} MB in {entry.folder}, registered")
    return 0


if __name__ == "__main__":
    sys.exit(main())
