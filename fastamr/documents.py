"""YAML and JSON texts with limits, so that a small file can cost no more than its size, and text that is safe to show.

Every file of settings, layouts, mappings and descriptions is parsed here; motion data in JSON has its own parser, see
:mod:`fastamr.data.readers.common.json_text`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from .files import check_plain

MAX_BYTES = 16 << 20
"""Largest JSON text of settings that is parsed (choice): those of a run have a few kB."""

MAX_YAML_BYTES = 1 << 20
"""The same of a YAML text, whose parser takes about 2 s for as much."""

MAX_NODES = 20_000
"""Most values of a YAML text with its aliases written out (choice); these take the parser about 2 s too."""

MAX_NESTING = 64
"""How deep lists and mappings of a YAML text may lie in one another (choice)."""

_LARGEST_KEY = 1 << 63
# What moves the cursor, colours the terminal, turns the direction of writing round, or cannot be encoded.
_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """The safe loader with one more form of floating-point numbers."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_yaml(text: str, where: str) -> Any:
    """Return what a YAML text holds; ``1e-3`` is a number here, although YAML 1.1 takes it for a string.

    Args:
        text: the text; only plain values are made of it.
        where: names it in errors.

    Raises:
        ValueError: it is no YAML, or larger or deeper than :data:`MAX_YAML_BYTES`, :data:`MAX_NODES` and
            :data:`MAX_NESTING` allow with its aliases written out.
    """
    _check_size(len(text), where, MAX_YAML_BYTES)
    loader = None
    try:
        _check_events(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_nodes(node)
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError, LookupError, TypeError, AttributeError) as error:
        # A date of month 13, a number of 5,000 digits or a tag that a value does not fit raise their own kinds.
        raise ValueError(f"{where} is no YAML ({' '.join(str(error).split())[:300]})") from None
    except (RecursionError, MemoryError):
        raise ValueError(f"{where} is nested too deeply or too large for settings") from None
    finally:
        if loader is not None:
            loader.dispose()


def parse_json_text(text: str | bytes, where: str) -> Any:
    """Return what a JSON text holds.

    Raises:
        ValueError: it is no JSON in UTF-8, nested too deeply, or larger than :data:`MAX_BYTES`.
    """
    _check_size(len(text), where)
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{where}: brackets are nested too deeply") from None
    except MemoryError:
        raise ValueError(f"{where} is too large") from None
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON ({error})") from None


def load_yaml(path: str | Path, where: str | None = None) -> Any:
    """Return what a YAML file in UTF-8 holds, see :func:`parse_yaml`.

    Raises:
        OSError: it cannot be read.
        ValueError: as :func:`parse_yaml`.
    """
    return parse_yaml(_text(Path(path), where or str(path)), where or str(path))


def load_json_text(path: str | Path, where: str | None = None) -> Any:
    """Return what a JSON file in UTF-8 holds, see :func:`parse_json_text`.

    Raises:
        OSError: it cannot be read.
        ValueError: as :func:`parse_json_text`.
    """
    return parse_json_text(_text(Path(path), where or str(path)), where or str(path))


def printable(text: object) -> str:
    r"""Return a text from a file as it may be shown in a line of a terminal, in HTML or in SVG.

    Control characters, those that turn the direction of writing, and halves of surrogate pairs become escapes such as
    ``\x1b``; everything else stays. JSON needs no such help and keeps the text as it is.
    """
    return _UNSHOWN.sub(_escape, str(text))


def printable_lines(text: object) -> str:
    """Return a text of several lines as it may be shown: :func:`printable`, but its lines stay lines."""
    return "\n".join(map(printable, str(text).split("\n")))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _text(path: Path, where: str) -> str:
    check_plain(path)
    if path.is_file():
        _check_size(path.stat().st_size, where)
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(MAX_BYTES + 1)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}, byte {error.start}: not in UTF-8; save it in UTF-8") from None


def _check_size(size: int, where: str, most: int = MAX_BYTES) -> None:
    if size > most:
        raise ValueError(f"{where} has {size} bytes, more than the {most} that settings may have")


def _check_events(text: str) -> None:
    """Raise before nested brackets or indentation use up the stack, or many values the time."""
    depth = count = 0
    for event in yaml.parse(text, _Loader):
        count += isinstance(event, yaml.NodeEvent)
        if count > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} values")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_NESTING:
            raise ValueError(f"nested more than {MAX_NESTING} deep")


def _check_nodes(root: yaml.Node) -> None:
    """Raise where a document is larger than it may be with its aliases written out, or holds itself."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        known = sizes.get(id(node))
        if known is not None:
            if known < 0:
                raise ValueError("an alias stands for a value that holds it")
            return known
        sizes[id(node)] = -1
        count = 1
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                _check_key(key)
                count += size(key) + size(value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                count += size(item)
        if count > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} values, with its aliases written out")
        sizes[id(node)] = count
        return count

    size(root)


def _check_key(key: yaml.Node) -> None:
    """Raise for a number of more digits than 64 bits have: many such keys can share one hash."""
    if isinstance(key, yaml.ScalarNode) and key.tag.endswith(":int"):
        digits = re.sub(r"\D", "", key.value)
        if len(digits) > 19:
            raise ValueError(f"a key of {len(digits)} digits")
