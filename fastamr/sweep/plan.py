"""The runs of a sweep: every seed with every combination of the settings of a grid."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..training import PretrainConfig

# What a sweep gives each of its runs itself.
_OWN = ("config", "out", "overwrite", "resume", "seed")
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Attributes:
        folder: of the run.
        words: what comes after ``fastamr pretrain``.
        config: what these words ask for.
    """

    folder: Path
    words: tuple[str, ...]
    config: PretrainConfig


def parse_grid(texts: Sequence[str], flags: Collection[str]) -> dict[str, dict[str, list[str]]]:
    """Read ``NAME=VALUE1,VALUE2``: for each option the words of each of its values.

    Args:
        texts: one an option, as ``lr=1e-3,5e-4``, ``model.width=64,128`` or ``betas=0.9 0.95,0.9 0.99``.
        flags: the options that are on or off, as ``--tensorboard``.

    Returns:
        ``{"lr": {"1e-3": ["--lr", "1e-3"], ...}, ...}``.

    Raises:
        ValueError: a text of another form, an option or a value that is given twice, or one that a sweep sets itself.
    """
    grid: dict[str, dict[str, list[str]]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        name = name.strip().removeprefix("--").replace("_", "-")
        found = [value.strip() for value in values.split(",")]
        if not name or not all(found):
            raise ValueError(f"set {text!r}: expected NAME=VALUE or NAME=VALUE1,VALUE2, as lr=1e-3,5e-4")
        if name in _OWN:
            own = "--seeds" if name == "seed" else "what the sweep sets for each run"
            raise ValueError(f"set {text!r}: {name} is {own}; name another option of fastamr pretrain")
        if name in grid or len(set(found)) < len(found):
            raise ValueError(f"set {text!r}: an option, or one of its values, is given twice; give each once")
        grid[name] = {value: _words(name, value, flags) for value in found}
    return grid


def _words(name: str, value: str, flags: Collection[str]) -> list[str]:
    if f"--{name}" not in flags:
        return [f"--{name}", *shlex.split(value)]
    if value.lower() not in _TRUTH:
        raise ValueError(f"set {name}={value}: expected true or false")
    return [f"--{name}" if _TRUTH[value.lower()] else f"--no-{name}"]


def plan_runs(
    common: Sequence[str],
    out: str | Path,
    seeds: Sequence[int],
    grid: Mapping[str, Mapping[str, list[str]]],
    read: Callable[[list[str]], PretrainConfig],
) -> list[Member]:
    """Return the runs of a sweep; all seeds of one setting follow one another.

    Args:
        common: the words of ``fastamr pretrain`` that all runs share.
        out: the folder that theirs lie in: ``seed-0``, with a grid ``lr-1e-3-seed-0``.
        seeds: of the runs.
        grid: what :func:`parse_grid` returns.
        read: returns what words after ``fastamr pretrain`` ask for.

    Raises:
        ValueError: a seed is given twice, two runs would share a folder, or a setting is wrong.
    """
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds {' '.join(map(str, seeds))}: one is given twice; give each once")
    members: dict[Path, Member] = {}
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        chosen = [word for name, value in point.items() for word in grid[name][value]]
        for seed in seeds:
            folder = Path(out) / _folder_name(point, seed)
            words = [*common, *chosen, "--seed", str(seed), "--out", str(folder), "--resume", "auto"]
            config = read(words)
            config.model_config()
            if folder in members:
                raise ValueError(
                    f"two runs would share the folder {folder}: give values that read differently"
                )
            members[folder] = Member(folder, tuple(words), config)
    return list(members.values())


def _folder_name(point: Mapping[str, str], seed: int) -> str:
    parts = [f"{name}-{value}" for name, value in point.items()] + [f"seed-{seed}"]
    return re.sub(r"[^\w.+-]+", "_", "-".join(parts))
