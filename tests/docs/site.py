"""The documentation site as a reader gets it: built once for all workers, and its pages taken apart."""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from .pages import ROOT


@dataclass
class Links:
    """What a page offers as an anchor, links to, and loads by itself."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found = Links()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        self.found.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.found.links.append(values["href"])
        if tag in ("script", "img", "iframe", "source") and "src" in values:
            self.found.loads.append(values["src"])
        if tag == "link" and "href" in values and values.get("rel") not in ("canonical", "prev", "next"):
            self.found.loads.append(values["href"])


@functools.cache
def links_of(path: Path) -> Links:
    """Return the anchors and links of an HTML file."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.found


def is_elsewhere(link: str) -> bool:
    """Tell a link to another host."""
    parts = urlsplit(link)
    return bool(parts.scheme or parts.netloc)


def dead_links(site: Path, page: Path) -> Iterator[str]:
    """Yield the links of a page to files and anchors of the site that do not exist."""
    for link in {*links_of(page).links, *links_of(page).loads}:
        if is_elsewhere(link):
            continue
        address, anchor = urldefrag(link)
        path = unquote(urlsplit(address).path)
        target = (site / path.lstrip("/") if path.startswith("/") else page.parent / path) if path else page
        target = target / "index.html" if target.is_dir() else target
        if not target.is_file():
            yield f"{page.relative_to(site)}: {link}"
        elif anchor and target.suffix == ".html" and unquote(anchor) not in links_of(target).anchors:
            yield f"{page.relative_to(site)}: {link} has no such anchor"


def build_site(folder: Path) -> Path:
    """Build the site strictly below a folder, once, whoever comes first; return its folder."""
    site = folder / "site"
    with open(folder / "site.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not site.is_dir():
            command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
    return site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    for name in ("mkdocs", "mkdocstrings", "material", "latex2mathml"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'fastamr[docs]'")
    folder = tmp_path_factory.getbasetemp()
    return build_site(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder)
