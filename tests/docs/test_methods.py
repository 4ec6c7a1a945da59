"""The method pages list every option of a method with the default that the code has, and use short sentences."""

from __future__ import annotations

import dataclasses
import re

import pytest

from fastamr.models import MODELS, ModelConfig

from .pages import PAGES, prose, read

_ROW = re.compile(r"^\| `(\w+)` \| `([^`]+)` \| (.+?) \|", re.MULTILINE)


def listed(page: str) -> dict[str, tuple[str, str]]:
    """Return default and source of each option in the tables of a page."""
    text = read(page).partition("## Options")[2].partition("\n## ")[0]
    return {name: (default, source) for name, default, source in _ROW.findall(text)}


def shown(value: object) -> str:
    return repr(value).replace("'", '"')


def own_options(config: type[ModelConfig]) -> dict[str, str]:
    """Return the options that a method adds, or whose default it changes."""
    base = {field.name: field.default for field in dataclasses.fields(ModelConfig)}
    return {
        field.name: shown(field.default)
        for field in dataclasses.fields(config)
        if field.name not in base or field.default != base[field.name]
    }


@pytest.mark.parametrize("name", MODELS)
def test_options_of_each_method_are_those_of_the_code(name: str) -> None:
    wanted = own_options(MODELS[name].Config)
    page = listed(f"docs/methods/{name}.md")
    assert {option: page.get(option, ("",))[0] for option in wanted} == wanted
    defaults = {field.name: shown(field.default) for field in dataclasses.fields(MODELS[name].Config)}
    assert {option: default for option, (default, _) in page.items()} == {
        option: defaults[option] for option in page
    }


def test_options_of_every_method_are_those_of_the_code() -> None:
    wanted = {field.name: shown(field.default) for field in dataclasses.fields(ModelConfig)}
    assert {option: default for option, (default, _) in listed("docs/methods/index.md").items()} == wanted


@pytest.mark.parametrize("name", MODELS)
def test_each_option_has_a_source(name: str) -> None:
    sources = [source for _, source in listed(f"docs/methods/{name}.md").values()]
    assert sources
    assert [source for source in sources if not re.search(r"paper|code|choice", source)] == []


def sentences(page: str) -> list[list[str]]:
    """Return the words of each sentence of the prose, without headings, tables, formulas and marks."""
    text = re.sub(r"\$\$.*?\$\$", "", prose(page), flags=re.DOTALL)
    text = re.sub(r"^(#.*|\|.*|<!--.*)$", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "code", text)
    parts = re.split(r"(?<=[.?!])\s+|\n\s*\n|\n- ", text)
    return [words for part in parts if (words := re.findall(r"[^\s*]+", part))]


@pytest.mark.parametrize("page", PAGES)
def test_sentences_are_short(page: str) -> None:
    found = sentences(page)
    assert len(found) > 2
    assert sum(map(len, found)) / len(found) < 16
    assert [" ".join(words) for words in found if len(words) > 35] == []
