"""Help of every command: first what people need, then everything, in one syntax."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonargparse
import pytest

import fastamr
from fastamr import cli
from fastamr.benchmarking import LadderOptions, RecipeOptions, ScalingOptions
from fastamr.benchmarking.quick import QuickOptions
from fastamr.data.prepare import BodyChoice
from fastamr.demo import DemoConfig
from fastamr.evaluation.protocols.config import PARTS, EvaluateConfig
from fastamr.finetuning.classifier import ClassifierConfig
from fastamr.finetuning.distill_config import DistillConfig, StudentConfig, StudentRecipe
from fastamr.finetuning.finetune import FinetuneConfig
from fastamr.models import AMRModel, ModelConfig
from fastamr.training import PretrainConfig

COMMANDS = [name for group in cli._COMMANDS.values() for name in group]
# The dataclasses behind a command, by what their options begin with.
CONFIGS: dict[str, dict[str, Any]] = {
    "pretrain": {"": PretrainConfig, "model.": AMRModel.Config},
    "evaluate": {"": EvaluateConfig, **{f"{part}.": config for part, config in PARTS.items()}},
    "finetune": {"": ClassifierConfig, "recipe.": FinetuneConfig},
    "distill": {"": DistillConfig, "student.": StudentConfig, "recipe.": StudentRecipe},
    "demo": {"": DemoConfig},
    "prepare": {"": BodyChoice},
    "bench quick": {"": QuickOptions, "model.": ModelConfig},
    "bench ladder": {"": LadderOptions, "model.": ModelConfig},
    "bench recipe": {"": RecipeOptions, "model.": AMRModel.Config},
    "bench profile": {"model.": AMRModel.Config},
    "bench scaling": {"": ScalingOptions, "model.": AMRModel.Config},
}
# Fields that hold the settings of another dataclass, which has options of its own.
NESTED = ("architecture", "recipe", "student", *PARTS)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(list(words)) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


@pytest.mark.parametrize("command", ["", "bench", *COMMANDS])
def test_help_fits_on_a_screen(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for flag in ("--help", "-h"):
        lines = shown(capsys, *command.split(), flag).splitlines()
        assert len(lines) <= 40
        assert max(map(len, lines)) <= 100
        assert lines[0].startswith(f"usage: fastamr {command}".rstrip())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_all_lists_every_option_and_help_says_where(
    command: str, capsys: pytest.CaptureFixture[str], options_of: Callable[..., list[argparse.Action]]
) -> None:
    first, everything = (shown(capsys, *command.split(), flag) for flag in ("--help", "--help-all"))
    names = {name for action in options_of(command) for name in action.option_strings}
    assert {name for name in names if not re.search(rf"{name}\b", everything)} == set()
    missing = {name for name in names if not re.search(rf"{name}\b", first)}
    assert bool(missing) == (f"fastamr {command} --help-all lists all options" in first)


@pytest.mark.parametrize("command", CONFIGS)
def test_every_field_is_an_option_with_its_description(
    command: str, options_of: Callable[..., list[argparse.Action]]
) -> None:
    options = {name: action for action in options_of(command) for name in action.option_strings}
    for prefix, config in CONFIGS[command].items():
        hints = typing.get_type_hints(config)
        for field in dataclasses.fields(config):
            name = f"--{prefix}{field.name}".replace("_", "-")
            if field.name in NESTED or (command, name) == ("bench recipe", "--preset"):
                continue
            assert options[name].help, name
            if hints[field.name] is bool and name != "--resume":
                assert f"--no-{name[2:]}" in options


@pytest.mark.parametrize("command", COMMANDS)
def test_one_syntax(command: str, options_of: Callable[..., list[argparse.Action]]) -> None:
    """Dashes between words; two forms of whatever is on or off."""
    for action in options_of(command):
        assert not any("_" in name for name in action.option_strings)
        takes_no_value = action.nargs == 0
        assert takes_no_value == isinstance(action, jsonargparse.ActionYesNo)
        if takes_no_value:
            yes, no = action.option_strings
            assert no == f"--no-{yes[2:]}"


def test_every_file_of_a_command_is_listed() -> None:
    folder = Path(fastamr.__file__).parent / "commands"
    files = {
        path.relative_to(folder).with_suffix("").as_posix().replace("/", ".") for path in folder.rglob("*.py")
    }
    shared = {"options", "spelling", "settings", "bench.common"}
    listed = {file for group in cli._COMMANDS.values() for file, _ in group.values()}
    assert {file for file in files if not file.endswith("__init__")} == listed | shared
    for file in listed:
        assert callable(importlib.import_module(f"fastamr.commands.{file}").run)


def test_help_tells_types_defaults_and_the_settings_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str) -> str:
        return " ".join(shown(capsys, "pretrain", *words).split())

    text = told("--model", "amr", "--help-all")
    assert "settings of amr" in text
    assert re.search(r"--model\.guidance-k NUMBER strength .*? \(default: 0\.01\)", text)
    assert re.search(r"--batch-size INT body sequences in one update.*? \(default: 256\)", text)
    assert re.search(r"--betas NUMBER NUMBER .*? \(default: 0\.9 0\.95\)", text)
    assert re.search(r"--seed INT .*? \(default: 0\)", text)
    assert "guidance-k" not in told("--model", "skeleton_mae", "--help-all")
    text = told("--model.name", "gfp", "--help-all")
    assert "settings of gfp" in text
    assert re.search(r"--model\.levels .*?20, 40 and 120 frames", text)
    assert re.search(r"--model\.mask-tau NUMBER temperature of .*?default: 0\.8\)", text)
    assert "--model.levels" not in told("--model", "gfp", "--help")


def test_the_overview_groups_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "--help")
    titles = re.findall(r"^(\w[\w ]*):$", text, re.MULTILINE)
    assert titles == ["data", "models and results", "this machine"]
    assert all(f"\n  {name} " in text for name in COMMANDS)
    kinds = re.findall(r"^  (.*?)  ", shown(capsys, "bench", "--help"), re.MULTILINE)
    assert kinds == ["bench quick", "bench ladder", "bench recipe", "bench profile", "bench scaling"]
