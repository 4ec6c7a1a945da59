"""Settings that lie below the command line's own: YAML files of ``--config``, presets, and those of a model."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ..configs import PRESETS, preset_file
from ..errors import UsageError, unknown_name
from ..models.registry import MODELS
from ..training.config import current_names, merge_settings, model_config_class, read_yaml
from .options import CommandParser, choice, usage
from .spelling import notice


def build(parser: CommandParser, config: Any, words: Sequence[str]) -> Any:
    """Return the dataclass that a command's options and the files of its ``--config`` ask for.

    Raises:
        UsageError: an option or a key is wrong, or a field without a default is missing.
    """
    given = parser.parse(words).as_dict()
    values = merge_settings(read_files(given.pop("config") or [], config), given)
    for item in dataclasses.fields(config):
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and item.name not in values:
            raise UsageError(parser.is_missing(item.name))
    return usage(config, **values)


def add_config(group: Any) -> None:
    """Add ``--config``."""
    text = "YAML files with these options, underscores for dashes; later files win"
    group.add_argument("--config", nargs="+", metavar="FILE", help=text)


def read_files(files: Sequence[str], config: Any, model: str | None = None) -> dict[str, Any]:
    """Return the settings of YAML files, later ones on top.

    Args:
        files: their names.
        config: the dataclass that has the keys as fields.
        model: of which the settings are; those of others are left out with a notice.

    Raises:
        UsageError: no such file, no YAML, or a key that does not exist.
    """
    values: dict[str, Any] = {}
    known = [item.name for item in dataclasses.fields(config)]
    for file in files:
        settings = current_names(usage(read_yaml, file))
        for name in settings:
            if name not in known:
                raise UsageError(f"{file}: {unknown_name('option', name, known)}")
        if model and isinstance(settings.get("architecture"), dict):
            settings["architecture"] = _of_model(settings["architecture"], model, file)
        values = merge_settings(values, settings)
    return values


def _of_model(settings: Mapping[str, Any], model: str, file: str) -> dict[str, Any]:
    """Leave out what only other models know; what none knows stays, for an error."""
    names = {one: {item.name for item in dataclasses.fields(MODELS[one].Config)} for one in MODELS}
    owners = {name: [one for one in MODELS if name in names[one]] for name in settings}
    foreign = {name: others for name, others in owners.items() if others and model not in others}
    if foreign:
        told = ", ".join(f"{name} ({', '.join(others)})" for name, others in foreign.items())
        notice(f"{file}: left out, not settings of {model}, but of the models in brackets: {told}")
    return {name: value for name, value in settings.items() if name not in foreign}


def add_model(parser: CommandParser, model: str, *, files: bool = False) -> Any:
    """Add ``--model``, ``--preset``, perhaps ``--config``, and ``--model.NAME`` for each setting of a model.

    The settings go into ``architecture``. Returns the group of the first ones.
    """
    group = parser.add_argument_group("model and settings")
    text = f"{', '.join(MODELS)}; --help-all lists the settings of the one that is given"
    group.add_argument("--model", "--model.name", dest="model", default="amr", metavar="NAME", help=text)
    text = "a configuration that comes with the package; other options win over it"
    group.add_argument("--preset", **choice("preset", PRESETS), help=text)
    if files:
        add_config(group)
    config = usage(model_config_class, model)
    parser.add_fields(config, {}, rest=f"settings of {model}", part="model", into="architecture")
    return group


def preset_settings(preset: str | None, model: str) -> dict[str, Any]:
    """Return the settings of a model's preset; none without a preset."""
    return {} if preset is None else read_yaml(usage(preset_file, preset, model))


def look_ahead(words: Sequence[str]) -> argparse.Namespace:
    """Return the options that decide which others there are: model, preset, config, out and resume."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--model", "--model.name"):
        parser.add_argument(name, nargs="?", dest="model")
    parser.add_argument("--config", nargs="*", action="extend", default=[])
    parser.add_argument("--preset", nargs="?")
    parser.add_argument("--out", nargs="?")
    parser.add_argument("--resume", nargs="?", const="yes")
    return parser.parse_known_args(list(words))[0]
