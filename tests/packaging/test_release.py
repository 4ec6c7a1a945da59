"""What a release says of itself agrees, and what strangers are asked for is asked for."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

import fastamr

from .environments import PROJECT, ROOT

TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
FORMS = [path for path in TEMPLATES if path.name != "config.yml"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_file_names_the_same_version() -> None:
    version = PROJECT["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert fastamr.__version__ == version
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version


def test_the_changelog_has_the_version_with_the_date_of_the_citation() -> None:
    headings = re.findall(r"^## (.*)$", read("CHANGELOG.md"), re.MULTILINE)
    citation = yaml.safe_load(read("CITATION.cff"))
    released = [heading for heading in headings if heading != "[Unreleased]"]
    assert headings[-len(released) :] == released, "what is not released stands first"
    assert released[0] == f"[{PROJECT['version']}] - {citation['date-released']}"


def test_the_citation_is_valid() -> None:
    """By hand what every file needs; by the schema where cffconvert is installed."""
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"]
    assert citation["title"].startswith(f"{PROJECT['name']}: ")
    assert citation["license"] == PROJECT["license"]
    assert all(author.keys() & {"name", "family-names"} for author in citation["authors"])
    cffconvert = pytest.importorskip("cffconvert", reason="cffconvert is not installed")
    cffconvert.Citation(read("CITATION.cff")).validate()


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_every_form_is_valid_and_asks_for_fastamr_info(path: Any) -> None:
    """What GitHub's syntax for forms of issues needs: a name, a description, and fields with ids of their own."""
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in form["body"]} <= {"markdown", "textarea", "checkboxes"}
    assert all(field["attributes"]["label"] for field in fields)
    names = [field["id"] for field in fields]
    assert len(set(names)) == len(names)
    asking = [field for field in fields if "fastamr info" in field["attributes"]["label"]]
    assert [field["validations"]["required"] for field in asking] == [True]


def test_there_are_forms_for_faults_speed_and_wishes() -> None:
    assert [path.stem for path in TEMPLATES] == ["bug", "config", "slow", "wish"]


def test_a_pull_request_is_asked_for_a_test_a_changelog_line_and_fastamr_info() -> None:
    text = read(".github/PULL_REQUEST_TEMPLATE.md")
    assert all(word in text for word in ("fastamr info", "CHANGELOG.md", "A test fails without the change"))


def test_faults_of_security_are_reported_in_private_and_no_address_is_given() -> None:
    text = read("SECURITY.md")
    assert "private security advisory" in text
    assert "fastamr info" in text
    assert re.findall(r"\S+@\S+\.\S+|mailto:", text) == []
