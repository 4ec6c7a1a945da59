"""Classes for clips that have none: from the folders that they lie in, or from a table."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...progress import say as print_line
from ..packed.bodies import body_labels, split_bodies
from ..packed.dataset import PackedSkeletons, Split
from ..packed.packing import text_codes
from .clip_names import ClipNames
from .table import LabelTable, half_of, read_table

_FOLDER = re.compile(r"folder(?::([1-9]))?")

_SHOWN = 5


def label_clips(
    data: PackedSkeletons, labels: str | Path, *, say: Callable[[str], None] | None = None
) -> PackedSkeletons:
    """Return a data set whose clips have classes.

    Args:
        data: packed data; classes that it has are replaced.
        labels: the word ``"folder"``, where the folder above each clip's file is its class, as clips' names tell it
            (``wave/0001``), or ``"folder:1"`` for the first folder of each path; folders called ``train`` and ``test``
            are no classes, they become the split ``official``; or a table, see
            :func:`~fastamr.data.labelling.table.read_table`. Its names may have an ending or folders that the clips'
            names lack, and the other way round; a name of a file stands for all clips of the file. A column
            ``subject`` and others become columns, ``split`` becomes the split ``official``. With a column ``person``
            bodies become clips of their own, see :func:`split_bodies`.
        say: takes each line that a person should know; None = standard error.

    Returns:
        The data set; clips without a class have ``-1``.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: no clip gets a class, a row contradicts another one, or a name fits several clips.
    """
    notes: list[str] = []
    result = (
        _by_folder(data, str(labels), notes)
        if means_folders(labels)
        else _by_table(data, Path(labels), notes)
    )
    replaced = int((data.labels >= 0).sum())
    if replaced:
        notes.append(f"{replaced} clips had labels of their own, which --labels replaces")
    for note in notes:
        (say or print_line)(f"note: {note}")
    return result


def means_folders(labels: str | Path) -> bool:
    """Tell whether labels come from folders, not from a table."""
    return _FOLDER.fullmatch(str(labels)) is not None


def _by_folder(data: PackedSkeletons, rule: str, notes: list[str]) -> PackedSkeletons:
    files = [name.replace("\\", "/") for name in data.names]
    if "file" in data.columns and "file" in data.column_names:
        files = [data.column_names["file"][code] for code in data.columns["file"].tolist()]
    folders = [file.rpartition("/")[0] for file in files]
    if not any(folders):
        raise ValueError(
            f"labels 'folder': no clip lies in a folder (the first is {data.names[0]!r}); expected a folder a class, "
            f"as moves/wave/0001.csv, moves/squat/0001.csv, and fastamr import moves OUT --labels folder; or a table "
            f"of the columns name and label: --labels FILE.csv"
        )
    data, folders = _halves_of_folders(data, folders, notes)
    level = re.fullmatch(_FOLDER, rule)[1]  # type: ignore[index]
    if level:
        labels = [
            folder.split("/")[int(level) - 1] if folder.count("/") >= int(level) - 1 else ""
            for folder in folders
        ]
    else:
        labels = [folder.rpartition("/")[2] for folder in folders]
        above = sorted({folder.rpartition("/")[0] for folder in folders if "/" in folder})
        if above:
            notes.append(
                f"the folder right above each file is its class, those above it are none: {_few(above)}; "
                f"--labels folder:1 takes the first folder of each path"
            )
    lacking = [name for name, label in zip(data.names, labels, strict=True) if not label]
    if lacking:
        notes.append(f"{len(lacking)} clips lie in no folder and have no label: {_few(lacking)}")
    return _labelled(data, labels, notes, "labels by folder")


def _halves_of_folders(
    data: PackedSkeletons, folders: list[str], notes: list[str]
) -> tuple[PackedSkeletons, list[str]]:
    """Return the data with the split that folders called train and test make, and the folders without them."""
    paths = [folder.split("/") for folder in folders]
    depth = min(len(path) for path in paths)
    for level in (*range(depth), -1):
        words = [path[level] for path in paths]
        halves = [half_of(word) or "" for word in words]
        if not all(halves) or "train" not in halves or len(set(halves)) < 2:
            continue
        if depth == 1:
            raise ValueError(
                f"labels 'folder': the folders {_few(sorted(set(words)))} are halves of a split, not classes; expected "
                f"a folder a class in each, as train/wave/0001.csv, or a table of the columns name and label: "
                f"--labels FILE.csv"
            )
        notes.append(f"folders {_few(sorted(set(words)))} are halves of a split, not classes")
        for path in paths:
            del path[level]
        rest = ["/".join(path) for path in paths]
        return _with_split(data, halves, notes, "folders"), rest
    return data, folders


def _by_table(data: PackedSkeletons, path: Path, notes: list[str]) -> PackedSkeletons:
    names = ClipNames(data)
    table = read_table(path, lambda word: bool(names.find(word)))
    notes += table.notes
    rows = _match(names, table, notes)
    persons = table.columns.pop("person", None)
    if persons is not None and not any(persons):
        persons = None
    if persons is not None and _are_subjects(data, rows, persons) and "subject" not in table.columns:
        notes.append(f"{path}: each clip shows one person, so the column person is taken as subject")
        table.columns["subject"], persons = persons, None
    if persons is None:
        return _by_clip(data, table, rows, notes)
    return _by_person(data, table, rows, persons, notes)


def _match(names: ClipNames, table: LabelTable, notes: list[str]) -> list[list[int]]:
    """Return the clips of each row; rows that match none are said."""
    found: list[list[int]] = []
    for row, word in enumerate(table.columns["name"]):
        try:
            found.append(names.find(word))
        except ValueError as error:
            raise ValueError(f"{table.where(row)}: {error}") from None
    lost = [word for word, clips in zip(table.columns["name"], found, strict=True) if not clips]
    if len(lost) == len(found):
        raise ValueError(
            f"{table.path}: none of its {len(found)} rows names a clip: the first is {lost[0]!r}, the data's clips are "
            f"{_few(names.names)}"
        )
    if lost:
        notes.append(f"{table.path}: {len(lost)} of {len(found)} rows name no clip: {_few(lost)}")
    return found


def _by_clip(
    data: PackedSkeletons, table: LabelTable, rows: Sequence[Sequence[int]], notes: list[str]
) -> PackedSkeletons:
    labels = _spread(table, "label", rows, data.num_clips)
    for name in table.columns:
        if name not in ("name", "label", "split"):
            data = _with_column(data, name, _spread(table, name, rows, data.num_clips), notes)
    if "split" in table.columns:
        table.columns["split"] = table.halves()
        data = _with_split(data, _spread(table, "split", rows, data.num_clips), notes, "column split")
    lacking = sorted(set(range(data.num_clips)) - {clip for clips in rows for clip in clips})
    if lacking:
        notes.append(
            f"{table.path}: {len(lacking)} of {data.num_clips} clips have no row and no label: "
            f"{_few([data.names[clip] for clip in lacking])}"
        )
    return _labelled(data, labels, notes, str(table.path))


def _by_person(
    data: PackedSkeletons,
    table: LabelTable,
    rows: Sequence[Sequence[int]],
    persons: Sequence[str],
    notes: list[str],
) -> PackedSkeletons:
    """Label bodies, each of which becomes a clip of its own."""
    whose: dict[tuple[int, str], int] = {}
    for body, (clip, name) in enumerate(zip(data.body_clip.tolist(), body_labels(data), strict=True)):
        whose[clip, name] = body
    bodies: list[list[int]] = []
    lost = []
    for row, (clips, person) in enumerate(zip(rows, persons, strict=True)):
        wanted = [body for (clip, name), body in whose.items() if clip in clips and person in ("", name)]
        bodies.append(wanted)
        if clips and not wanted:
            lost.append(f"{person!r} of {table.columns['name'][row]}")
    if not any(bodies):
        known = sorted({name for _, name in whose})
        raise ValueError(
            f"{table.path}: none of its persons is in the data: the first is {lost[0]}, the clips' persons are "
            f"{_few(known)}; call the column subject if it tells who performs"
        )
    if lost:
        notes.append(
            f"{table.path}: {len(lost)} rows name a person that the clip does not show: {_few(lost)}"
        )
    labelled = _by_clip(split_bodies(data), table, bodies, notes)
    notes.append(f"persons become clips of their own: {data.num_clips} clips of {data.num_bodies} persons")
    return labelled


def _are_subjects(data: PackedSkeletons, rows: Sequence[Sequence[int]], persons: Sequence[str]) -> bool:
    """Tell whether a column of persons says who performs: every clip shows one, and has one row."""
    alone = bool((torch.bincount(data.body_clip) == 1).all())
    named = [clip for clips in rows for clip in clips]
    known = set(body_labels(data)) >= set(filter(None, persons))
    return alone and len(named) == len(set(named)) and not known


def _spread(table: LabelTable, column: str, rows: Sequence[Sequence[int]], count: int) -> list[str]:
    """Return a column's cell of each clip; "" where no row tells.

    Raises:
        ValueError: two rows tell different things of a clip.
    """
    cells, told = [""] * count, [-1] * count
    for row, clips in enumerate(rows):
        word = table.columns[column][row]
        for clip in clips:
            if told[clip] >= 0 and cells[clip] != word:
                raise ValueError(
                    f"{table.where(row)}: {column} {word!r} of {table.columns['name'][row]!r}, but line "
                    f"{table.lines[told[clip]]} says {cells[clip]!r}; give each clip one row, or a column person"
                )
            cells[clip], told[clip] = word, row
    return cells


def _labelled(data: PackedSkeletons, labels: Sequence[str], notes: list[str], source: str) -> PackedSkeletons:
    """Return the data with classes from words; numbers are indices, "" is unknown."""
    known = sorted({label for label in labels if label})
    if not known:
        raise ValueError(f"{source}: no clip gets a label")
    if all(re.fullmatch(r"-?\d{1,8}", label) for label in known) and source != "labels by folder":
        codes = [int(label) if label else -1 for label in labels]
        names = data.label_names if max(codes) < len(data.label_names) else ()
    else:
        codes, names = [known.index(label) if label else -1 for label in labels], tuple(known)
    count = sum(code >= 0 for code in codes)
    notes.append(f"{source}: {count} of {len(codes)} clips in {len(known)} classes: {_few(known)}")
    if len(known) == 1:
        notes.append(f"{source}: all clips are of one class; a classifier needs two")
    return dataclasses.replace(data, labels=torch.tensor(codes), label_names=names)


def _with_column(data: PackedSkeletons, name: str, cells: Sequence[str], notes: list[str]) -> PackedSkeletons:
    """Return the data with a column of words or numbers; "" is -1."""
    if name in data.columns:
        notes.append(f"column {name!r} of the data is replaced by that of the table")
    texts = {key: value for key, value in data.column_names.items() if key != name}
    values: Tensor
    if all(re.fullmatch(r"-?\d{1,9}", cell) for cell in cells if cell):
        values = torch.tensor([int(cell) if cell else -1 for cell in cells])
    else:
        codes, words = text_codes(np.array([cell for cell in cells if cell]))
        values = torch.full((len(cells),), -1)
        values[torch.tensor([bool(cell) for cell in cells])] = codes
        texts[name] = words
    return dataclasses.replace(data, columns={**data.columns, name: values}, column_names=texts)


def _with_split(
    data: PackedSkeletons, halves: Sequence[str], notes: list[str], source: str
) -> PackedSkeletons:
    """Return the data with the split ``official``; clips for validation test where no others do."""
    test = "test" if "test" in halves else "val"
    train = torch.tensor([half == "train" for half in halves])
    tested = torch.tensor([half == test for half in halves])
    if not bool(train.any() and tested.any()):
        raise ValueError(
            f"{source}: {int(train.sum())} clips for training and {int(tested.sum())} for the test; expected both"
        )
    neither = int((~train & ~tested).sum())
    beside = f", {neither} in neither half" if neither else ""
    notes.append(f"split 'official': {int(train.sum())} clips train, {int(tested.sum())} test{beside}")
    return dataclasses.replace(data, splits={**data.splits, "official": Split(train, tested)})


def _few(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:_SHOWN]) + (f", ... ({len(shown)} in all)" if len(shown) > _SHOWN else "")
