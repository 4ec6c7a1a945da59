"""``fastamr sweep CONFIG --seeds 0 1 2 --out DIR``: pre-train with several seeds, and a grid of settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from ...sweep import Outcome, array_script, carry_out, parse_grid, plan_runs
from ...tables import aligned
from ...training import PretrainConfig
from ..options import FLAG, CommandParser, usage
from ..settings import add_model, look_ahead, read_files
from . import pretrain

# What the sweep decides for each run.
_OWN = ("seed", "out", "resume", "overwrite")
_FIRST = {"data, length and computation": "data split epochs updates batch_size lr device"}


def run(words: list[str]) -> None:
    """Carry out the command."""
    files = [word for word in takewhile(lambda word: not word.startswith("-"), words) if Path(word).is_file()]
    typed = look_ahead(words).model
    model = typed or read_files(files, PretrainConfig).get("model", PretrainConfig.model)
    parser = _parser(model)
    given = parser.parse(words).as_dict()
    own = {name: given.pop(name) for name in ("config", "seeds", "set", "out", "print", "slurm", "stop")}
    given = {name: value for name, value in given.items() if name not in ("model", "preset") or value}
    if typed is None:
        del given["model"]
    common = (["--config", *own["config"]] if own["config"] else []) + _words(given)
    names = {name for action in parser._actions for name in action.option_strings}
    grid = usage(parse_grid, own["set"], {name for name in names if f"--no-{name[2:]}" in names})
    members = usage(plan_runs, common, own["out"], own["seeds"], grid, pretrain.read)
    if own["slurm"]:
        print(array_script(members, Path(own["out"]).name), end="")
    elif own["print"]:
        print(
            "".join(f"{shlex.join(['fastamr', 'pretrain', *member.words])}\n" for member in members), end=""
        )
    else:
        _conclude(carry_out(members, own["out"], stop=own["stop"]))


def _words(given: Mapping[str, Any], prefix: str = "--") -> list[str]:
    """Return options as they are typed."""
    words: list[str] = []
    for name, value in given.items():
        option = f"{prefix}{name.replace('_', '-')}"
        if isinstance(value, dict):
            words += _words(value, "--model.")
        elif isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        elif isinstance(value, (list, tuple)):
            words += [option, *map(str, value)]
        else:
            words += [option, "null" if value is None else str(value)]
    return words


def _conclude(outcomes: Sequence[Outcome]) -> None:
    """Print a line for each run.

    Raises:
        KeyboardInterrupt: some are missing because a signal came.
        RuntimeError: some failed.
    """
    print(aligned([[str(one.member.folder), one.word, one.detail] for one in outcomes], left=(0, 1, 2)))
    missing = [one for one in outcomes if one.word != "complete"]
    if not missing:
        return
    told = f"{len(missing)} of {len(outcomes)} runs are not complete; the same command makes what is missing"
    if all(one.word != "failed" for one in missing):
        raise KeyboardInterrupt(told)
    raise RuntimeError(told)


def _parser(model: str) -> CommandParser:
    text = "Pre-train with several seeds and settings, one run after the other; complete ones are left alone."
    parser = CommandParser("sweep", "CONFIG --seeds N... --out DIR", text)
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs="*",
        default=[],
        help="YAML files with options of pretrain; later files win",
    )
    add = parser.add_argument_group("the runs").add_argument
    add("--seeds", type=int, nargs="+", required=True, metavar="N", help="a run for each")
    add("--set", nargs="+", default=[], metavar="NAME=V1,V2",
        help="a run for each value of an option, and each combination: lr=1e-3,5e-4 model.width=64,128")  # fmt: skip
    add(
        "--out", required=True, metavar="DIR", help="the folder of the runs' folders, seed-N or NAME-V-seed-N"
    )
    add("--print", action=FLAG, default=False, help="print the runs' commands instead of making them")
    add("--slurm", action=FLAG, default=False, help="print a script for a SLURM job array instead")
    add("--stop", action=FLAG, default=False, help="after a run that failed start no other")
    add_model(parser, model)
    parser.add_fields(PretrainConfig, _FIRST, rest="all else", skip=("model", "architecture", *_OWN))
    return parser
