"""Repositories of the Hugging Face Hub: ``config.json`` and ``model.safetensors`` come, and a model with its card goes.

``huggingface_hub`` does it, so that its cache (``HF_HOME``, ``HF_HUB_CACHE``), offline mode (``HF_HUB_OFFLINE``), login
and endpoint hold here too. No other file is asked for, and none is unpickled.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from ..documents import printable
from ..files import temporary_folder, write_text
from ..version import __version__
from .card import model_card
from .folder import CONFIG_FILE, FILES, WEIGHTS_FILE, describe

MISSING = "repositories of the Hugging Face Hub need huggingface_hub: pip install 'fastamr[hub]'"
README = "README.md"
_TOKEN = re.compile(r"hf_\w{4,}")
_US: dict[str, Any] = {"library_name": "fastamr", "library_version": __version__}


@functools.cache
def download(repository: str, revision: str | None = None) -> Path:
    """Return the folder of the Hub's cache that holds a model, after downloading what it lacks.

    The configuration is looked at before the weights are asked for. A process asks once for each repository, so that
    all files are of one commit.

    Args:
        repository: ``owner/name``.
        revision: branch, tag or commit; None = ``main``.

    Raises:
        FileNotFoundError: huggingface_hub is not installed; there is no such repository, revision or file, or, offline,
            none in the cache.
        ValueError: the repository holds no model of this library.
        ConnectionError: the Hub cannot be reached, or refuses.
    """
    folder = _fetched(repository, CONFIG_FILE, revision).parent
    describe(folder)
    # The folder is named after the commit.
    weights = _fetched(repository, WEIGHTS_FILE, folder.name)
    if weights.parent != folder:
        raise ValueError(
            f"{repository}: {weights} lies in another folder than {folder / CONFIG_FILE}: empty the Hub's cache"
        )
    return folder


def _fetched(repository: str, name: str, revision: str | None) -> Path:
    """Return a file of a repository in the Hub's cache, after downloading it where it is missing."""
    try:
        import huggingface_hub
    except ImportError:
        raise FileNotFoundError(f"no folder {repository!r} is here, and {MISSING}") from None
    try:
        return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision, **_US))
    except Exception as error:
        what = repository if revision is None else f"{repository}@{revision}"
        raise _told(what, name, error) from None


def _told(what: str, name: str, error: Exception) -> Exception:
    """Return what to raise where huggingface_hub did not give a file, in one line."""
    from huggingface_hub import constants, errors

    where = f"no folder {what!r} is here, and the Hugging Face Hub"
    # What is not in the cache is an entry that was not found too.
    if isinstance(error, errors.LocalEntryNotFoundError):
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hub could not be reached"
        return FileNotFoundError(
            f"no folder {what!r} is here, {name} of the repository of that name is not in the cache "
            f"{constants.HF_HUB_CACHE}, and {why}: check the name, or download it where there is a network"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return FileNotFoundError(
            f"{where} shows no such repository: check the name, or log in (hf auth login)"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return FileNotFoundError(f"the repository {what} has no such revision: check its branches and tags")
    if isinstance(error, errors.EntryNotFoundError):
        return FileNotFoundError(
            f"the repository {what} holds no {name}: nothing but {' and '.join(FILES)} is loaded"
        )
    if isinstance(error, MemoryError):
        return error
    return ConnectionError(f"{name} of {what} did not come from the Hugging Face Hub: {_reason(error)}")


class Publishable:
    """What models share that can be sent to the Hugging Face Hub."""

    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``, each in one piece, into a folder."""
        raise NotImplementedError(f"{type(self).__name__} is not saved by save_pretrained: implement it")

    def push_to_hub(
        self,
        repository: str,
        *,
        revision: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        message: str = "Upload a fastamr model",
        card: str | Path | None = None,
    ) -> str:
        """Send the model and its card to a repository of the Hugging Face Hub, which is made where it is missing.

        ``config.json``, ``model.safetensors`` and ``README.md`` (the card) are replaced; other files stay.

        Args:
            repository: ``owner/name``, or ``name`` for one's own.
            revision: branch, made where it is missing; None = ``main``.
            private: of a repository that is made; None = what the owner's settings say.
            token: of the Hub; None = that of ``hf auth login`` or ``HF_TOKEN``. It is never shown or written.
            message: of the commit.
            card: the model card in Markdown, or its file; None = one that says what the configuration holds.

        Returns:
            The repository's address.

        Raises:
            ImportError: huggingface_hub is not installed.
            FileNotFoundError: ``card`` is a file that does not exist.
            ConnectionError: the Hub refuses, or cannot be reached.
        """
        try:
            import huggingface_hub
        except ImportError as error:
            raise ImportError(MISSING) from error
        given = card.read_text(encoding="utf-8") if isinstance(card, Path) else card
        with temporary_folder() as folder:
            self.save_pretrained(folder)
            write_text(folder / README, given or model_card(repository, describe(folder), folder))
            try:
                api: Any = huggingface_hub.HfApi(token=token, **_US)
                made = api.create_repo(repository, private=private, exist_ok=True)
                name = getattr(made, "repo_id", repository)
                if revision is not None:
                    api.create_branch(name, branch=revision, exist_ok=True)
                api.upload_folder(
                    repo_id=name,
                    folder_path=str(folder),
                    revision=revision,
                    commit_message=message,
                    allow_patterns=[*FILES, README],
                )
            except Exception as error:
                # Not chained: what huggingface_hub says may hold the token.
                text = f"{repository} was not sent to the Hugging Face Hub: {_reason(error, token)}"
                raise ConnectionError(text) from None
        return str(made)


def _reason(error: Exception, token: str | None = None) -> str:
    """Return what an error of huggingface_hub says in one line, without a token."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text.replace(token, "***") if token else text
    return printable(_TOKEN.sub("hf_***", text))[:300]
