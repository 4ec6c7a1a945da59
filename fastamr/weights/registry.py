"""The weights that come with the package: ``registry.json`` names them, and the SHA-256 of their files."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..documents import load_json_text
from ..errors import shortened
from ..files import write_text
from .folder import CARD_FILE, FILES

HOME = Path(__file__).resolve().parent
"""The folder of ``registry.json``, with a folder of each model beside it."""

REGISTRY_FILE = "registry.json"
MOST_BYTES = 8_000_000
"""What all shipped files together may have, so that the package stays small (choice)."""

_NAME = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Shipped:
    """A model that comes with the package.

    Attributes:
        name: what it is called.
        summary: what it is, in one line.
        licence: of the weights, an SPDX identifier.
        terms: what its training data was, and under which terms.
        sha256: of ``config.json`` and ``model.safetensors``, 64 hexadecimal digits each.
    """

    name: str
    summary: str
    licence: str
    terms: str
    sha256: dict[str, str]

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return HOME / self.name

    @property
    def bytes(self) -> int:
        """Size of the files that it is loaded from; 0 for those that are missing."""
        return sum((self.folder / name).stat().st_size for name in FILES if (self.folder / name).is_file())

    def verified(self) -> Path:
        """Return the folder after its files were compared with their hashes.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is not the one that the registry knows.
        """
        for name in FILES:
            path = self.folder / name
            if not path.is_file():
                raise FileNotFoundError(f"{path} of the shipped model {self.name!r} is missing: {_AGAIN}")
            found = sha256_of(path)
            if found != self.sha256[name]:
                raise ValueError(
                    f"{path} is not the file that was shipped: its SHA-256 is {found[:16]}..., {REGISTRY_FILE} has "
                    f"{self.sha256[name][:16]}...; {_AGAIN}"
                )
        return self.folder


_AGAIN = "install fastamr again, or name a folder"


def shipped() -> dict[str, Shipped]:
    """Return the models that come with the package, by name.

    Raises:
        ValueError: ``registry.json`` is damaged.
    """
    path = HOME / REGISTRY_FILE
    try:
        return {name: _entry(name, values) for name, values in load_json_text(path).items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): install fastamr again") from None


def check_shipped_name(name: str) -> str:
    """Return the name of a shipped model, which is that of its folder too.

    Raises:
        ValueError: it may lead elsewhere.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"name {shortened(name)} must be small letters and digits with '-' or '.' between, as 'body-small'"
        )
    return name


def register_weights(name: str, *, summary: str, licence: str, terms: str) -> Shipped:
    """Write the entry of a model whose files lie in :data:`HOME`; an earlier entry of the name is replaced.

    Raises:
        FileNotFoundError: a file or the model card is missing.
        ValueError: a wrong name, or the shipped files would be larger than :data:`MOST_BYTES` together.
    """
    folder = HOME / check_shipped_name(name)
    for file in (*FILES, CARD_FILE):
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f"{folder / file} is missing: a shipped model has {', '.join(FILES)} and a card"
            )
    entry = Shipped(name, summary, licence, terms, {file: sha256_of(folder / file) for file in FILES})
    entries = shipped() | {name: entry}
    total = sum(one.bytes for one in entries.values())
    if total > MOST_BYTES:
        raise ValueError(
            f"the shipped weights would have {total:,} bytes, at most {MOST_BYTES:,} are allowed"
        )
    content = {
        one.name: {"summary": one.summary, "licence": one.licence, "terms": one.terms, "sha256": one.sha256}
        for one in sorted(entries.values(), key=lambda one: one.name)
    }
    write_text(HOME / REGISTRY_FILE, json.dumps(content, indent=2) + "\n")
    return entry


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(name: str, values: Any) -> Shipped:
    texts = {part: values[part] for part in ("summary", "licence", "terms")}
    sums = {file: values["sha256"][file] for file in FILES}
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError(f"{name!r}: summary, licence and terms must be texts")
    if not all(isinstance(value, str) and _HASH.fullmatch(value) for value in sums.values()):
        raise ValueError(f"{name!r}: sha256 must be 64 hexadecimal digits a file")
    return Shipped(name=check_shipped_name(name), sha256=sums, **texts)
