"""Spellings of options: today's, the nearest one to a wrong one, and those of the last release with a notice."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Collection, Mapping, Sequence

from ..errors import UsageError

# Old names that mean the same in every command; a command may add its own.
RENAMED = {"--architecture": "--model", "--steps": "--preprocess", "--no-architecture": "--no-model"}
_TRUTH = {"true": True, "yes": True, "false": False, "no": False}


@functools.cache
def notice(text: str) -> None:
    """Print a line on standard error, the same one only once in a process."""
    print(f"notice: {text}", file=sys.stderr, flush=True)


def modern(
    words: Sequence[str], known: Collection[str], flags: Collection[str], renamed: Mapping[str, str]
) -> list[str]:
    """Return the words of a command line with every option in today's spelling; each old one gets a notice.

    Args:
        words: the words after the command.
        known: the options that there are, ``--no-...`` among them.
        flags: those that take no value.
        renamed: old names and new ones, beside the underscores that became dashes.

    Raises:
        UsageError: there is no such option, and it is no old spelling of one.
    """
    result: list[str] = []
    rest = list(words)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--"):
            result.append(name + equals + value)
            continue
        new = name if name in known else _renamed(name, renamed)
        if name == "--architecture":
            result += _settings([value] if equals else _values(rest), known)
        elif new not in known:
            raise UsageError(_unknown(name, new, known))
        elif new in flags and (said := value if equals else rest[0] if rest else "").lower() in _TRUTH:
            if not equals:
                rest.pop(0)
            result.append(new if _TRUTH[said.lower()] else _opposite(new))
            notice(f"{name} {said} is now written {result[-1]}")
        else:
            result.append(new + equals + value)
            if new != name:
                notice(f"{name} is now written {new}")
    return result


def _renamed(name: str, renamed: Mapping[str, str]) -> str:
    """Return an old name of an option as it is today."""
    first, dot, inner = name.replace("_", "-").partition(".")
    return renamed.get(first, first) + dot + inner


def _settings(words: Sequence[str], known: Collection[str]) -> list[str]:
    """Return ``NAME=VALUE`` words, which followed ``--architecture``, as options of the model."""
    result = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(
                f"--architecture {word!r}: write --model.NAME VALUE, for example --model.depth 4"
            )
        new = _renamed(f"--model.{name}", {})
        if new not in known:
            raise UsageError(_unknown(f"--architecture {name}", new, known))
        notice(f"--architecture {name}={value} is now written {new} {value.strip('[]').replace(',', ' ')}")
        if value.lower() in _TRUTH and f"--no-{new[2:]}" in known:
            result.append(new if _TRUTH[value.lower()] else _opposite(new))
        else:
            result += [new, *value.strip("[]").replace(",", " ").split()]
    return result


def _values(rest: list[str]) -> list[str]:
    """Take the words up to the next option off a list."""
    count = next((place for place, word in enumerate(rest) if word.startswith("--")), len(rest))
    taken, rest[:] = rest[:count], rest[count:]
    return taken


def _opposite(flag: str) -> str:
    return f"--{flag[5:]}" if flag.startswith("--no-") else f"--no-{flag[2:]}"


def _unknown(name: str, new: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(new, known, n=1, cutoff=0.4)
    return f"unknown option {name}" + (f"; did you mean {near[0]}?" if near else "; see --help")
