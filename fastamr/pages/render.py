"""Fill the page's template; here, and nowhere else, do texts from files become HTML."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from ..documents import printable
from .parts import Chart, Part


def render_page(title: str, parts: Sequence[Part], *, contents: bool = False, about: str = "") -> str:
    """Return a whole page of HTML, which loads nothing from elsewhere and runs no script.

    Every text is escaped, and what moves a cursor or turns the direction of writing shows as ``\\x1b``.

    Args:
        title: its heading.
        parts: what is in it; those without a block are left out, those without a title come first.
        contents: begin with a list of the parts, as links.
        about: a line below the heading, or "".
    """
    found = [part for part in parts if part.blocks]
    return _template().render(title=title, parts=found, contents=contents, about=about)


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"drawing": Markup, "in_rows": _in_rows}
    return environment.get_template("page.html")


def _shown(value: Any) -> Any:
    """Return what the template prints: drawings of ours as they are, all else as text without control characters."""
    return value if isinstance(value, Markup) else printable(value)


def _in_rows(blocks: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield neighbours that are charts together, and other neighbours together."""
    for _, group in itertools.groupby(blocks, lambda block: isinstance(block, Chart)):
        yield list(group)
