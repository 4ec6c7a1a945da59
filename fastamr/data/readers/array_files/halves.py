"""Splits as files of the field spell them: keys such as ``xsub_train`` and ``valset``, words and codes of each clip."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ...packed.dataset import Split

_SPELLINGS = {
    "train": "training|trainval|train|trn",
    "val": "validation|valid|val|development|dev",
    "test": "testing|test|tst|evaluation|eval|held[_ -]?out|hold[_ -]?out",
}
_WORDS = "|".join(f"(?P<{half}>{words})" for half, words in _SPELLINGS.items())
_UNIT = "(?:[ _-]?(?:set|split|data|list|clips|videos|samples|names|files|ids))?"
# A half begins at a border of words or of case, and ends at one: "latest" and "interval" name none.
_HALF = re.compile(
    rf"(?:(?<![A-Za-z])|(?<=[a-z])(?=[A-Z]))(?i:(?:{_WORDS}){_UNIT})(?:(?![A-Za-z])|(?<=[a-z])(?=[A-Z]))"
)
_GLUED = re.compile(r"(?i)^(xsub|xview|xset|xsetup|csub|cview|cset|cs|cv)(?=train|test|val)")

OFFICIAL = "official"
"""What halves without further words are called: the split that a file has is its own."""


def half_of(key: str) -> tuple[str, str] | None:
    """Return the split and the half (``train``, ``val`` or ``test``) that a key names, or None.

    ``xsub_train``, ``Train-xsub`` and ``xsubTrain`` are ``xsub``; ``Train``, ``trainset`` and ``training`` are
    ``official``, ``train1`` is ``official1``.
    """
    text = _GLUED.sub(r"\1_", re.sub(r"\.(txt|csv|json|pkl)$", "", key.strip()))
    found = _HALF.search(text)
    if found is None:
        return None
    half = next(name for name, word in found.groupdict().items() if word)
    before, after = (part.strip(" _-./:") for part in (text[: found.start()], text[found.end() :]))
    if after.isdigit():
        return f"{before.lower() or OFFICIAL}{after}", half
    return "_".join(filter(None, (before, after))).lower() or OFFICIAL, half


def join_halves(masks: Mapping[str, torch.Tensor]) -> tuple[dict[str, Split], list[str]]:
    """Return splits from halves by the keys that name them, and what a person must know of them.

    The test half is ``test``, or ``val`` where there is none; with both a split ``NAME_val`` tests on ``val``. The
    clips of a key that names no half are the training half of a split of its name.

    Args:
        masks: ``(N,)`` bool by key, which clips the key lists.

    Raises:
        ValueError: two keys name one half of one split.
    """
    halves: dict[str, dict[str, tuple[str, torch.Tensor]]] = {}
    notes = []
    for key, mask in masks.items():
        named = half_of(key)
        if named is None:
            notes.append(
                f"split key {key!r} names no half, such as {key}_train and {key}_test: its clips are the training "
                f"half of split {key!r}, whose test half is empty"
            )
        base, half = named or (key, "train")
        if half in halves.setdefault(base, {}):
            raise ValueError(
                f"split keys {halves[base][half][0]!r} and {key!r} both name the {half} half of split {base!r}; "
                f"rename one"
            )
        halves[base][half] = (key, mask)
    none = torch.zeros(len(next(iter(masks.values()))) if masks else 0, dtype=torch.bool)
    splits = {}
    for base, named_parts in halves.items():
        parts = {half: mask for half, (_, mask) in named_parts.items()}
        train = parts.get("train", none)
        splits[base] = Split(train, parts.get("test", parts.get("val", none)))
        if "test" in parts and "val" in parts:
            splits[f"{base}_val"] = Split(train, parts["val"])
    unnamed = {key for key in masks if half_of(key) is None}
    return splits, notes + empty_halves(
        {name: split for name, split in splits.items() if name not in unnamed}
    )


def empty_halves(splits: Mapping[str, Split]) -> list[str]:
    """Return a line for each half that no clip is in."""
    return [
        f"split {name!r}: its {half} half is empty"
        for name, split in splits.items()
        for half, mask in (("training", split.train), ("test", split.test))
        if not mask.any()
    ]


def splits_of_marks(
    name: str, marks: np.ndarray, texts: Sequence[str] = ()
) -> tuple[dict[str, Split], list[str]]:
    """Return the splits that one mark a clip tells, and what a person must know of them.

    Args:
        name: what the split is called.
        marks: ``(N,)`` bool or 0 and 1 (1 = train, 0 = test), words (``train``, ``val``, ``test``), or 0, 1 and 2 as in
            the lists of HMDB (1 = train, 2 = test, 0 = neither).
        texts: what codes stand for.

    Raises:
        ValueError: marks that are none of these, or words of which none names a half.
    """
    if marks.dtype.kind in "iu" and len(texts):
        if not 0 <= marks.min() <= marks.max() < len(texts):
            raise ValueError(f"{name} has codes {marks.min()} to {marks.max()}, but {len(texts)} names")
        marks = np.array(texts)[marks]
    if marks.dtype.kind in "US":
        return _of_words(name, [text.decode() if isinstance(text, bytes) else str(text) for text in marks])
    values = {float(value) for value in np.unique(marks)}
    if marks.dtype.kind == "b" or values <= {0, 1}:
        train, test = marks == 1, marks == 0
        told = "1 = train, 0 = test"
    elif values <= {0, 1, 2, -1}:
        train, test = marks == 1, marks == 2
        told = "1 = train, 2 = test, others neither"
    else:
        raise ValueError(
            f"{name} holds {sorted(values)[:5]}, expected True and False, 1 and 0, 1 and 2, or words such as train, "
            f"test"
        )
    splits = {name: Split(torch.from_numpy(train), torch.from_numpy(test))}
    return splits, [f"split {name!r}: {told}"] * (marks.dtype.kind != "b") + empty_halves(splits)


def _of_words(name: str, words: list[str]) -> tuple[dict[str, Split], list[str]]:
    halves = {word: half_of(word) for word in words}
    others = sorted(word for word, half in halves.items() if half is None)
    masks = {
        half: torch.tensor([(halves[word] or ("", ""))[1] == half for word in words])
        for half in sorted({half[1] for half in halves.values() if half})
    }
    if not masks:
        raise ValueError(
            f"{name} holds {', '.join(map(repr, others[:5]))}; expected words such as train and test"
        )
    splits, notes = join_halves(masks)
    notes += [f"split {name!r}: clips marked {', '.join(map(repr, others[:5]))} are in neither half"] * bool(
        others
    )
    renamed = {found.replace(OFFICIAL, name, 1): split for found, split in splits.items()}
    return renamed, [note.replace(repr(OFFICIAL), repr(name)) for note in notes]
