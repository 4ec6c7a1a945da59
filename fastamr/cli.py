"""The command line: ``fastamr COMMAND ...``; ``fastamr --help`` lists the commands.

Exit codes: 0 done, 1 an error that is told in one line (``FASTAMR_DEBUG=1`` shows the traceback), 2 a wrong
command or option, 3 done with findings (``prepare``: damaged files were left out; ``check --fail-on``), 130
interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import functools
import importlib
import os
import re
import signal
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import check_name, unknown_name
from .memory import keep_freed_memory

_KNOWN_ERRORS = (ValueError, TypeError, OSError, ImportError, RuntimeError, FloatingPointError)


class UsageError(Exception):
    """A wrong command, option or value on the command line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the arguments without the program's name; by default the process's own.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    keep_freed_memory()
    try:
        with _prompt_interrupts():
            return _dispatch(arguments)
    except SystemExit as stop:  # argparse leaves this way after --help
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt as stop:
        print(f"interrupted: {stop}" if str(stop) else "interrupted", file=sys.stderr)
        return 130
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except _KNOWN_ERRORS as error:
        if os.environ.get("FASTAMR_DEBUG", "0") not in ("", "0"):
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def _prompt_interrupts() -> Iterator[None]:
    """Let Ctrl-C inside an import end the process at once, with what is told elsewhere.

    Raised there, it may be swallowed, end in C++, or leave half-made modules whose errors are told instead.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield
        return

    def interrupt(number: int, frame: types.FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                os.write(2, b"interrupted\n")
                os._exit(130)
            frame = frame.f_back
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from .version import __version__

        print(f"fastamr {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in _COMMANDS:
        raise UsageError(str(unknown_name("command", name, _COMMANDS)))
    _COMMANDS[name][0](rest)
    return 0


def _overview() -> str:
    lines = [f"  {name:<10} {text}" for name, (_, text) in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: fastamr [-h] [--version] COMMAND ...",
            "",
            "Fast self-supervised pre-training of skeleton-action encoders.",
            "",
            "commands:",
            *lines,
            "",
            "fastamr COMMAND --help lists the options of a command.",
        ]
    )


def _pretrain(arguments: list[str]) -> None:
    from .training import PretrainConfig, pretrain
    from .training.config import merge_settings, model_config_class

    given, files = _look_ahead(arguments)
    if given.resume and given.out and (Path(given.out) / "config.yaml").is_file():
        files = [str(Path(given.out) / "config.yaml"), *files]
    settings = _read_files(files, PretrainConfig)
    model = given.model or settings.get("model", PretrainConfig.model)
    options = _Options("pretrain", "Pre-train a model on motion and write the folder of the run.")
    options.add(PretrainConfig, skip=("architecture",))
    options.add(_usage(model_config_class, model), prefix="architecture.", title=f"architecture of {model}")
    pretrain(_usage(PretrainConfig.from_dict, merge_settings(settings, options.parse(arguments))))


def _evaluate(arguments: list[str]) -> None:
    from .evaluation.evaluate import EvaluateConfig, evaluate
    from .evaluation.protocols.config import PARTS

    evaluate(_configure("evaluate", EvaluateConfig, arguments, parts=PARTS))


def _finetune(arguments: list[str]) -> None:
    from .finetuning.classifier import ClassifierConfig, train_classifier
    from .finetuning.finetune import FinetuneConfig

    train_classifier(_configure("finetune", ClassifierConfig, arguments, parts={"recipe": FinetuneConfig}))


def _distill(arguments: list[str]) -> None:
    from .finetuning.distill import distill
    from .finetuning.distill_config import DistillConfig, StudentConfig, StudentRecipe

    parts = {"student": StudentConfig, "recipe": StudentRecipe}
    distill(_configure("distill", DistillConfig, arguments, parts=parts))


def _demo(arguments: list[str]) -> None:
    from .demo import DemoConfig, run

    run(_configure("demo", DemoConfig, arguments))


def _info(arguments: list[str]) -> None:
    _plain_parser("info").parse_args(arguments)
    from .info import report

    print(report())


def _command(name: str) -> Callable[[list[str]], None]:
    """A command that lives in a file of its own, ``fastamr/commands/NAME.py``, loaded when it is called."""

    def run(arguments: list[str]) -> None:
        importlib.import_module(f".commands.{name}", __package__).run(arguments)

    return run


_COMMANDS: dict[str, tuple[Callable[[list[str]], None], str]] = {
    "pretrain": (_pretrain, "pre-train a model on motion"),
    "evaluate": (_evaluate, "probe or fine-tune a pre-trained encoder"),
    "finetune": (_finetune, "train a classifier on a pre-trained encoder and save it"),
    "distill": (_distill, "train a small classifier that learns from a large one"),
    "export": (_command("models.export"), "write a classifier or an encoder as ONNX or torch.export"),
    "predict": (_command("models.predict"), "name the actions in a skeleton file or a stream"),
    "prepare": (_command("data.prepare"), "convert a data set's raw files to one packed file"),
    "import": (_command("data.import_file"), "convert motion files to the packed format"),
    "convert": (_command("data.convert"), "map packed data to another joint layout, or apply pre-processing"),
    "check": (_command("data.check"), "what is in a packed file, what is wrong with it, does it leak"),
    "show": (_command("data.show"), "draw a clip: animation or strip of frames"),
    "table": (_command("table"), "evaluations side by side, beside published results"),
    "plot": (_command("plot"), "curves of a run, embeddings, attention maps, confusion matrix"),
    "bench": (_command("bench"), "measure: ladder of steps, whole recipe, profile, scaling"),
    "info": (_info, "versions, devices, and which back end each op would use"),
    "demo": (_demo, "pre-train, probe and compare on generated motion, in minutes"),
}


def _plain_parser(name: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"fastamr {name}", description=_COMMANDS[name][1], allow_abbrev=False)


def _configure(
    name: str, config: Any, arguments: list[str], *, parts: Mapping[str, Any] | None = None
) -> Any:
    """Build a command's dataclass from its options and from the YAML files of ``--config``.

    Fields that are named in ``parts`` hold the settings of another dataclass: its fields are options ``--PART.NAME``.
    """
    from .training.config import merge_settings

    options = _Options(name, _COMMANDS[name][1])
    parts = parts or {}
    options.add(config, skip=tuple(parts))
    for part, settings in parts.items():
        options.add(settings, prefix=f"{part}.", title=f"settings of {part}")
    values = merge_settings(_read_files(_look_ahead(arguments)[1], config), options.parse(arguments))
    for item in dataclasses.fields(config):
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and item.name not in values:
            raise UsageError(f"--{item.name} is missing; see fastamr {name} --help")
    return _usage(lambda chosen: config(**chosen), values)


class _Options:
    """The options of a command, made from dataclasses: names, types, defaults and help come from there."""

    def __init__(self, name: str, description: str) -> None:
        try:
            import jsonargparse
        except ImportError:
            message = "this command needs jsonargparse, which is not installed: pip install 'fastamr[cli]'"
            raise ImportError(message) from None
        self._library = jsonargparse
        self._parser = jsonargparse.ArgumentParser(
            prog=f"fastamr {name}",
            description=description,
            epilog="Dashes may replace underscores in the name of an option.",
            exit_on_error=False,
            allow_abbrev=False,
        )
        self._parser.add_argument("--config", type=str, nargs="+", help="YAML files with the options below")
        self._choices: dict[str, tuple[Any, ...]] = {}
        self._names = ["--help", "-h", "--config"]

    def add(self, config: Any, *, prefix: str = "", title: str = "", skip: Sequence[str] = ()) -> None:
        """Add an option for each field of a dataclass."""
        hints, texts = typing.get_type_hints(config), _field_texts(config)
        group = self._parser.add_argument_group(title) if title else self._parser
        for item in dataclasses.fields(config):
            if item.init and item.name not in skip:
                name = prefix + item.name
                group.add_argument(
                    f"--{name}", help=texts.get(item.name), **self._arguments(name, hints[item.name], item)
                )
                self._names.append(f"--{name}")

    def _arguments(self, name: str, hint: Any, item: dataclasses.Field[Any]) -> dict[str, Any]:
        """Return what jsonargparse needs to know about a field."""
        default = None if item.default is dataclasses.MISSING else item.default
        if item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        kind = _command_line_type(hint)
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if kind is bool:
            self._names.append(f"--no_{name}")
            return {"action": self._library.ActionYesNo, "default": default}
        if origin in (list, tuple):
            count: int | str = len(inner) if origin is tuple and inner[-1] is not Ellipsis else "*"
            default = None if default is None else list(default)
            return {"type": _command_line_type(inner[0]), "nargs": count, "default": default}
        if origin is typing.Literal:
            self._choices[name] = inner
            return {"type": str, "metavar": "{" + ",".join(map(str, inner)) + "}", "default": default}
        return {"type": kind, "default": default}

    def parse(self, arguments: list[str]) -> dict[str, Any]:
        """Return the options that were given, nested at the dots of their names.

        Raises:
            UsageError: an option does not exist, or its value has the wrong type.
        """
        arguments = _underscores(arguments)
        for argument in arguments:
            name = argument.split("=", 1)[0]
            if name.startswith("--") and name not in self._names:
                raise UsageError(_unknown_option(name, self._names))
        try:
            given = self._parser.parse_args(arguments, defaults=False)
        except self._library.ArgumentError as error:
            raise UsageError(re.sub(r'^Parser key "([^"]+)"', r"--\1", _one_line(error))) from None
        for name, choices in self._choices.items():
            if name in given:
                _usage(functools.partial(check_name, f"--{name}", known=choices), given[name])
        values = given.as_dict()
        values.pop("config", None)
        return values


def _command_line_type(hint: Any) -> Any:
    """Return the part of a type hint that a command line can express: strings stand for objects and paths."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        inner = [option for option in typing.get_args(hint) if option is not type(None)]
        optional = len(inner) < len(typing.get_args(hint))
        kind = str if str in inner else _command_line_type(inner[0])
        sequence = typing.get_origin(kind) in (list, tuple, typing.Literal)
        return kind | None if optional and not sequence else kind
    if typing.get_origin(hint) in (list, tuple, typing.Literal) or hint in (bool, int, float):
        return hint
    return str


def _field_texts(config: Any) -> dict[str, str]:
    """Return the description of each field from the docstring of a dataclass and of its bases."""
    texts: dict[str, str] = {}
    for base in reversed(config.__mro__):
        for section in re.findall(
            r"(?:Attributes|Args):\n(.*?)(?:\n\s*\n|\Z)", base.__doc__ or "", re.DOTALL
        ):
            for name, text in re.findall(
                r"^ {4,8}(\w+): (.*?)(?=^ {4,8}\w+: |\Z)", section, re.DOTALL | re.MULTILINE
            ):
                texts[name] = " ".join(text.replace("``", "").replace("%", "%%").split())
    return texts


def _look_ahead(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Find the options that decide which other options there are; also the YAML files."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", nargs="*", action="extend", default=[])
    parser.add_argument("--model", nargs="?")
    parser.add_argument("--out", nargs="?")
    parser.add_argument("--resume", action="store_true")
    given, _ = parser.parse_known_args(_underscores(arguments))
    return given, given.config


def _read_files(files: Sequence[str], config: Any) -> dict[str, Any]:
    from .training.config import merge_settings, read_yaml

    values: dict[str, Any] = {}
    known = [item.name for item in dataclasses.fields(config)]
    for file in files:
        settings = _usage(read_yaml, file)
        for name in settings:
            if name not in known:
                raise UsageError(f"{file}: {unknown_name('option', name, known)}")
        values = merge_settings(values, settings)
    return values


def _usage(function: Callable[[Any], Any], value: Any) -> Any:
    """Call a function on what the user typed; its complaint is a usage error."""
    try:
        return function(value)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise UsageError(_one_line(error)) from error


def _underscores(arguments: list[str]) -> list[str]:
    """Write the names of options with underscores, as the fields have them."""
    named = [re.match(r"--([^=]+)(.*)", argument, re.DOTALL) for argument in arguments]
    return [
        f"--{match[1].replace('-', '_')}{match[2]}" if match else argument
        for match, argument in zip(named, arguments, strict=True)
    ]


def _unknown_option(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"unknown option {name}" + (f"; did you mean {near[0]}?" if near else "; see --help")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
