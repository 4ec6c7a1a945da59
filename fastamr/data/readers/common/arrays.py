"""Arrays as files hold them: padded with zeros to one size, classes in several forms, text in bytes, NaN for a gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....skeleton import SkeletonLayout
from ...packed.dataset import PackedSkeletons


def from_batch(batch: Any, *, layout: str | SkeletonLayout, **fields: Any) -> PackedSkeletons:
    """Pack a padded batch of clips in the field's layout.

    Args:
        batch: ``(N, C, T, V, M)`` real numbers, metres; a clip ends at its last frame that is not all 0.
        layout: the skeleton, or its name.
        fields: labels, names, splits, ... as in :meth:`PackedSkeletons.from_clips`.

    Raises:
        ValueError: ``batch`` has not five dimensions, or as :meth:`PackedSkeletons.from_clips`.
    """
    padded = np.asarray(batch)
    if padded.ndim != 5:
        raise ValueError(f"batch has shape {padded.shape}, expected (N, C, T, V, M)")
    return PackedSkeletons.from_clips(trim_padding(padded.transpose(0, 2, 4, 3, 1)), layout=layout, **fields)


def trim_padding(padded: np.ndarray) -> list[np.ndarray]:
    """Cut each clip after its last frame that is not all 0.

    Args:
        padded: ``(N, T, M, V, C)``.

    Returns:
        ``N`` copies ``(T_i, M, V, C)``, so that the padded array can be freed; an empty clip has ``T_i = 0``.
    """
    present = (padded != 0).any(axis=(2, 3, 4))
    # The first True from the end; an empty clip has none.
    lengths = np.where(present.any(1), padded.shape[1] - present[:, ::-1].argmax(1), 0)
    return [clip[:length].copy() for clip, length in zip(padded, lengths, strict=True)]


def texts(values: Any) -> list[str]:
    """Return the strings of an array of text, flat, without the spaces around them; bytes are UTF-8."""
    flat = np.asarray(values).reshape(-1).tolist()
    return [
        (item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)).strip() for item in flat
    ]


def whole_numbers(values: Any, where: str) -> list[int]:
    """Return an array of whole numbers, flat.

    Raises:
        ValueError: it holds something else; ``where`` names it.
    """
    flat = np.asarray(values).reshape(-1)
    if (
        flat.dtype.kind not in "biuf"
        or not np.equal(flat, np.trunc(flat)).all()
        or not np.isfinite(flat).all()
    ):
        raise ValueError(f"{where}: expected whole numbers, got {flat.dtype} {flat[:4].tolist()}")
    return [int(value) for value in flat]


def class_column(given: Any, count: int, where: str) -> np.ndarray:
    """Return what an array of classes says of each clip.

    Args:
        given: ``(count,)`` or ``(count, 1)`` indices (-1 or NaN = unknown) or text ("" = unknown), or ``(count, K)``
            one-hot rows (a row of zeros = unknown).
        count: how many clips there are.
        where: names the array in errors.

    Returns:
        ``(count,)`` int64 indices, or ``(count,)`` text.

    Raises:
        ValueError: another shape, a row that is not one-hot, or a value that is no index (which).
    """
    values = np.asarray(given)
    if values.dtype.kind in "US" and values.size == count:
        return np.array(texts(values))
    if values.ndim not in (1, 2) or len(values) != count or values.dtype.kind not in "biuf":
        raise ValueError(
            f"{where} has shape {values.shape} of {values.dtype}, expected ({count}, classes) one-hot, or ({count},) "
            f"or ({count}, 1) indices or text"
        )
    if values.ndim == 2 and values.shape[1] > 1:
        wrong = ~np.isin(values, (0, 1)).all(1) | (values.astype(np.float64).sum(1) > 1)
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"{where}, row {row}: {values[row][:6].tolist()} is not one-hot, expected one 1 and else 0; give class "
                f"indices ({count},)"
            )
        return np.where(values.any(1), values.argmax(1), -1).astype(np.int64)
    flat = values.reshape(count).astype(np.float64)
    flat = np.where(np.isnan(flat), -1, flat)
    wrong = (flat != np.floor(flat)) | (flat < -1) | (flat >= 2**31)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{where}, row {row}: {flat[row]:g} is no class index; number the classes from 0, -1 = unknown"
        )
    return flat.astype(np.int64)


def class_labels(
    column: np.ndarray, where: str, names: Sequence[str] = ()
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return class indices ``(N,)`` int64 and the classes' names; text becomes the index of its name.

    Args:
        column: from :func:`class_column`.
        where: names the array in errors.
        names: the classes, where the file lists them; else those of text are the words that occur, sorted.

    Raises:
        ValueError: a text that is not among the names, or an index beyond them.
    """
    if column.dtype.kind not in "US":
        top = int(column.max(initial=-1))
        if names and top >= len(names):
            raise ValueError(
                f"{where} holds class {top}, but {len(names)} classes are named, 0 to {len(names) - 1}"
            )
        return column, tuple(names)
    classes = tuple(names) or tuple(sorted({str(text) for text in column} - {""}))
    places = {name: place for place, name in enumerate(classes)}
    strange = sorted({str(text) for text in column} - {"", *classes})
    if strange:
        raise ValueError(
            f"{where} holds {strange[0]!r}, which is not among the classes {', '.join(classes[:8])}"
        )
    return np.array([places.get(str(text), -1) for text in column], dtype=np.int64), classes


def without_nan(coords: np.ndarray, seen: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Mark joints with a NaN as not seen.

    Args:
        coords: ``(..., V, C)`` real numbers.
        seen: ``(..., V)`` bool; None = all.

    Returns:
        The coordinates with those joints at 0, which joints are seen (None = all), and how many had a NaN though they
        count as seen.
    """
    broken = np.isnan(coords).any(-1)
    if not broken.any():
        return coords, seen, 0
    count = int(broken.sum() if seen is None else (broken & seen).sum())
    seen = ~broken if seen is None else seen & ~broken
    return np.where(broken[..., None], np.zeros((), coords.dtype), coords), seen, count
