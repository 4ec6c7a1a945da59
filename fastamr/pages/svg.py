"""A drawing of matplotlib as a part of a page: in the page's ink and letters, without ids that another one has."""

from __future__ import annotations

import re
from xml.etree import ElementTree

INK = "#010203"
"""What is drawn in this colour gets the page's ink, dark on light paper and light on dark."""

_LEFT_OUT = {"metadata", "style", "script", "title"}
_FONT = re.compile(r"(font: [^;]*?[\d.]+px|font-family:) [^;]*")


def inline_svg(text: str, prefix: str) -> str:
    """Return a drawing as an ``svg`` element that stands in HTML.

    Args:
        text: a whole SVG file as matplotlib writes it.
        prefix: what its ids begin with, another one for each drawing of a page.
    """
    root = ElementTree.fromstring(text)
    used = set(re.findall(r"(?:url\(|href=\")#([^\")]+)", text))
    for parent in list(root.iter()):
        for child in [child for child in parent if _bare(child.tag) in _LEFT_OUT]:
            parent.remove(child)
    for item in root.iter():
        item.tag = _bare(item.tag)
        given = {_bare(name): value for name, value in item.attrib.items()}
        item.attrib.clear()
        item.attrib.update(
            {name: _own(name, value, prefix) for name, value in given.items() if _is_kept(name, value, used)}
        )
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    return ElementTree.tostring(root, encoding="unicode")


def _bare(name: str) -> str:
    """Return a name without its namespace."""
    return name.rsplit("}", 1)[-1]


def _is_kept(name: str, value: str, used: set[str]) -> bool:
    if name == "id":
        return value in used
    return name != "href" or value.startswith(("#", "data:image/png;base64,"))


def _own(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return prefix + value
    if name == "href":
        return value.replace("#", f"#{prefix}", 1) if value.startswith("#") else value
    if name == "style":
        value = _FONT.sub(r"\1 system-ui, sans-serif", value)
    return value.replace("url(#", f"url(#{prefix}").replace(INK, "currentColor")
