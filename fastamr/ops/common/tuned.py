"""What ``auto`` knows from ``fastamr tune``: the record of each device, read once a process, then looked up.

``FASTAMR_TUNING`` is ``off``, or the file of a record; by default the record of this machine in the cache is taken.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from ...documents import printable
from .record import (
    Measured,
    Record,
    ShapeClass,
    Tile,
    changed,
    dtype_name,
    find_record,
    machine_key,
    read_record,
)

# A class holds for sizes up to so many times its own.
_NEAR = math.log(2.0)

# Calls whose answer is kept.
_MOST_KNOWN = 4096

Sizes = dict[str, int]


class Tuning:
    """A record as ``auto`` asks it; without a record it knows nothing.

    Attributes:
        record: the record; None where there is none.
        path: its file.
        why_none: why there is no record, in words.
        failures: by op and dtype, the back ends that failed at any size, with the reason.
    """

    def __init__(self, record: Record | None, path: Path | None = None, why_none: str = "") -> None:
        self.record, self.path, self.why_none = record, path, why_none
        self._classes: dict[object, list[tuple[tuple[int, ...], Measured]]] = {}
        self.failures: dict[tuple[str, str], dict[str, str]] = {}
        self._known: dict[object, str | None] = {}
        for each in () if record is None else record.classes:
            shape = each.shape
            kind = (shape.op, shape.dtype, shape.features, tuple(name for name, _ in shape.sizes))
            self._classes.setdefault(kind, []).append((tuple(size for _, size in shape.sizes), each))
        for shape, name, reason in () if record is None else record.failures():
            self.failures.setdefault((shape.op, shape.dtype), {}).setdefault(name, reason)

    @property
    def digest(self) -> str | None:
        """The record's, None without one."""
        return None if self.record is None else self.record.digest

    def failed(self, op: str, dtype: torch.dtype) -> dict[str, str]:
        """Back ends of an op that failed in this dtype at any size, with the reason."""
        return self.failures.get((op, dtype_name(dtype)), {})

    def backend(self, op: str, dtype: torch.dtype, features: tuple[str, ...], sizes: Sizes) -> str | None:
        """The back end measured as the fastest at the nearest sizes; None where nothing near was measured."""
        if not self._classes:
            return None
        call = (op, dtype, features, *sizes.items())
        try:
            return self._known[call]
        except KeyError:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[call] = self._nearest(op, dtype, features, sizes)
            return found
        except TypeError:  # a size that a tracer has not fixed
            return None

    def _nearest(self, op: str, dtype: torch.dtype, features: tuple[str, ...], sizes: Sizes) -> str | None:
        asked = class_of(op, dtype, features, sizes)
        names, values = tuple(name for name, _ in asked.sizes), [size for _, size in asked.sizes]
        best, least = None, math.inf
        for measured, each in self._classes.get((op, asked.dtype, features, names), ()):
            far = [_distance(one, other) for one, other in zip(measured, values, strict=True)]
            if max(far, default=0.0) <= _NEAR and sum(far) < least:
                best, least = each.backend, sum(far)
        return None if best in self.failed(op, dtype) else best


def _distance(one: int, other: int) -> float:
    if one == other:
        return 0.0
    return abs(math.log(one / other)) if one > 0 and other > 0 else math.inf


# A product of the others.
_DERIVED = ("work",)


def take_tiles(tiles: Sequence[Tile]) -> None:
    """Have the Triton kernels take these blocks; nothing where Triton is not installed."""
    if not tiles:
        return
    with suppress(ImportError):
        from ...kernels import launch

        launch.take(
            {(each.kernel, each.shape): (dict(each.blocks), each.warps, each.stages) for each in tiles}
        )


def class_of(op: str, dtype: torch.dtype, features: tuple[str, ...], sizes: Sizes) -> ShapeClass:
    """The class of a call."""
    return ShapeClass(
        op,
        dtype_name(dtype),
        features,
        tuple((name, int(size)) for name, size in sizes.items() if name not in _DERIVED),
    )


# By device type, once it was asked for.
_loaded: dict[str, Tuning] = {}


def tuning(device_type: str) -> Tuning:
    """What is known for a device, read on the first call.

    Raises:
        ValueError: ``FASTAMR_TUNING`` names a file that is missing or no record.
    """
    found = _loaded.get(device_type)
    if found is None:
        found = _loaded[device_type] = _load(device_type)
    return found


def forget() -> None:
    """Read records again when they are needed next."""
    _loaded.clear()


@contextmanager
def using(device_type: str, record: Record | None) -> Iterator[None]:
    """Take this record, or none, for a device inside a ``with`` block, for the whole process."""
    before = _loaded.get(device_type)
    _loaded[device_type] = Tuning(record)
    try:
        yield
    finally:
        if before is None:
            _loaded.pop(device_type, None)
        else:
            _loaded[device_type] = before


def failed_names(op: str, device_type: str, dtype: torch.dtype) -> tuple[str, ...]:
    """Names of the back ends that failed, for code that is being traced, which can read no file."""
    return tuple(tuning(device_type).failed(op, dtype))


# As in fastamr.native.load: a tracer calls it and keeps what it says.
failed_names._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _load(device_type: str) -> Tuning:
    asked = os.environ.get("FASTAMR_TUNING", "")
    if asked.lower() == "off":
        return Tuning(None, why_none="FASTAMR_TUNING=off")
    if device_type not in ("cpu", "cuda") or (device_type == "cuda" and not torch.cuda.is_available()):
        return Tuning(None, why_none=f"there is no device of type {device_type} that could be measured")
    key = machine_key(device_type)
    path = Path(asked) if asked else find_record(device_type, key)
    if path is None:
        return Tuning(None, why_none="fastamr tune was not run on this machine")
    try:
        record = read_record(path)
    except (OSError, ValueError) as error:
        if asked:
            raise ValueError(
                f"FASTAMR_TUNING={asked} cannot be used: {error}; name a file that fastamr tune wrote, or off"
            ) from None
        return _without(f"the tuning record is not used: {error}; fastamr tune writes a new one")
    if record.key == key:
        take_tiles(record.tiles)
        return Tuning(record, path)
    if record.key.get("kind") != device_type:  # a named record of the GPU says nothing of the CPU
        return Tuning(None, path, f"{path} is one of {record.key.get('kind')}")
    return _without(
        f"the tuning record {path} is not used, it was made for {changed(record.key, key)}; fastamr tune makes one for "
        "this machine"
    )


def _without(why: str) -> Tuning:
    """No record, which is said once: a process loads each device's once."""
    print(f"fastamr: {printable(why)}", file=sys.stderr)
    return Tuning(None, why_none=why)
