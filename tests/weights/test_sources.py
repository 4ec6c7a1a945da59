"""What a name means: a folder, a shipped model or a repository, in this order; and what is said of all else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import fastamr
from fastamr.models import ActionClassifier
from fastamr.weights import find_model, own_folder, read_description, sources
from fastamr.weights.sources import Repository, as_repository

from .conftest import same_weights, tiny


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Repository]:
    """What the Hub was asked for."""
    found: list[Repository] = []
    monkeypatch.setattr(
        sources, "download", lambda *repository: found.append(Repository(*repository)) or Path()
    )
    return found


def test_a_folder_wins_over_a_shipped_model_and_says_so_once(body_small: Path, capsys) -> None:
    own = tiny(frames=24)
    own.save_pretrained("body-small")
    for _ in range(2):
        assert same_weights(fastamr.from_pretrained("body-small"), own)
    assert capsys.readouterr().err.count("the folder body-small is taken, not the shipped model") == 1
    assert own_folder("body-small") == Path("body-small")


def test_a_shipped_model_is_no_folder_of_ones_own(body_small: Path) -> None:
    assert find_model("body-small") == body_small
    assert own_folder("body-small") is None
    assert read_description("body-small")["model"] == "amr"


def test_a_folder_wins_over_the_hub(asked: list[Repository], capsys) -> None:
    tiny().save_pretrained("owner/name")
    assert find_model("owner/name") == Path("owner/name")
    assert asked == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("source", "revision", "wanted"),
    [
        ("owner/name", None, ("owner/name", None)),
        ("owner/name@v1.0", None, ("owner/name", "v1.0")),
        ("owner/name", "refs/pr/1", ("owner/name", "refs/pr/1")),
        ("owner/name@main", "main", ("owner/name", "main")),
        ("0wner_/n.a-m_e", None, ("0wner_/n.a-m_e", None)),
    ],
)
def test_what_the_hub_is_asked_for(asked, source: str, revision: str | None, wanted: tuple) -> None:
    find_model(source, revision=revision)
    assert asked == [wanted]


@pytest.mark.parametrize(
    "source",
    [
        "../name", "./owner/name", "/owner/name", "owner/..", "owner/../x", "owner//name", "a/b/c", "~/name", "owner/",
        "own er/name", "owner/name\n", "owner\\name", "owner/name.git", "-owner/name", "owner/-name", "ówner/name",
        "o--x/name", "owner/n..e", "a" * 90 + "/" + "b" * 90, "owner:name", "https://huggingface.co/owner/name", "\0",
        "owner/name\0",
    ],
)  # fmt: skip
def test_the_hub_is_not_asked_for_what_is_no_repository(asked, source: str) -> None:
    assert as_repository(source) is None
    with pytest.raises(FileNotFoundError, match=r"no (folder|model)"):
        find_model(source)
    assert asked == []


@pytest.mark.parametrize("revision", ["../x", "a/../../b", "", "-x", "/x", "a b", "x\n", "a@b", ".."])
def test_a_revision_that_may_lead_elsewhere_is_refused(asked, revision: str) -> None:
    for source, given in ((f"owner/name@{revision}", None), ("owner/name", revision)):
        with pytest.raises(ValueError, match="must be a branch, a tag or a commit"):
            find_model(source, revision=given)
    assert asked == []


def test_a_revision_belongs_to_a_repository(body_small: Path) -> None:
    tiny().save_pretrained("own")
    for source, what in (("own", "a folder"), (Path("own"), "a folder"), ("body-small", "a shipped model")):
        with pytest.raises(ValueError, match=f"is {what}: omit revision"):
            find_model(source, revision="main")
    with pytest.raises(ValueError, match="name one"):
        find_model("owner/name@one", revision="two")


def test_a_path_is_never_a_name(body_small: Path, asked) -> None:
    for path in (Path("body-small"), Path("owner/name")):
        with pytest.raises(FileNotFoundError, match=r"holds no config.json"):
            fastamr.from_pretrained(path)
    assert asked == []


def test_a_mistyped_run_is_not_looked_for_on_the_hub(asked) -> None:
    tiny().save_pretrained("runs/amr-0")
    with pytest.raises(
        FileNotFoundError, match=r"did you mean 'runs/amr-0'.*write 'runs/amr0@main' for the repository"
    ):
        find_model("runs/amr0")
    assert asked == []
    find_model("runs/amr0@main")
    assert asked == [("runs/amr0", "main")]


@pytest.mark.parametrize("mistyped", ["body-smal", "bodysmall", "body_small", "Body-Small"])
def test_a_mistyped_name_gets_the_nearest(body_small: Path, mistyped: str) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no model .*there are: body-small.*did you mean 'body-small'\?"
    ):
        fastamr.from_pretrained(mistyped)


def test_a_mistyped_folder_gets_the_nearest(body_small: Path, tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path / "runs" / "first")
    with pytest.raises(FileNotFoundError, match=r"no folder .*did you mean .*runs/first.\?"):
        find_model(str(tmp_path / "runs" / "frist"))


def test_a_file_is_no_model() -> None:
    tiny().save_pretrained("own")
    with pytest.raises(FileNotFoundError, match="is a file, expected a model's folder"):
        find_model("own/model.safetensors")


def test_a_classifier_and_an_encoder_load_by_one_function(ships: Callable[..., Path]) -> None:
    classifier = ActionClassifier(tiny(), 3, class_names=("a", "b", "c")).eval()
    ships("named-three", classifier)
    again = fastamr.from_pretrained("named-three")
    assert isinstance(again, ActionClassifier)
    assert again.class_names == ("a", "b", "c")
    assert same_weights(again.head, classifier.head)
