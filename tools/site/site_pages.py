"""What mkdocs does beside rendering ``docs/``: see ``hooks`` in mkdocs.yml.

It adds the pages of the API reference (one a public package), CONTRIBUTING.md and CHANGELOG.md. It turns names of pages
and of public objects into links, and formulas into MathML, which needs no script and no network.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import griffe
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
# What most readers look for comes first; the rest follows in the order of names.
FIRST = (
    "fastamr",
    "fastamr.models",
    "fastamr.nn",
    "fastamr.ops",
    "fastamr.training",
    "fastamr.data",
    "fastamr.skeleton",
    "fastamr.evaluation",
    "fastamr.export",
    "fastamr.visualization",
)
# Modules without __all__ that pages recommend.
MODULES = ("fastamr.memory", "fastamr.info")
PACKAGES_HERE = "<!-- packages -->"
# Pages made of files beside docs/.
COPIES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\(?P<open>[(\[])(?P<text>.*?)\\[)\]]</\1>', re.DOTALL)
# A name in a code span, after the role that docstrings give it; what is a link already follows a quote and ">".
_NAME = re.compile(r'(?<!">)(:(?:class|func|meth|mod|attr|data|obj):)?<code>~?([\w.]+)</code>')


@dataclass(frozen=True)
class PublicPackage:
    """A package or module with its public names.

    Attributes:
        name: its own.
        own: the names that its page describes, and where the documented object lies: a function that is called as
            its file is hidden by it.
        elsewhere: the names that another page describes, with their names there.
        summary: the first line of its docstring.
    """

    name: str
    own: dict[str, str]
    elsewhere: dict[str, str]
    summary: str

    @property
    def page(self) -> str:
        """The page below ``docs/``."""
        return f"api/{self.name}.md"

    def markdown(self) -> str:
        """Return the page: the docstring, links to what is described elsewhere, then each own name."""
        lines = [f"# `{self.name}`", "", f"::: {self.name}", "    options:", "      members: false",
                 "      show_root_heading: false", "      show_root_toc_entry: false", ""]  # fmt: skip
        if self.elsewhere:
            lines += ["| name | described in |", "|---|---|"]
            lines += [f"| [`{name}`][{path}] | `{path}` |" for name, path in sorted(self.elsewhere.items())]
            lines += [""]
        for name, path in self.own.items():
            if path != f"{self.name}.{name}":
                lines += [f"[](){{#{self.name}.{name}}}", ""]
            lines += [f"::: {path}", ""]
        return "\n".join(lines)


@functools.cache
def public_packages() -> tuple[PublicPackage, ...]:
    """Return every package with public names; an object is described where its path is shortest to its source."""
    package = griffe.load("fastamr", search_paths=[str(ROOT)])
    assert isinstance(package, griffe.Module)
    found: dict[str, griffe.Module] = {}
    _collect(package, found)
    homes: dict[str, str] = {}
    names = {path: _public_names(module) for path, module in found.items()}
    # fastamr itself only links: its names live in its packages.
    for path in sorted(found, key=lambda path: (path == "fastamr", -path.count("."), path)):
        for name in names[path]:
            source = _source(found[path], name)
            best = homes.get(source)
            if best is None or _shared(path, source) > _shared(best.rpartition(".")[0], source):
                homes[source] = f"{path}.{name}"
    order = {name: place for place, name in enumerate(FIRST)}
    pages = []
    for path in sorted(found, key=lambda path: (order.get(path, len(order)), path)):
        places = {name: homes[_source(found[path], name)] for name in names[path]}
        own = {
            name: _object_path(found[path], name) for name in names[path] if places[name] == f"{path}.{name}"
        }
        elsewhere = {name: place for name, place in places.items() if name not in own}
        docstring = found[path].docstring
        pages.append(PublicPackage(path, own, elsewhere, _summary(docstring.value if docstring else "")))
    return tuple(pages)


def _collect(module: griffe.Module, found: dict[str, griffe.Module]) -> None:
    is_room = module.is_init_module or module.path.count(".") == 1
    if (module.exports and is_room) or module.path in MODULES:
        found[module.path] = module
    for child in module.modules.values():
        if not child.is_alias:
            _collect(child, found)


def _public_names(module: griffe.Module) -> tuple[str, ...]:
    if module.exports:
        return tuple(sorted((str(name) for name in module.exports), key=str.lower))
    own = (*module.functions.values(), *module.classes.values())
    return tuple(
        sorted((one.name for one in own if not one.is_alias and not one.name.startswith("_")), key=str.lower)
    )


def _object_path(module: griffe.Module, name: str) -> str:
    """Return the path of a name: where a file is called as what it defines, what is meant lies in the file."""
    return f"{module.path}.{name}.{name}" if module[name].is_module else f"{module.path}.{name}"


def _source(module: griffe.Module, name: str) -> str:
    found = module[name]
    return (found[name] if found.is_module else found).canonical_path


def _summary(docstring: str) -> str:
    """Return the first line, with the marks of Markdown in place of those of a role."""
    return re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", docstring.partition("\n")[0])


def _shared(path: str, source: str) -> int:
    """Count the leading parts that a package's path shares with an object's."""
    pairs = zip(path.split("."), source.split("."), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of the API into the navigation."""
    for entry in config.nav or ():
        if "API" in entry:
            entry["API"] += [{package.name: package.page} for package in public_packages()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in ``docs/``."""
    for name, source in COPIES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    for package in public_packages():
        files.append(File.generated(config, package.page, content=package.markdown()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the name of a page in backticks, as pages read on a code host have it, into a link."""

    def link(match: re.Match[str]) -> str:
        target = f"{match[1]}.md"
        if target == page.file.src_uri or files.get_file_from_path(target) is None:
            return match[0]
        folder = os.path.dirname(page.file.src_uri) or "."
        return f"[{match[1]}]({os.path.relpath(target, folder)})"

    if PACKAGES_HERE in markdown:
        rows = [f"| [`{one.name}`]({Path(one.page).name}) | {one.summary} |" for one in public_packages()]
        markdown = markdown.replace(PACKAGES_HERE, "\n".join(["| package | holds |", "|---|---|", *rows]))
    parts = re.split(r"(^ *```.*?^ *```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if place % 2 else re.sub(r"(?<!\[)`docs/([\w/]+)\.md`", link, part)
                   for place, part in enumerate(parts))  # fmt: skip


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn formulas into MathML, and names of public objects into links to the reference."""
    return _NAME.sub(_reference, _FORMULA.sub(_formula, html))


def _formula(match: re.Match[str]) -> str:
    display = "block" if match["open"] == "[" else "inline"
    return str(convert(unescape(match["text"]).strip(), display=display))


def _reference(match: re.Match[str]) -> str:
    role, name = match.groups()
    path: str | None = name
    if not name.startswith("fastamr."):
        path = _short_names().get(name.rpartition(".")[2]) if role else None
    if path is None:
        return f"<code>{name}</code>"
    return f'<autoref identifier="{path}" optional><code>{name}</code></autoref>'


@functools.cache
def _short_names() -> dict[str, str]:
    """Return the public path of each name that is public once."""
    return {name: f"{package.name}.{name}" for package in public_packages() for name in package.own}
