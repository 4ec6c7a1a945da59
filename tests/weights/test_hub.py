"""Repositories of the Hugging Face Hub: its cache and offline mode with the real library, the rest with a stand-in."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import fastamr
from fastamr.features.run_settings import run_steps
from fastamr.models import ActionClassifier
from fastamr.weights import CONFIG_FILE, WEIGHTS_FILE, read_description

from .conftest import COMMIT, changed, laid_out, same_weights, tiny

needs_hub = pytest.mark.skipif(
    importlib.util.find_spec("huggingface_hub") is None, reason="huggingface_hub is not installed"
)
OTHER = "f" * 40


@pytest.fixture
def saved(tmp_path: Path) -> tuple[torch.nn.Module, Path]:
    """A model and its folder."""
    model = tiny()
    model.save_pretrained(tmp_path / "saved")
    return model, tmp_path / "saved"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the real library, offline; the current folder is an empty one."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "hub"


@needs_hub
class TestCache:
    def test_a_model_in_the_cache_needs_no_network(self, cache: Path, saved) -> None:
        snapshot = laid_out(cache, "owner/name", saved[1])
        assert (snapshot / WEIGHTS_FILE).is_symlink()
        again = fastamr.from_pretrained("owner/name")
        assert same_weights(again, saved[0])
        assert run_steps("owner/name") == ["center"]
        assert again.body_size == 0.5

    def test_branch_tag_and_commit(self, cache: Path, saved, tmp_path: Path) -> None:
        newer = tiny(frames=24)
        newer.save_pretrained(tmp_path / "newer")
        laid_out(cache, "owner/name", saved[1])
        laid_out(cache, "owner/name", tmp_path / "newer", revision="v2", commit=OTHER)
        frames = {"owner/name": 16, "owner/name@main": 16, "owner/name@v2": 24, f"owner/name@{OTHER}": 24}
        assert {name: fastamr.from_pretrained(name).config.frames for name in frames} == frames
        assert fastamr.from_pretrained("owner/name", revision=COMMIT).config.frames == 16
        assert fastamr.AMRModel.from_pretrained("owner/name", revision="v2").config.frames == 24

    def test_what_the_cache_lacks_is_said(self, cache: Path, saved) -> None:
        with pytest.raises(
            FileNotFoundError, match=r"config.json of .*not in the cache .*HF_HUB_OFFLINE is set"
        ):
            fastamr.from_pretrained("owner/name")
        laid_out(cache, "owner/name", saved[1])
        with pytest.raises(FileNotFoundError, match=r"config.json of .*not in the cache"):
            fastamr.from_pretrained("owner/name@v3")
        (cache / "models--owner--name" / "snapshots" / COMMIT / WEIGHTS_FILE).unlink()
        with pytest.raises(FileNotFoundError, match=r"model.safetensors of .*not in the cache"):
            fastamr.from_pretrained("owner/name")

    def test_pickles_in_the_cache_are_not_looked_at(self, cache: Path, saved) -> None:
        (saved[1] / WEIGHTS_FILE).rename(saved[1] / "pytorch_model.bin")
        laid_out(cache, "owner/name", saved[1])
        with pytest.raises(FileNotFoundError, match=r"model.safetensors of .*not in the cache"):
            fastamr.from_pretrained("owner/name")

    def test_a_damaged_blob_is_found(self, cache: Path, saved) -> None:
        blob = (laid_out(cache, "owner/name", saved[1]) / WEIGHTS_FILE).resolve()
        content = bytearray(blob.read_bytes())
        content[-1] ^= 1
        blob.write_bytes(content)
        with pytest.raises(ValueError, match=r"model.safetensors is damaged: tensor"):
            fastamr.from_pretrained("owner/name")

    def test_a_classifier(self, cache: Path, tmp_path: Path) -> None:
        ActionClassifier(tiny(), 3).save_pretrained(tmp_path / "three")
        laid_out(cache, "owner/three", tmp_path / "three")
        assert fastamr.from_pretrained("owner/three").classes == 3
        assert read_description("owner/three")["model"] == "action_classifier"


@needs_hub
@pytest.mark.slow
@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
def test_the_librarys_variables_hold(tmp_path: Path, saved, variable: str) -> None:
    """In a process of its own: the library reads them when it is imported."""
    laid_out(tmp_path / "home" / "hub", "owner/name", saved[1])
    place = tmp_path / "home" / ("hub" if variable == "HF_HUB_CACHE" else "")
    known = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    code = "import fastamr; print(fastamr.from_pretrained('owner/name').config.frames)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**known, variable: str(place), "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "16"


class StandIn(types.ModuleType):
    """What fastamr uses of huggingface_hub, with a folder as the Hub; it notes what it was asked for."""

    class errors:
        class LocalEntryNotFoundError(FileNotFoundError): ...

        class RepositoryNotFoundError(OSError): ...

        class RevisionNotFoundError(OSError): ...

        class EntryNotFoundError(Exception): ...

    class constants:
        HF_HUB_OFFLINE = False
        HF_HUB_CACHE = "cache"

    def __init__(self, folder: Path) -> None:
        super().__init__("huggingface_hub")
        self.folder, self.asked, self.sent = folder, [], {}
        self.error: Exception | None = None
        outer = self

        class HfApi:
            def __init__(self, token: str | None = None, **options: Any) -> None:
                outer.sent["token"] = token

            def create_repo(self, repository: str, **options: Any) -> str:
                outer.sent["made"] = (repository, options)
                return f"https://hub/{repository}"

            def create_branch(self, repository: str, **options: Any) -> None:
                outer.sent["branch"] = (repository, options)

            def upload_folder(self, *, folder_path: str, **options: Any) -> None:
                if outer.error is not None:
                    raise outer.error
                files = {file.name: file.read_bytes() for file in Path(folder_path).iterdir()}
                outer.sent |= {"files": files, "options": options}

        self.HfApi = HfApi

    def hf_hub_download(self, repository: str, name: str, *, revision: str | None, **options: Any) -> str:
        self.asked.append((repository, name, revision))
        if self.error is not None:
            raise self.error
        if not (self.folder / name).is_file():
            raise self.errors.EntryNotFoundError(name)
        return str(self.folder / name)


@pytest.fixture
def stand_in(tmp_path: Path, saved, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    commit = saved[1].rename(tmp_path / COMMIT)
    module = StandIn(commit)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.chdir(tmp_path)
    return module


class TestDownload:
    def test_two_files_by_name_of_one_commit_once(self, stand_in: StandIn, saved) -> None:
        for _ in range(2):
            assert same_weights(fastamr.from_pretrained("owner/name@v1"), saved[0])
        assert stand_in.asked == [("owner/name", CONFIG_FILE, "v1"), ("owner/name", WEIGHTS_FILE, COMMIT)]

    @pytest.mark.parametrize(
        "content", ['{"model_type": "bert"}', "[]", "{", '{"model": 1, "config": {}}', ""]
    )
    def test_weights_of_another_library_are_not_asked_for(self, stand_in: StandIn, content: str) -> None:
        (stand_in.folder / CONFIG_FILE).write_text(content)
        with pytest.raises(ValueError, match=r"config.json"):
            fastamr.from_pretrained("owner/name")
        assert [name for _, name, _ in stand_in.asked] == [CONFIG_FILE]

    @pytest.mark.parametrize(
        "change", [{"width": 10**9}, {"depth": 10**6}, {"frames": 10**9}, {"layout": "x" * 9}]
    )
    def test_a_configuration_of_the_hub_is_not_trusted(
        self, stand_in: StandIn, change: dict[str, Any]
    ) -> None:
        changed(stand_in.folder, **change)
        with pytest.raises(ValueError, match=next(iter(change))):
            fastamr.from_pretrained("owner/name")

    @pytest.mark.parametrize("steps", ["center", [1], [{"name": "center"}], {"a": 1}])
    def test_steps_that_are_none_are_refused(self, stand_in: StandIn, steps: Any) -> None:
        path = stand_in.folder / CONFIG_FILE
        path.write_text(json.dumps(json.loads(path.read_text()) | {"preprocess": steps}))
        with pytest.raises(ValueError, match=r"preprocess is .*expected a list of pre-processing steps"):
            fastamr.from_pretrained("owner/name")

    def test_a_model_that_nobody_registered_runs_no_code(self, stand_in: StandIn) -> None:
        path = stand_in.folder / CONFIG_FILE
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model": "os.system"}))
        with pytest.raises(ValueError, match=r"unknown model 'os.system'"):
            fastamr.from_pretrained("owner/name")

    def test_no_weights(self, stand_in: StandIn) -> None:
        (stand_in.folder / WEIGHTS_FILE).unlink()
        with pytest.raises(FileNotFoundError, match=r"holds no model.safetensors: nothing but"):
            fastamr.from_pretrained("owner/name")

    @pytest.mark.parametrize(
        ("error", "kind", "said"),
        [
            (StandIn.errors.RepositoryNotFoundError("401"), FileNotFoundError, "shows no such repository"),
            (StandIn.errors.RevisionNotFoundError("404"), FileNotFoundError, "has no such revision"),
            (StandIn.errors.LocalEntryNotFoundError("x"), FileNotFoundError, "the Hub could not be reached"),
            (RuntimeError("a\nb hf_abcdefghij"), ConnectionError, r"did not come .*: a b hf_\*\*\*$"),
            (ConnectionError("reset"), ConnectionError, "did not come .*reset"),
            (TimeoutError(), ConnectionError, "did not come .*TimeoutError"),
        ],
    )
    def test_errors_are_one_line(self, stand_in: StandIn, error: Exception, kind: type, said: str) -> None:
        stand_in.error = error
        with pytest.raises(kind, match=said) as found:
            fastamr.from_pretrained("owner/name")
        assert "\n" not in str(found.value)

    def test_an_error_is_not_remembered(self, stand_in: StandIn) -> None:
        stand_in.error = ConnectionError("reset")
        with pytest.raises(ConnectionError):
            fastamr.from_pretrained("owner/name")
        stand_in.error = None
        assert fastamr.from_pretrained("owner/name").config.frames == 16

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(FileNotFoundError, match=r"pip install 'fastamr\[hub\]'"):
            fastamr.from_pretrained("owner/name")
        with pytest.raises(ImportError, match=r"pip install 'fastamr\[hub\]'"):
            tiny().push_to_hub("owner/name")


class TestPush:
    def test_the_model_its_configuration_and_its_card_are_sent(
        self, stand_in: StandIn, saved, tmp_path
    ) -> None:
        address = saved[0].push_to_hub("owner/name", private=True, message="the first", token="hf_secret")
        assert address == "https://hub/owner/name"
        assert stand_in.sent["made"] == ("owner/name", {"private": True, "exist_ok": True})
        assert "branch" not in stand_in.sent
        options = stand_in.sent["options"]
        assert (options["repo_id"], options["revision"], options["commit_message"]) == (
            "owner/name",
            None,
            "the first",
        )
        files = stand_in.sent["files"]
        assert set(files) == {CONFIG_FILE, WEIGHTS_FILE, "README.md"} == set(options["allow_patterns"])
        for name, content in files.items():
            (tmp_path / "sent").mkdir(exist_ok=True)
            (tmp_path / "sent" / name).write_bytes(content)
            assert b"hf_secret" not in content
        assert same_weights(fastamr.from_pretrained(tmp_path / "sent"), saved[0])
        card = files["README.md"].decode()
        assert card.startswith('---\nlibrary_name: "fastamr"\n')
        assert 'fastamr.from_pretrained("owner/name")' in card
        assert "| pre-processing | center |" in card

    def test_a_branch_a_card_of_ones_own_and_a_classifier(self, stand_in: StandIn, tmp_path: Path) -> None:
        (tmp_path / "card.md").write_text("# mine\n")
        classifier = ActionClassifier(tiny(), 2, class_names=("sit", "stand"))
        classifier.push_to_hub("name", revision="next", card=tmp_path / "card.md")
        assert stand_in.sent["branch"] == ("name", {"branch": "next", "exist_ok": True})
        assert stand_in.sent["files"]["README.md"] == b"# mine\n"
        classifier.push_to_hub("name")
        assert b"| classes | sit, stand |" in stand_in.sent["files"]["README.md"]

    @pytest.mark.parametrize("token", ["hf_abcdefgh", "another kind of token"])
    def test_no_error_shows_the_token(self, stand_in: StandIn, saved, token: str) -> None:
        stand_in.error = OSError(f"403 for Bearer {token}\nat https://hub")
        with pytest.raises(ConnectionError, match="was not sent to the Hugging Face Hub: 403") as found:
            saved[0].push_to_hub("owner/name", token=token)
        assert token not in str(found.value)
        assert found.value.__cause__ is None
        assert found.value.__suppress_context__
