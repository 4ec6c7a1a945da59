"""``fastamr models [NAME]``: the pre-trained weights that come with the package."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..options import FLAG, CommandParser

if TYPE_CHECKING:
    from ...weights import Shipped


def run(words: list[str]) -> None:
    """Carry out the command."""
    from ...documents import printable_lines
    from ...errors import check_name
    from ...weights import CARD_FILE, shipped
    from ..options import usage

    given = _parser().parse(words)
    entries = shipped()
    if given.name is not None:
        if not entries:
            raise ValueError(f"{given.name!r} is no shipped model: this version comes without weights")
        usage(check_name, "model", given.name, entries)
        entries = {given.name: entries[given.name]}
    if given.json:
        print(json.dumps([_facts(one) for one in entries.values()], indent=2))
    elif given.name is not None:
        entry = entries[given.name]
        folder = entry.verified()
        print(printable_lines((folder / CARD_FILE).read_text(encoding="utf-8")))
        print(f"{entry.name} lies in {folder}; its files have the hashes of the registry")
    else:
        print(_overview([_facts(one) for one in entries.values()]))


def _facts(entry: Shipped) -> dict[str, Any]:
    """Return what is said of a shipped model; raises where its files are not those that were shipped."""
    from ...weights import read_description

    folder = entry.verified()
    description = read_description(folder)
    config = description["config"]
    layout = config.get("layout")
    return {
        "name": entry.name,
        "model": description["model"],
        "layout": layout.get("name") if isinstance(layout, dict) else layout,
        "channels": config.get("channels"),
        "frames": config.get("frames"),
        "preprocess": description.get("preprocess"),
        "bytes": entry.bytes,
        "licence": entry.licence,
        "summary": entry.summary,
        "terms": entry.terms,
        "folder": str(folder),
        "sha256": entry.sha256,
    }


def _overview(facts: list[dict[str, Any]]) -> str:
    from ...tables import aligned

    if not facts:
        return (
            "this version comes without weights; a folder of fastamr pretrain, or owner/name of the Hugging Face Hub, "
            "is taken wherever a model is asked for"
        )
    rows = [("name", "model", "layout", "MB", "licence", "what it is")]
    rows += [
        (
            one["name"],
            one["model"],
            str(one["layout"]),
            f"{one['bytes'] / 1e6:.1f}",
            one["licence"],
            one["summary"],
        )
        for one in facts
    ]
    places = "\n".join(f"{one['name']}: {one['terms']} ({one['folder']})" for one in facts)
    return f"{aligned(rows, left=(0, 1, 2, 4, 5))}\n\n{places}\n\nfastamr models NAME shows a model's card."


def _parser() -> CommandParser:
    text = "List the pre-trained weights that come with the package, or show the card of one."
    parser = CommandParser("models", "[NAME]", text)
    parser.add_argument("name", metavar="NAME", nargs="?", help="a shipped model")
    parser.add_argument(
        "--json", action=FLAG, default=False, help="print JSON, with hashes and pre-processing"
    )
    return parser
