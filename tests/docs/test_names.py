"""What the pages name in passing exists: files, Python names, options of commands, tests."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from fastamr import configs
from fastamr.benchmarking import RUNGS
from fastamr.cli import main
from fastamr.data.preprocessing.apply import STEPS
from fastamr.data.preprocessing.presets import PRESETS
from fastamr.evaluation.protocols.config import PROTOCOLS
from fastamr.models import MODELS
from fastamr.skeleton import LAYOUTS

from .pages import PAGES, ROOT, prose, read

EVERY_PAGE = (*PAGES, *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("*/README.md")))
# Folders that paths of this repository begin with; `configs` was one.
TOPS = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")} | {"configs"}
COMMANDS = (
    "pretrain", "sweep", "evaluate", "finetune", "distill", "export", "predict", "models", "prepare", "import",
    "convert", "split", "check", "show", "layouts", "table", "plot", "report", "info", "tune", "cache", "quickstart",
    "demo",
    "bench quick", "bench ladder", "bench recipe", "bench profile", "bench scaling",
)  # fmt: skip
# Options of other programs: pytest, experiments, pip, git, torchrun, SLURM, tests/fuzzing and tools.
OTHERS = {
    "--run-slow", "--run-long", "--every-case", "--benchmark-only", "--benchmark-json",
    "--benchmark-save-data", "--benchmark-timer", "--only", "--methods",
    "--variants", "--features", "--again", "--report", "--list", "--no-build-isolation", "--shutdown-timeout",
    "--unshallow", "--signal", "--signals-to-handle", "--engine", "--keep", "--lowest", "--gigabytes", "--drop-out",
    "--drop-path", "--rows", "--tables", "--choose",
    "--inputs", "--plan", "--rehearse", "--small", "--seconds", "--sizes", "--steps", "--spins", "--minutes", "--work",
}  # fmt: skip
# What looks like a Python name and is a file; what looks like a path of ours and is PYSKL's.
FILES = {"fastamr.json"}
ELSEWHERE = {"tools/data/README.md"}


@functools.cache
def spans(page: str) -> tuple[str, ...]:
    """Return what stands in backticks outside of blocks."""
    return tuple(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page)))


@functools.cache
def options(command: str) -> frozenset[str]:
    """Return every option of a command, with those of each model."""
    found: set[str] = set()
    models = (
        [["--model", name] for name in MODELS] if command in ("pretrain", "sweep", "bench profile") else [[]]
    )
    for model in models:
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            assert main([*command.split(), *model, "--help-all"]) == 0
        found |= set(re.findall(r"--[a-z][\w.-]*", text.getvalue()))
    return frozenset(found | {"--help", "--help-all"})


def is_path(word: str) -> bool:
    """Tell a path of this repository; NAME and WING stand for what the reader adds."""
    is_ours = word.split("/")[0] in TOPS and re.fullmatch(r"[\w.-]+(/[\w.*-]*)+", word) is not None
    return is_ours and not re.search("NAME|WING", word)


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_every_path_exists(page: str) -> None:
    words = [word.strip(",;()'\"").split("::")[0] for span in spans(page) for word in span.split()]
    paths = {word for word in words if is_path(word)} - ELSEWHERE
    assert [path for path in sorted(paths) if not list(ROOT.glob(path.rstrip("/")))] == []


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_every_link_leads_to_a_file(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose(page))
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def resolves(name: str) -> bool:
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        try:
            functools.reduce(getattr, parts[count:], found)
        except AttributeError:
            continue
        return True
    return False


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_every_python_name_exists(page: str) -> None:
    names = {
        name for span in spans(page) for name in re.findall(r"(?<![\w./])fastamr(?:\.[A-Za-z_]\w*)+", span)
    }
    assert [name for name in sorted(names - FILES) if not resolves(name)] == []


def options_of(span: str) -> list[str]:
    return [word for word in re.findall(r"(?<![\w-])--[a-z][\w.-]*", span) if not re.search("[A-Z]", word)]


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_every_option_exists(page: str) -> None:
    """Of the command that a span begins with, else of any."""
    known = frozenset.union(*(options(command) for command in COMMANDS)) | OTHERS
    wrong = []
    for span in spans(page):
        own = next(
            (options(command) for command in COMMANDS if span.startswith(f"fastamr {command} ")), known
        )
        wrong += [f"{word} in `{span}`" for word in options_of(span) if word not in own]
    assert wrong == []


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_every_command_exists(page: str) -> None:
    named = [span.split()[1] for span in spans(page) if re.match(r"fastamr [a-z]", span)]
    assert set(named) <= {command.split()[0] for command in COMMANDS}


@pytest.mark.parametrize(
    ("page", "known"),
    [
        ("README.md", MODELS),
        ("docs/data.md", LAYOUTS),
        ("docs/data.md", STEPS),
        ("docs/data.md", PRESETS),
        ("docs/evaluation.md", PROTOCOLS),
        ("docs/benchmarks.md", [rung.name for rung in RUNGS]),
        ("docs/pretraining.md", configs.PRESETS),
    ],
    ids=("models", "layouts", "steps", "recipes", "protocols", "rungs", "presets"),
)
def test_every_choice_is_described(page: str, known: Iterable[str]) -> None:
    words = set(re.findall(r"[\w-]+", read(page)))
    assert [name for name in known if name not in words] == []


@functools.cache
def the_suites_tests() -> dict[str, set[str]]:
    """Return the tests of each file, by its name."""
    found: dict[str, set[str]] = {}
    for path in [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "benchmarks").rglob("bench_*.py")]:
        names = re.findall(r"^ *(?:def|class) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        found.setdefault(path.name, set()).update(names)
    return found


@pytest.mark.parametrize("page", [page for page in EVERY_PAGE if "test_" in read(page)])
def test_every_test_exists(page: str) -> None:
    suite = the_suites_tests()
    everywhere = set().union(*suite.values())
    wrong = []
    for span in [span for span in spans(page) if "NAME" not in span]:
        for file, names in re.findall(r"(?:^|[ /])((?:test|bench)_\w+\.py)?((?:::\w+)*|test_\w+)$", span):
            known = suite.get(Path(file).name, set()) if file else everywhere
            wanted = [name for name in names.split("::") if name]
            if (file and file not in suite) or not set(wanted) <= known:
                wrong.append(span)
    assert wrong == []
