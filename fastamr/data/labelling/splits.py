"""A split of one's own: balanced by class, with no person and no recording on both sides."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ...errors import unknown_name
from ...progress import say as print_line
from ..packed.dataset import PackedSkeletons, Split
from .groups import join, recordings, values_of

WAYS = ("subject", "random", "recording", "clip")
"""The ways beside the names of columns."""

# Groups up to this number are moved again and again, one or two at a time, until no move betters the balance.
_FEW_GROUPS = 400
_MISSING = 1e6
_SHOWN = 5


def make_split(
    data: PackedSkeletons,
    by: str = "random",
    *,
    test: float = 0.2,
    values: Sequence[object] | None = None,
    seed: int = 0,
    name: str = "mine",
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
) -> PackedSkeletons:
    """Return a data set with one split more.

    Whole groups of clips go to one side, such that every class has its share of test clips as nearly as the groups
    allow: at least one where the class has two groups, and never all. The result depends on the names of clips,
    subjects and recordings, not on the order of clips. Clips whose group is not known are in neither half.

    Args:
        data: packed data, labelled or not.
        by: ``"subject"``: the people of one half are not in the other, nor are recordings (see
            :func:`~fastamr.data.labelling.groups.recordings`). ``"random"``: the same where the data has a column
            ``subject`` of two or more, else recordings alone. ``"recording"``: recordings alone. ``"clip"``: each clip
            by itself. The name of a column: clips of one value, and recordings, stay together.
        test: share of clips to test on, between 0 and 1.
        values: the values of the column whose clips are the test half, as words or numbers, instead of a share.
        seed: of the choice.
        name: what the split is called.
        overwrite: replace a split of this name; case makes no other name, as it makes none for ``--split``.
        say: takes each line that a person should know; None = standard error.

    Raises:
        ValueError: a share that is none, a split of this name, no such column or value, or fewer than two groups.
    """
    there = [one for one in data.splits if one.casefold() == name.casefold()]
    if there and not overwrite:
        raise ValueError(f"split {there[0]!r} exists already; choose another --name, or pass --overwrite")
    if not name.strip() or any(letter in name for letter in "\0\n"):
        raise ValueError(f"name of the split is {name!r}, expected a word")
    if values is None and not 0 < test < 1:
        raise ValueError(f"test is {test:g}, expected a share of the clips between 0 and 1, for example 0.2")
    notes: list[str] = []
    parts = _parts(data, by, notes)
    known = np.array([bool(word) for word in parts[0]])
    if values is not None:
        in_test = _of_values(parts[0], by, values)
        _warn_of_crossing(data, in_test, known, notes)
    else:
        owner, keys = join(parts)
        in_test = _choose(data, np.array(owner), keys, known, test, seed, by)
    split = Split(torch.from_numpy(known & ~in_test), torch.from_numpy(known & in_test))
    notes.insert(0, _described(data, split, name, by, parts[0]))
    notes += _of_classes(data, split)
    for note in notes:
        (say or print_line)(note)
    others = {one: halves for one, halves in data.splits.items() if one not in there}
    return dataclasses.replace(data, splits={**others, name: split})


def _parts(data: PackedSkeletons, by: str, notes: list[str]) -> list[list[str]]:
    """Return the words that clips of one group share; the first list is what the split goes by."""
    if by == "clip":
        return [list(data.names)]
    words, told = recordings(data)
    if told:
        notes.append(f"recordings, whose parts stay together, are told {told}: {len(set(words))}")
    subjects = values_of(data, "subject") if "subject" in data.columns else []
    if by == "recording" and "recording" not in data.columns:
        return [words]
    if by == "random":
        if len(set(filter(None, subjects))) > 1 and all(subjects):
            notes.append(
                f"the {len(set(subjects))} subjects stay together, too; --by recording goes by recordings alone"
            )
            return [words, subjects]
        if any(subjects):
            notes.append(
                "subjects are not told apart: the data has only one, or some clips do not tell theirs"
            )
        return [words]
    if by not in data.columns:
        raise _no_column(data, by)
    column = values_of(data, by)
    lacking = column.count("")
    if lacking:
        notes.append(f"{lacking} clips without {by} are in neither half")
    return [column, [word if value else "" for word, value in zip(words, column, strict=True)]]


def _no_column(data: PackedSkeletons, by: str) -> ValueError:
    """Build the error for a column that the data lacks, with how it gets one."""
    ways = sorted({*WAYS, *data.columns} - ({"subject"} - set(data.columns)))
    error = unknown_name("by", by, ways)
    return ValueError(
        f"{error}; the data has no column {by!r}: fastamr convert DATA OUT --labels FILE.csv reads one, from a table "
        f"with the columns name and {by}"
    )


def _of_values(words: Sequence[str], by: str, values: Sequence[object]) -> np.ndarray:
    """Return which clips have one of some values ``(N,)``."""
    known = sorted({word for word in words if word}, key=lambda word: (len(word), word))
    wanted = {str(value) for value in values}
    for value in wanted - set(known):
        shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
        raise ValueError(f"no clip has {by} {value!r}; it has {shown}")
    if wanted >= set(known):
        raise ValueError(f"the test half has every {by}; leave at least one for training")
    return np.array([word in wanted for word in words])


def _choose(
    data: PackedSkeletons,
    owner: np.ndarray,
    keys: Sequence[str],
    known: np.ndarray,
    share: float,
    seed: int,
    by: str,
) -> np.ndarray:
    """Return which clips test ``(N,)``: groups in an order that the seed fixes, each where it betters the balance."""
    usable = np.unique(owner[known])
    if len(usable) < 2:
        what = "recording" if by == "random" else by
        raise ValueError(
            f"by {by}: all {int(known.sum())} clips hang together as one {what}, which cannot be on both sides; go by "
            f"another column ({', '.join(data.columns) or 'the data has none'}), or by clip, which lets parts of one "
            f"recording be on both sides"
        )
    order = sorted(usable.tolist(), key=lambda group: _rank(keys[group], seed))
    place = np.full(len(keys), -1)
    place[order] = np.arange(len(order))
    labels = data.labels.numpy()
    classes = np.unique(labels[known])
    counts = np.zeros((len(order), len(classes)))
    np.add.at(counts, (place[owner[known]], np.searchsorted(classes, labels[known])), 1)
    chosen = _balanced(counts, share)
    in_test: np.ndarray = known & chosen[place[owner]]
    return in_test


def _rank(key: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=16).digest()


def _balanced(counts: np.ndarray, share: float) -> np.ndarray:
    """Return which groups ``(G,)`` to take, from their counts of classes ``(G, K)``."""
    total = counts.sum(0)
    # A class of one group cannot be in both halves: it is trained on.
    parts = (counts > 0).sum(0) > 1
    wanted = np.where(parts, share * total, 0.0)

    def cost(taken: np.ndarray) -> np.ndarray:
        off = ((taken - wanted) ** 2 / total).sum(-1)
        lacking = (parts & ((taken == 0) | (taken == total))).sum(-1)
        whole = taken.sum(-1)
        return off + _MISSING * (lacking + 10 * ((whole == 0) | (whole == total.sum())))

    chosen = np.zeros(len(counts), dtype=bool)
    taken = np.zeros_like(total)
    for group, count in enumerate(counts):
        if cost(taken + count) < cost(taken):
            chosen[group], taken = True, taken + count
    if len(counts) > _FEW_GROUPS:
        return chosen
    for _ in range(len(counts)):
        signs = np.where(chosen, -1.0, 1.0)[:, None] * counts
        one = cost(taken + signs)
        two = (
            cost(taken + signs[chosen][:, None] + signs[~chosen][None]) if chosen.any() else np.empty((0, 0))
        )
        least = min(float(one.min()), float(two.min()) if two.size else np.inf)
        if least >= float(cost(taken)) - 1e-9:
            break
        if float(one.min()) <= least:
            moved = [int(one.argmin())]
        else:
            row, column = np.unravel_index(int(two.argmin()), two.shape)
            moved = [int(np.flatnonzero(chosen)[row]), int(np.flatnonzero(~chosen)[column])]
        taken = taken + signs[moved].sum(0)
        chosen[moved] = ~chosen[moved]
    return chosen


def _described(data: PackedSkeletons, split: Split, name: str, by: str, words: Sequence[str]) -> str:
    train, test = int(split.train.sum()), int(split.test.sum())
    sides = [
        {word for word, here in zip(words, half.tolist(), strict=True) if here}
        for half in (split.train, split.test)
    ]
    groups = "" if by == "clip" else f"; {len(sides[1])} of {len(sides[0] | sides[1])} {_what(by)} test"
    return f"split {name!r} by {by}: {train} clips train, {test} test ({100 * test / (train + test):.1f} %){groups}"


def _what(by: str) -> str:
    return {"random": "recordings", "subject": "subjects", "recording": "recordings"}.get(
        by, f"values of {by}"
    )


def _of_classes(data: PackedSkeletons, split: Split) -> list[str]:
    """Say which classes lie in one half only."""
    trained, tested = (set(data.labels[half].tolist()) - {-1} for half in (split.train, split.test))
    notes = []
    for what, codes in (
        ("only in training, so it is never tested", trained - tested),
        ("only in the test half, so it cannot be learnt", tested - trained),
    ):
        if codes:
            names = [
                data.label_names[code] if code < len(data.label_names) else f"class {code}"
                for code in sorted(codes)
            ]
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            notes.append(f"{len(names)} of {len(trained | tested)} classes {what}: {shown}")
    unlabelled = int((data.labels[split.train | split.test] < 0).sum())
    if unlabelled:
        notes.append(f"{unlabelled} clips of the split have no label")
    return notes


def _warn_of_crossing(
    data: PackedSkeletons, in_test: np.ndarray, known: np.ndarray, notes: list[str]
) -> None:
    """Say which recordings the chosen values put on both sides."""
    words, _ = recordings(data)
    both = {word for word, here in zip(words, in_test, strict=True) if here} & {
        word for word, here, is_known in zip(words, in_test, known, strict=True) if is_known and not here
    }
    if both:
        shown = ", ".join(sorted(both)[:_SHOWN])
        notes.append(f"{len(both)} recordings lie on both sides, because the chosen values say so: {shown}")
