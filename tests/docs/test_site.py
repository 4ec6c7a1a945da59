"""The site builds without a warning, works without a network, and leads nowhere that does not exist."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from pathlib import Path

import pytest

import fastamr

from .pages import ROOT
from .site import dead_links, is_elsewhere, links_of
from .site import site as site

pytestmark = pytest.mark.slow


def pages_of(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_every_page_is_built(site: Path) -> None:
    wanted = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    assert len(wanted) > 25
    built = [
        site / name.parent / ("" if name.name == "index" else name.name) / "index.html" for name in wanted
    ]
    assert [path for path in built if not path.is_file()] == []
    assert (site / "contributing/index.html").is_file()
    assert (site / "changelog/index.html").is_file()


def test_no_link_or_anchor_is_dead(site: Path) -> None:
    assert sum(len(links_of(page).links) for page in pages_of(site)) > 3000
    # The page of a missing address links from the root of a host.
    assert [
        link for page in pages_of(site) if page.name != "404.html" for link in dead_links(site, page)
    ] == []


def test_a_dead_link_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text(
        '<h1 id="here">x</h1><a href="#here"></a><a href="#gone"></a><a href="none/"></a><img src="no.png">',
        encoding="utf-8",
    )
    assert sorted(dead_links(tmp_path, page)) == [
        "index.html: #gone has no such anchor",
        "index.html: no.png",
        "index.html: none/",
    ]


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    assert {load for page in pages_of(site) for load in links_of(page).loads if is_elsewhere(load)} == set()
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert len(styles) > 2
    assert [
        url for style in styles for url in re.findall(r"(?:url\(|@import\s+)[\"']?(https?:[^\"')]+)", style)
    ] == []


def test_the_search_index_holds_what_people_look_for(site: Path) -> None:
    entries = json.loads((site / "search/search_index.json").read_text(encoding="utf-8"))["docs"]
    places = {}
    for term in (
        "motion_guidance",
        "SLURM",
        "Sinkhorn",
        "torch.compile",
        "FASTAMR_BACKEND",
        "yolo",
        "glossary",
    ):
        found = [
            entry["location"] for entry in entries if term.lower() in (entry["title"] + entry["text"]).lower()
        ]
        assert found, term
        places[term] = found
    assert any(place.startswith("api/fastamr.ops/#") for place in places["motion_guidance"])
    assert any(place.startswith("scaling/#slurm") for place in places["SLURM"])


def public_names() -> dict[str, list[str]]:
    """Return the public names of every package, and of the modules right below ``fastamr``, as Python has them."""
    rooms = [
        one.name
        for one in pkgutil.walk_packages(fastamr.__path__, "fastamr.")
        if (one.ispkg or one.name.count(".") == 1) and not one.name.endswith("__main__")
    ]
    modules = {name: importlib.import_module(name) for name in ("fastamr", *rooms)}
    return {name: list(module.__all__) for name, module in modules.items() if hasattr(module, "__all__")}


def test_every_public_name_is_described(site: Path) -> None:
    public = public_names()
    assert len(public) > 20
    missing = []
    for package, names in public.items():
        page = site / "api" / package / "index.html"
        assert page.is_file(), f"{package} has no page"
        # A function that is called as its file must not be shown as the file.
        assert page.read_text(encoding="utf-8").count("doc-object doc-module") == 1, package
        found = links_of(page)
        linked = {link.rpartition("#")[2].rpartition(".")[2] for link in found.links if "#fastamr." in link}
        missing += [
            f"{package}.{name}"
            for name in names
            if f"{package}.{name}" not in found.anchors and name not in linked
        ]
    assert missing == []


def test_formulas_are_drawn_by_the_browser_itself(site: Path) -> None:
    """As MathML: no script reads TeX, so none may be left."""
    for name in ("amr", "skeleton_mae", "mamp", "gfp", "asma", "slim"):
        html = (site / "methods" / name / "index.html").read_text(encoding="utf-8")
        assert html.count("<math") >= 2, name
    left = [
        page
        for page in pages_of(site)
        if "arithmatex" in (html := page.read_text(encoding="utf-8"))
        or re.search(r"\\(?:frac|sum|lVert)", html)
    ]
    assert left == []


def test_no_list_or_role_is_left_as_plain_text(site: Path) -> None:
    """What a code host shows as a list must be one here, and roles of docstrings must be gone."""
    wrong = []
    for page in pages_of(site):
        html = page.read_text(encoding="utf-8")
        wrong += [f"{page.parent.name}: {text}" for text in re.findall(r"<p>[^<]*\n- [^<]{0,60}", html)]
        wrong += [
            f"{page.parent.name}: {text}"
            for text in re.findall(r":(?:class|func|meth|mod):<code>.{0,60}", html)
        ]
    assert wrong == []
