"""What a checkpoint's name means: a folder first, then a shipped model, then a repository of the Hugging Face Hub."""

from __future__ import annotations

import difflib
import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import shortened
from ..progress import say
from .folder import CONFIG_FILE, FILES, describe
from .hub import download
from .registry import shipped

# github.com/huggingface/huggingface_hub, validate_repo_id: letters, digits, "-", "_", "."; at most 96 characters.
_REPOSITORY = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[\w][\w./-]*", re.ASCII)
_LONGEST = 96


class Repository(NamedTuple):
    """A repository of the Hub: ``owner/name``, and the branch, tag or commit; None = ``main``."""

    name: str
    revision: str | None


def find_model(source: str | Path, *, revision: str | None = None) -> Path:
    """Return the folder that holds a model's ``config.json`` and ``model.safetensors``.

    A text means, in this order (as transformers takes it, whose second step is missing): a folder; a model that comes
    with the package, whose files are compared with their hashes; ``owner/name`` or ``owner/name@REVISION``, a
    repository of the Hugging Face Hub, which is taken from its cache, or downloaded. The Hub is not asked where a
    folder ``owner`` is here: the name is then a mistyped folder. A ``Path`` is always a folder.

    Args:
        source: the name.
        revision: branch, tag or commit of a repository.

    Raises:
        FileNotFoundError: it is none of these, with the nearest name; the Hub has no such repository, revision or file.
        ValueError: a shipped file has another hash; a name or revision that may lead elsewhere; ``revision`` for what
            has none.
        ConnectionError: the Hub cannot be reached, and its cache does not hold the model.
    """
    if isinstance(source, Path) or Path(source).is_dir():
        if revision is not None:
            raise _no_revision(source, revision, "a folder")
        if isinstance(source, str) and "/" not in source and source in shipped():
            _tell_once(f"note: the folder {source} is taken, not the shipped model of that name")
        return Path(source)
    if (entry := shipped().get(source)) is not None:
        if revision is not None:
            raise _no_revision(source, revision, "a shipped model")
        return entry.verified()
    repository = None if Path(source).is_file() else as_repository(source, revision)
    if repository is None:
        raise FileNotFoundError(_unknown(source))
    if revision is None and "@" not in source and (above := Path(source).parent).is_dir():
        near = _nearest(Path(source).name, [path.parent.name for path in above.glob(f"*/{CONFIG_FILE}")])
        hint = f"; did you mean {str(above / near)!r}?" if near else ""
        raise FileNotFoundError(
            f"no folder {source!r} with a model is here{hint}; write {source + '@main'!r} for the repository of that "
            "name on the Hugging Face Hub"
        )
    return download(*repository)


def read_description(source: str | Path) -> dict[str, Any]:
    """Read ``config.json`` of a model: ``{"model": name, "config": {...}}``, perhaps with ``body_size`` and more.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: the file is damaged; see also :func:`find_model`.
    """
    return describe(find_model(source))


def own_folder(source: str | Path) -> Path | None:
    """Return the folder of a model that results may be written into; None for shipped models and the Hub's."""
    return Path(source) if Path(source).is_dir() else None


def as_repository(source: str, revision: str | None = None) -> Repository | None:
    """Return the repository that a name means; None where it has another form.

    Raises:
        ValueError: a repository whose revision may lead elsewhere, or two different revisions.
    """
    name, at, named = source.partition("@")
    is_sound = (
        len(name) <= _LONGEST
        and ".." not in name
        and "--" not in name
        and not name.endswith((".git", ".", "-"))
    )
    if not (is_sound and _REPOSITORY.fullmatch(name)):
        return None
    if at and revision is not None and named != revision:
        raise ValueError(
            f"{shortened(source)} names a revision, and revision is {shortened(revision)}: name one"
        )
    wanted = named if at else revision
    if wanted is not None and (not _REVISION.fullmatch(wanted) or ".." in wanted):
        raise ValueError(f"revision {shortened(wanted)} of {name!r} must be a branch, a tag or a commit")
    return Repository(name, wanted)


@functools.cache
def _tell_once(text: str) -> None:
    say(text)


def _no_revision(source: str | Path, revision: str, what: str) -> ValueError:
    return ValueError(f"revision is {shortened(revision)}, and {str(source)!r} is {what}: omit revision")


def _unknown(source: str) -> str:
    """Return what to say of a name that is no folder, no shipped model, and no repository."""
    path, names = Path(source), list(shipped())
    if path.is_file():
        return (
            f"{source} is a file, expected a model's folder: name the folder that holds {' and '.join(FILES)}"
        )
    beside = [one.parent.name for one in path.parent.glob(f"*/{CONFIG_FILE}")] if path.parent.is_dir() else []
    is_word = path.name == source
    near = _nearest(path.name, [*beside, *(names if is_word else [])])
    hint = (
        "" if near is None else f"; did you mean {str(path.with_name(near)) if near in beside else near!r}?"
    )
    if not is_word:
        return f"no folder {shortened(source)} is there, expected one that save_pretrained or a run has written{hint}"
    return (
        f"no model {shortened(source)}: no folder here, no shipped model (there are: {', '.join(names) or 'none'}), no "
        f"repository owner/name of the Hugging Face Hub{hint}"
    )


def _nearest(name: str, names: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name[:100], names, n=1, cutoff=0.4)), None)
