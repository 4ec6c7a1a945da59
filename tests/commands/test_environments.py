"""Commands where something of the surroundings is missing or odd: they work, or end with one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fastamr import cli, progress
from fastamr.data import synthetic_actions
from fastamr.data.packed.dataset import PackedSkeletons
from fastamr.files import temporary_folder
from fastamr.native import cache, load

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="descriptors and signals of POSIX")
# Runs commands one after the other; a line of JSON each with the exit code and how many lines of errors there were.
_DRIVER = """
import json, os, sys
from fastamr import cli
for words in json.loads(os.environ["WORDS"]):
    with open(os.environ["TOLD"] + ".err", "w+b") as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        code = cli.main(words)
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        file.seek(0)
        told = file.read().decode("utf-8", "replace")
    with open(os.environ["TOLD"], "a", encoding="utf-8") as file:
        file.write(json.dumps([words[0], code, told]) + "\\n")
"""
_SIZES = [
    f"--model.{name}={value}"
    for name, value in {
        "frames": 8,
        "width": 16,
        "depth": 1,
        "heads": 1,
        "decoder-width": 16,
        "decoder-depth": 1,
    }.items()
]
PRETRAIN = [
    *"pretrain --model mamp --min-frames 8 --updates 2 --warmup-epochs 0 --batch-size 4".split(),
    *_SIZES,
]
PRETRAIN += ["--model.decoder-heads=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed data, a table, a run and a classifier."""
    folder = tmp_path_factory.mktemp("surroundings")
    data = str(folder / "data.safetensors")
    synthetic_actions(30, seed=0, frames=(16, 24)).save(data)
    rows = "".join(f"{frame},{joint},{joint + frame},2\n" for frame in range(20) for joint in range(17))
    (folder / "table.csv").write_text(f"frame,joint,x,y\n{rows}")
    assert cli.main([*PRETRAIN, "--data", data, "--out", str(folder / "run")]) == 0
    recipe = ["--recipe.epochs", "1", "--recipe.min-frames", "8", "--recipe.hidden", "0"]
    words = [
        "finetune",
        "--checkpoint",
        str(folder / "run"),
        "--data",
        data,
        "--out",
        str(folder / "classifier"),
    ]
    assert cli.main([*words, *recipe]) == 0
    return folder


def commands(folder: Path, out: str) -> list[list[str]]:
    data, table, run, classifier = (
        str(folder / name) for name in ("data.safetensors", "table.csv", "run", "classifier")
    )
    return [
        ["info"],
        ["cache"],
        ["layouts"],
        ["check", data, "--html", f"{out}/page.html", "--json", f"{out}/report.json"],
        ["import", table, f"{out}/imported.safetensors"],
        ["convert", data, f"{out}/converted.safetensors", "--preprocess", "center"],
        ["show", data, "--out", f"{out}/clip.gif"],
        [*PRETRAIN, "--data", data, "--out", f"{out}/run"],
        ["evaluate", "--checkpoint", f"{out}/run", "--data", data, "--protocol", "knn"],
        ["table", f"{out}/run"],
        ["predict", data, "--model", classifier],
        ["predict", data, "--model", classifier, "--out", f"{out}/answers.txt"],
        ["plot", run, "--out", f"{out}/plots"],
    ]


def carried_out(
    words: Sequence[Sequence[str]], tmp_path: Path, shell: str = "", **environment: str | None
) -> dict[str, tuple[Any, str]]:
    """Return exit code and complaints of each command, run in a process of its own surroundings."""
    told = tmp_path / "told"
    set_here: Mapping[str, str | None] = {
        "PYTHONPATH": str(ROOT),
        "WORDS": json.dumps(words),
        "TOLD": str(told),
        **environment,
    }
    merged = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        **{name: value for name, value in set_here.items() if value is not None},
    }
    for name in [name for name, value in set_here.items() if value is None]:
        merged.pop(name, None)
    line = (
        f'{shell or "exec"} "$0" -c "$1"' if "exec" in shell or not shell else f'{shell}\nexec "$0" -c "$1"'
    )
    subprocess.run(
        ["sh", "-c", line, sys.executable, _DRIVER],
        env=merged,
        cwd=tmp_path,
        check=False,
        stdout=subprocess.DEVNULL,
    )
    found = [json.loads(row) for row in told.read_text(encoding="utf-8").splitlines()]
    assert len(found) == len(words), "a command ended the process"
    return {f"{place} {name}": (code, text) for place, (name, code, text) in enumerate(found)}
