"""Every block of code of the pages runs: Python as it stands, shell commands with options that make them small.

A command that is not run stands in NOT_RUN with its reason; one of fastamr is parsed all the same, so an option that
does not exist fails here. Blocks marked ``text`` show output or a formula.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from fastamr.cli import main
from fastamr.commands.options import CommandParser
from fastamr.data import PackedSkeletons, synthetic_actions
from fastamr.models import MODELS
from fastamr.training import PretrainConfig

from .pages import ALL_BLOCKS, ALL_COMMANDS, PAGES, ROOT, Command, blocks, commands, read
from .workshop import prepare_page

LANGUAGES = ("python", "sh", "yaml", "text")

# Beginnings of commands that no test runs, and why.
NOT_RUN = {
    "make": "builds environments or runs the whole suite; the target must exist",
    "pytest": "runs tests or measures; the paths must exist",
    "python -m pytest": "runs tests",
    ". .venv/bin/activate": "changes the reader's shell",
    "python experiments/results_trials.py": "reads the real motion beside the checkout, for hours",
    "python tools/gpu_session.py": "takes a GPU, or minutes; tests/tools run the driver and its parts",
    "python tools/train_weights.py": "trains for hours; tests/tools/test_train_weights.py does it with a tiny model",
    "fastamr finetune --model owner/name@v1": "needs a network; tests/weights has a stand-in",
    "yolo": "stands for a pose estimator that the project does not ship; its output is made by workshop.py",
    "camera": "stands for the reader's own program; frames.jsonl is its output",
    "fastamr tune": "measures every back end, for minutes; tests/tuning does it for one op",
    "fastamr pretrain --tune": "the same",
    "fastamr distill --teacher encoder": "a teacher of the papers' size: minutes for its latency",
}

ENCODER = "--model.width 8 --model.depth 1 --model.heads 1"
MODEL = f"{ENCODER} --model.decoder-width 8 --model.decoder-depth 1 --model.decoder-heads 1"
BRIEFLY = "--updates 2 --batch-size 4 --warmup-epochs 0 --device cpu --no-tensorboard --no-progress"
ONE_EPOCH = "--recipe.epochs 1 --recipe.batch-size 8 --recipe.min-frames 8"
MEASURED = "--device cpu --sequences 1"
# Options that make a command small: they come last and win.
SMALL = {
    "fastamr pretrain": f"{MODEL} {BRIEFLY} --min-frames 8",
    "fastamr evaluate": "--finetune.epochs 1 --finetune.hidden 0 --finetune.min-frames 8",
    "fastamr finetune": f"{ONE_EPOCH} --recipe.hidden 8",
    "fastamr distill": f"{ONE_EPOCH} --student.width 8 --student.heads 1 --student.depth 1 --seeds 0",
    "fastamr quickstart": "--updates 2 --epochs 1 --device cpu",
    "fastamr prepare": "--workers 1 --no-progress",
    "fastamr show": "--model-frames 20",
    "fastamr bench quick": f"{MODEL} {MEASURED} --seconds 5",
    "fastamr bench ladder": f"{MODEL} {MEASURED} --rounds 1 --warmup 0 --rungs mae-fp32 fastamr-fp32",
    "fastamr bench recipe": f"{MODEL} --device cpu --updates 3 --clips 20 --batch-size 2 --no-progress",
    "fastamr bench profile": f"{MODEL} {MEASURED} --updates 1 --warmup 1",
    "fastamr bench scaling": f"{MODEL} {MEASURED} --rounds 1 --vary sequences=1",
    "python examples/new_method.py pretrain": f"{ENCODER} {BRIEFLY}",
    "python experiments/results.py": "--list",
    "python experiments/any_skeleton.py": "--list",
    "python experiments/distillation.py": "--list",
}
# The same for commands that hold some words. `synthetic` means 64 clips here.
SMALLER = {
    "--min-updates": "--min-updates 5",
    "--protocol semi": "--shares 0.25",
    "--profile": "--profile 1 --updates 4",
    "--protocol detection": "--min-updates 5",
}
# Exit codes other than 0.
CODES = {"fastamr check ntu60.safetensors --fail-on": (0, 3)}
# What stands for something in a command.
PLACEHOLDERS = {"METHOD": "amr", "VARIANT": ""}


WITH_OPTIONS = [one for one in ALL_COMMANDS if one.words[0] == "fastamr" and len(one.words) > 2]


class Parsed(BaseException):
    """Raised where a command has read its options."""


def test_every_block_says_what_it_is() -> None:
    assert [
        f"{block.page}:{block.line}: {block.language!r}"
        for block in ALL_BLOCKS
        if block.language not in LANGUAGES
    ] == []


def test_no_code_stands_outside_of_fences() -> None:
    """An indented block would be shown as code and run by nobody."""
    found = []
    for page in PAGES:
        text = re.sub(
            r"^( *)```.*?^ *```$",
            lambda match: "\n" * match[0].count("\n"),
            read(page),
            flags=re.DOTALL | re.MULTILINE,
        )
        lines = text.splitlines()
        for number, line in enumerate(lines[1:], 2):
            if line.startswith("    ") and not lines[number - 2].strip():
                found.append(f"{page}:{number}: {line.strip()}")
    assert found == []


def test_commands_are_found() -> None:
    assert len(ALL_COMMANDS) > 60
    assert {command.words[1] for command in ALL_COMMANDS if command.words[0] == "fastamr"} > {
        "pretrain",
        "prepare",
        "bench",
    }


def why_not_run(command: Command) -> str | None:
    return next((reason for start, reason in NOT_RUN.items() if begins(command, start)), None)


def begins(command: Command, start: str) -> bool:
    count = len(start.split())
    return list(command.words[:count]) == start.split()


def test_every_exception_is_needed() -> None:
    for table in (NOT_RUN, SMALL, CODES):
        assert [start for start in table if not any(begins(command, start) for command in ALL_COMMANDS)] == []


@pytest.mark.parametrize("command", WITH_OPTIONS, ids=str)
def test_every_option_exists(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands that are not run are read all the same; a notice is the sign of an old spelling."""
    whole = CommandParser.parse

    def parse(self: CommandParser, words: Any) -> None:
        whole(self, words)
        raise Parsed

    monkeypatch.setattr(CommandParser, "parse", parse)
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("lr: 1e-3\n", encoding="utf-8")
    code: int | None = None
    with contextlib.suppress(Parsed):
        code = main(list(command.words[1:]))
    assert (code, capsys.readouterr().err) == (None, "")


@pytest.mark.parametrize(
    "command", [one for one in ALL_COMMANDS if one.words[0] in ("make", "pytest")], ids=str
)
def test_targets_and_paths_exist(command: Command) -> None:
    if command.words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in command.words[1:] if "=" not in word} <= set(targets)
    else:
        assert [
            word for word in command.words[1:] if "/" in word and not (ROOT / word.split("::")[0]).exists()
        ] == []


@pytest.mark.parametrize(
    "block",
    [block for block in ALL_BLOCKS if block.language == "yaml"],
    ids=lambda block: f"{block.page}:{block.line}",
)
def test_every_configuration_is_valid(block: Any) -> None:
    values = yaml.safe_load(block.text)
    assert PretrainConfig.from_dict(values).model_config() is not None


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In order, as a reader goes through the page, in one folder and one session of Python."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.setattr("fastamr.data.synthetic.dataset.synthetic_actions", small_set)
    prepare_page(page, folder)
    session: dict[str, Any] = {"__name__": "page", **NAMES.get(page, dict)()}
    failed = []
    with own_models():
        for block in blocks(page):
            if block.language == "python":
                exec(compile(block.text, f"{page}:{block.line}", "exec"), session)
            for command in commands(block) if block.language == "sh" else ():
                if why_not_run(command) is None and (code := run(command, monkeypatch)) not in codes_of(
                    command
                ):
                    failed.append(f"{command}: exit code {code}\n{''.join(capsys.readouterr())[-2000:]}")
                capsys.readouterr()
    assert not failed, "\n\n".join(failed)
    LEARNT.get(page, lambda session: None)(session)


def small_set(clips: int = 64, **options: Any) -> PackedSkeletons:
    """What generates motion unless a page says how many clips."""
    return synthetic_actions(clips, **options)


def run(command: Command, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command in this process, made small; return its exit code."""
    words = small(command)
    if command.source:
        monkeypatch.setattr("sys.stdin", io.StringIO(Path("frames.jsonl").read_text(encoding="utf-8")))
    if words[0] == "fastamr":
        return main(words[1:])
    assert words[0] == "python", f"{command}: nothing says how to run it or why not"
    if words[1] == "-c":
        exec(words[2], {})
        return 0
    monkeypatch.setattr("sys.argv", words[1:])
    with own_models():
        try:
            runpy.run_path(str(ROOT / words[1]), run_name="__main__")
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


@contextlib.contextmanager
def own_models() -> Iterator[None]:
    """Forget the models that are registered inside, and the files that did it, as at the end of a process."""
    known, path, before = dict(MODELS), list(sys.path), our_scripts()
    for name in before:
        del sys.modules[name]
    try:
        yield
    finally:
        MODELS.clear()
        MODELS.update(known)
        sys.path[:] = path
        for name in our_scripts():
            del sys.modules[name]
        sys.modules.update(before)


def our_scripts() -> dict[str, ModuleType]:
    """Return the modules of examples/ and experiments/ that are imported now."""
    folders = (ROOT / "examples", ROOT / "experiments")
    return {
        name: module
        for name, module in sys.modules.items()
        if Path(getattr(module, "__file__", None) or "").parent in folders
    }


def small(command: Command) -> list[str]:
    """Return a command's words with the options that make it small."""
    words = [PLACEHOLDERS.get(word, word) for word in command.words]
    for start, options in SMALL.items():
        words += options.split() if begins(command, start) else []
    for part, options in SMALLER.items():
        words += options.split() if part in command.text else []
    return words


def codes_of(command: Command) -> tuple[int, ...]:
    return next((codes for start, codes in CODES.items() if begins(command, start)), (0,))


def names_of_data() -> dict[str, Any]:
    """Two streams of two actions."""
    streams = [np.random.default_rng(k).normal(size=(12, 1, 25, 3)).astype(np.float32) for k in range(2)]
    labels = [torch.tensor([-1] * 4 + [k] * 8) for k in range(2)]
    return {
        "streams": streams,
        "labels": labels,
        "train": torch.tensor([True, False]),
        "test": torch.tensor([False, True]),
    }


def names_of_evaluation() -> dict[str, Any]:
    """Three bodies of two clips, for the model of runs/amr."""
    return {
        "clips": torch.randn(3, 16, 25, 3),
        "owner": torch.tensor([0, 0, 1]),
        "labels": torch.tensor([7, 59]),
    }


# What the Python of a page takes from the reader.
NAMES: dict[str, Callable[[], dict[str, Any]]] = {
    "docs/data.md": names_of_data,
    "docs/evaluation.md": names_of_evaluation,
}


def learns(session: dict[str, Any]) -> None:
    """The step of one's own module has learnt, recorded where there is a GPU."""
    assert session["step"].update == len(session["losses"]) == 50
    assert sum(session["losses"][-10:]) < 0.5 * sum(session["losses"][:10])
    assert (session["step"].graph_reason is None) == torch.cuda.is_available()


# What is true when a page has run.
LEARNT: dict[str, Callable[[dict[str, Any]], None]] = {"docs/pretraining.md": learns}
