"""Model cards in Markdown, with the head that the Hugging Face Hub reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..tables import markdown
from .folder import BODY_SIZE, FILES, PREPROCESS
from .registry import sha256_of


def model_card(
    title: str,
    description: Mapping[str, Any],
    folder: Path,
    *,
    licence: str | None = None,
    sections: Mapping[str, str] | None = None,
    figures: Sequence[Sequence[str]] = (),
) -> str:
    """Return the card of a saved model.

    Args:
        title: what the model is called: a shipped name, or ``owner/name``.
        description: what its ``config.json`` holds.
        folder: where its files lie, which are hashed.
        licence: an SPDX identifier; None = not said.
        sections: texts by title, as data, terms and the command of the training.
        figures: rows of a table of what was measured, the first one its head.
    """
    head = {"library_name": "fastamr", "tags": ["skeleton", "action-recognition", "self-supervised"]}
    head |= {} if licence is None else {"license": licence.lower()}
    config = description["config"]
    encoder = (
        config.get("encoder", {}).get("config", config) if isinstance(config.get("encoder"), dict) else config
    )
    layout = encoder.get("layout")
    facts = {
        "model": description["model"],
        "joints": layout.get("name") if isinstance(layout, dict) else layout,
        "clip": f"{encoder.get('frames')} frames of {encoder.get('channels')} coordinates",
        "encoder": f"{encoder.get('depth')} blocks of width {encoder.get('width')}",
        "classes": ", ".join(map(str, config["class_names"])) if config.get("class_names") else None,
        "pre-processing": " ".join(description.get(PREPROCESS) or ()) or None,
        "body size": description.get(BODY_SIZE),
    }
    rows = [("", ""), *((name, str(value)) for name, value in facts.items() if value is not None)]
    sums = [(name, f"{(folder / name).stat().st_size:,}", sha256_of(folder / name)) for name in FILES]
    parts = [
        "---\n" + "".join(f"{name}: {json.dumps(value)}\n" for name, value in head.items()) + "---",
        f"# {title}",
        markdown(rows, left=(0, 1)),
        f'```python\nimport fastamr\n\nmodel = fastamr.from_pretrained("{title}")\n```',
        *(f"## {name}\n\n{text}" for name, text in (sections or {}).items()),
        *(["## Figures\n\n" + markdown(figures, left=(0, 1))] if figures else []),
        "## Files\n\n" + markdown([("file", "bytes", "SHA-256"), *sums], left=(0, 2)),
    ]
    return "\n\n".join(parts) + "\n"
