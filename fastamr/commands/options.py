"""The parser that all commands share: jsonargparse with dashes, lists of words, ``--no-``, and help in two lengths."""

from __future__ import annotations

import argparse
import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import docstring_parser
import jsonargparse

from ..errors import UsageError, check_name
from ..skeleton import LAYOUTS, get_layout
from .spelling import RENAMED, modern

FLAG = jsonargparse.ActionYesNo(no_prefix="no-")
"""The action of an option with two forms, ``--NAME`` and ``--no-NAME``."""

Given = jsonargparse.Namespace
"""What was asked for, by the names of the options with underscores."""

_METAVARS = {
    "data": "FILE",
    "preprocess": "STEP",
    "checkpoint": "RUN",
    "fuse": "RUN",
    "teacher": "DIR",
    "out": "PATH",
}
_METAVARS_OF_TYPES = {"int": "INT", "float": "NUMBER"}


class _HelpFormatter(jsonargparse.DefaultHelpFormatter):
    """A value's type is its placeholder, defaults are as they are typed, lines of an epilog that fit stay."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        kind = (self._get_type_str(action) or "").split(" ")[0]
        return _METAVARS.get(action.dest) or _METAVARS_OF_TYPES.get(kind, "TEXT")

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = (action.help or "").removesuffix("."), action.default
        if isinstance(default, (list, tuple)):
            default = " ".join(map(str, default))
        if default is None or default is False or default == "":
            return text
        return f"{text} (default: {'on' if default is True else default})"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n".join(
            line if len(line) <= width else fill(line, width, indent) for line in text.splitlines()
        )


class CommandParser(jsonargparse.ArgumentParser):
    """The options of one command.

    jsonargparse knows types, nesting and help. What it lacks for our syntax is here: options made from a dataclass with
    dashes in their names and words as lists, short help, and errors of one line that name the option.

    Args:
        command: its name, as it is typed after ``fastamr``.
        usage: what must be given, as ``FILE --out DIR``.
        text: what the command does.
        epilog: more words for the end of the help.
        renamed: old names of options and new ones, where the command differs from the others.
    """

    def __init__(
        self,
        command: str,
        usage: str,
        text: str,
        *,
        epilog: str = "",
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            prog=f"fastamr {command}",
            usage=" ".join(f"fastamr {command} {usage} [options]".split()),
            description=text,
            epilog=epilog,
            formatter_class=_HelpFormatter,
            add_help=False,
            allow_abbrev=False,
            exit_on_error=False,
            print_config=None,
        )
        self._renamed = RENAMED | dict(renamed or {})
        self._fields: set[str] = set()
        self._more: list[Any] = []

    def more(self, title: str) -> Any:
        """Return a group of options that only ``--help-all`` shows."""
        group = self.add_argument_group(title)
        self._more.append(group)
        return group

    def add_fields(
        self,
        config: Any,
        first: Mapping[str, str],
        more: Mapping[str, str] | None = None,
        *,
        rest: str = "further options",
        part: str = "",
        into: str = "",
        skip: Sequence[str] = (),
        forms: Mapping[str, Mapping[str, Any]] | None = None,
        other_names: Mapping[str, str] | None = None,
    ) -> None:
        """Add an option for each field of a dataclass; defaults and help come from there.

        Args:
            config: the dataclass.
            first: titles of groups and the names of their fields, with spaces between.
            more: the same for what only ``--help-all`` shows.
            rest: title of all other fields.
            part: what options begin with, as ``model`` in ``--model.width``.
            into: the name that nests them in what :meth:`parse` returns; by default that of ``part``.
            skip: fields without an option.
            forms: what ``add_argument`` gets for a field that is typed otherwise than its type says.
            other_names: a second name of a field's option, as ``--model``.
        """
        hints, texts = typing.get_type_hints(config), _field_texts(config)
        fields = {
            item.name: item for item in dataclasses.fields(config) if item.init and item.name not in skip
        }
        groups = [(title, names.split(), False) for title, names in first.items()]
        groups += [(title, names.split(), True) for title, names in (more or {}).items()]
        named = {name for _, names, _ in groups for name in names}
        groups.append((rest, [name for name in fields if name not in named], True))
        for title, names, is_more in groups:
            if not names:
                continue
            group = self.more(title) if is_more else self.add_argument_group(title)
            for name in names:
                dest, option = f"{into or part}.{name}".lstrip("."), f"--{part}.{name}".replace("--.", "--")
                self._fields.add(dest)
                form = (forms or {}).get(name) or _field(hints[name], fields[name])
                names_of = [option.replace("_", "-"), *filter(None, [(other_names or {}).get(name)])]
                group.add_argument(*names_of, dest=dest, **{"help": texts.get(name), **form})

    def parse(self, words: Sequence[str]) -> Given:
        """Return what was asked for; of the fields of dataclasses only those that were given.

        Raises:
            UsageError: an option does not exist, its value has the wrong type, or something is missing.
            SystemExit: help was asked for and printed.
        """
        for word in words:
            if word in ("-h", "--help", "--help-all"):
                self._action_groups = sorted(self._action_groups, key=lambda group: group in self._more)
                print(self.format_help() if word == "--help-all" else self._short_help(), end="")
                raise SystemExit(0)
        actions = list(self._actions)  # jsonargparse may add its own when it parses
        flags = [action for action in actions if isinstance(action, jsonargparse.ActionYesNo)]
        words = modern(words, _names(actions), _names(flags), self._renamed)
        try:
            given = self.parse_args(words, defaults=False)
        except jsonargparse.ArgumentError as error:
            raise UsageError(self._told(str(error))) from None
        for action in actions:
            if action.dest not in self._fields and action.dest not in given:
                given[action.dest] = action.default
        return given

    def _short_help(self) -> str:
        """Return the help with the options that people need first."""
        groups, epilog = self._action_groups, self.epilog
        try:
            self._action_groups = [group for group in groups if group not in self._more]
            if self._more:
                self.epilog = f"{self.prog} --help-all lists all options."
            return self.format_help()
        finally:
            self._action_groups, self.epilog = groups, epilog

    def is_missing(self, *dests: str) -> str:
        """Return the complaint that options or arguments were not given, by their names in :data:`Given`."""
        typed = {action.dest: "/".join(action.option_strings) or _typed(action) for action in self._actions}
        names = " and ".join(typed[dest] for dest in dests)
        return f"{names} {'are' if len(dests) > 1 else 'is'} missing: {self._next_step()}"

    def _next_step(self) -> str:
        return f"type {self.usage}; see {self.prog} --help"

    def _told(self, message: str) -> str:
        """Return a message of jsonargparse in one line that names the option as it is typed."""
        typed = {action.dest: _typed(action) for action in self._actions}
        if match := re.match(r'Parser key "([^"]+)".*(?:Got value|Given value): (.*)', message, re.DOTALL):
            action = next(action for action in self._actions if action.dest == match[1])
            kind = jsonargparse.DefaultHelpFormatter(self.prog)._get_type_str(action)
            return f"{typed[match[1]]} must be {kind}, got {match[2]!r}"
        if match := re.match(r"the following arguments are required: (.*)", message):
            return self.is_missing(*match[1].split(", "))
        if match := re.match(r"unrecognized arguments: (.*)", message, re.DOTALL):
            # An unknown option was refused before, so these are words that stand behind none.
            return f"no option takes {match[1]!r}: {self._next_step()}"
        return " ".join(message.removeprefix("argument ").split())


def checked(check: Callable[[str], object]) -> Callable[[str], str]:
    """Return the type of an option whose words a function checks; its complaint becomes the error."""

    def read(word: str) -> str:
        try:
            check(word)
        except (TypeError, ValueError, FileNotFoundError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return word

    return read


def choice(what: str, known: Iterable[str]) -> dict[str, Any]:
    """Return how ``add_argument`` makes an option whose values are known; a wrong one gets the nearest there is."""
    names = tuple(known)
    kind = checked(lambda word: check_name(what, word, names))
    return {"type": kind, "metavar": "{" + ",".join(names) + "}" if len(names) < 10 else "NAME"}


def usage(function: Callable[..., Any], *values: Any, **settings: Any) -> Any:
    """Call a function with what the user typed; its complaint is a usage error."""
    try:
        return function(*values, **settings)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise UsageError(" ".join(str(error).split())) from error


def _names(actions: Iterable[argparse.Action]) -> set[str]:
    return {name for action in actions for name in action.option_strings}


def _typed(action: argparse.Action) -> str:
    return action.option_strings[0] if action.option_strings else str(action.metavar or action.dest)


def _field(hint: Any, item: dataclasses.Field[Any]) -> dict[str, Any]:
    """Return how ``add_argument`` makes a field's option: strings stand for objects and paths, words for lists."""
    default = None if item.default is dataclasses.MISSING else item.default
    if item.default_factory is not dataclasses.MISSING:
        default = item.default_factory()
    is_optional = False
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        options = [one for one in typing.get_args(hint) if one is not type(None)]
        is_optional = len(options) < len(typing.get_args(hint))
        hint = str if str in options else options[0]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is bool:
        form: dict[str, Any] = {"action": FLAG}
    elif origin is typing.Literal:
        form = choice(item.name, inner)
    elif origin in (list, tuple, Sequence):
        form = {
            "type": inner[0],
            "nargs": len(inner) if origin is tuple and inner[-1] is not Ellipsis else "*",
        }
        default = default if default is None else list(default)
    else:
        hint = hint if hint in (int, float) else str
        form = {"type": hint | None if is_optional else hint}
    return {**form, "default": default}


def _field_texts(config: Any) -> dict[str, str]:
    """Return the description of each field from the docstrings of a dataclass and of its bases."""
    texts = {}
    for base in reversed(config.__mro__):
        found = docstring_parser.parse(base.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE)
        for field in found.params:
            text = re.sub(r":\w+:`~?([^`]+)`|``", r"\1", field.description or "")
            texts[field.arg_name] = " ".join(text.split())
    return texts


def add_processing(parser: CommandParser) -> None:
    """Add ``--preset``, ``--preprocess`` and ``--dtype``."""
    from ..data.preprocessing.apply import parse_steps
    from ..data.preprocessing.presets import PRESETS

    add = parser.add_argument_group("processing").add_argument
    add("--preset", **choice("preset", PRESETS), help="a recipe of the field")
    add("--preprocess", nargs="*", type=checked(lambda word: parse_steps([word])), default=[],
        help="steps to apply after that, as center align_body resample:fps=30")  # fmt: skip
    add("--dtype", **choice("dtype", ("float32", "float16")), default="float32",
        help="of the coordinates; float16 is for centred data")  # fmt: skip


def add_reading(group: Any, *, rate: bool = True) -> None:
    """Add what a reader may need to know beside the file; :func:`reading` returns what was asked for."""
    add_layout(group, "the skeleton of a file that does not name it")
    group.add_argument("--min-confidence", type=float,
        help="mark joints of a lower confidence as not seen; by default those of confidence 0")  # fmt: skip
    if rate:
        group.add_argument("--fps", type=float, metavar="RATE",
            help="frames per second of data that does not say")  # fmt: skip
    group.add_argument(
        "--markers", metavar="FILE.yaml", help="which joints the markers of a C3D file make up"
    )
    group.add_argument("--track", action=FLAG, default=None,
        help="link people from frame to frame where a file tells no tracks; --no-track refuses that")  # fmt: skip


def reading(given: Given, *, rate: bool = True) -> dict[str, Any]:
    """Return the options of :func:`fastamr.data.read` that were asked for by those of :func:`add_reading`."""
    return {name: given[name] for name in ("layout", "min_confidence", "track", "markers", *["fps"] * rate)}


def add_labels(parser: CommandParser) -> None:
    """Add ``--labels``."""
    parser.add_argument_group("labels").add_argument("--labels", metavar="folder|FILE",
        help="the clips' classes: folder takes the folder that each file lies in; a CSV file has the columns name and "
        "label, and where known subject, split, person")  # fmt: skip


def add_layout(group: Any, text: str) -> None:
    """Add ``--layout``."""
    group.add_argument("--layout", type=checked(get_layout), metavar="NAME",
        help=f"{text}: {', '.join(LAYOUTS)}, or a YAML or JSON file with joints and parents")  # fmt: skip
