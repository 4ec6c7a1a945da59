"""What ``fastamr tune`` found on a device, as one JSON file: which back ends failed, how long the others took."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...devices import package_version, processor
from ...documents import load_json_text
from ...errors import shortened
from ...files import write_text
from ...native import cache
from ...native.build import BuildError, sources_folder
from ...version import __version__
from .products import product_library

FORMAT = "fastamr tuning record, version 1"
_MOST_CLASSES = 10_000
_NAME = re.compile(r"[a-z0-9_]{1,60}")
_DTYPES = {str(each).removeprefix("torch."): each for each in (
    torch.float16, torch.bfloat16, torch.float32, torch.float64)}  # fmt: skip


@dataclass(frozen=True)
class ShapeClass:
    """Calls that share one choice: one op, one dtype, the same features, and sizes near these.

    Attributes:
        op: the op.
        dtype: name of the tensors' dtype, as ``bfloat16``.
        features: the op's optional features in use.
        sizes: sizes by name, the number of rows or sequences among them.
    """

    op: str
    dtype: str
    features: tuple[str, ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()

    @property
    def label(self) -> str:
        """The class in words."""
        parts = [self.op, self.dtype, *self.features, *(f"{name}={value}" for name, value in self.sizes)]
        return " ".join(parts)


@dataclass(frozen=True)
class Tried:
    """What came of one back end in one class.

    Attributes:
        failed: why it must not run there: a wrong result, a crash, no end in time; None where it is right.
        error: largest relative error against float64; None where that is not known.
        ms: milliseconds of a call forward and backward, on a GPU inside a CUDA graph with a warm L2 cache; None where
            it was not timed.
        cold_ms: the same with a flushed L2 cache; None on a CPU.
    """

    failed: str | None = None
    error: float | None = None
    ms: float | None = None
    cold_ms: float | None = None


def _told(tried: Tried) -> str:
    if tried.failed is not None:
        return f"failed: {tried.failed}"
    if tried.ms is None:
        return "not timed"
    return f"{tried.ms:.3g} ms" + ("" if tried.cold_ms is None else f", {tried.cold_ms:.3g} ms cold")


@dataclass(frozen=True)
class Measured:
    """A class, the back end that ``auto`` takes there (None: the built-in choice), and all that were tried."""

    shape: ShapeClass
    backend: str | None
    tried: dict[str, Tried] = field(default_factory=dict)

    def line(self) -> str:
        """What was chosen, and what came of each back end, in words."""
        found = [f"{name} {_told(each)}" for name, each in self.tried.items()]
        return f"{self.backend or 'the built-in choice'} ({'; '.join(found)})"


@dataclass(frozen=True)
class Tile:
    """Blocks that a Triton kernel takes for a class of shapes, the number of rows among them.

    Attributes:
        kernel: the kernel.
        shape: its class, as the launcher writes it.
        blocks: block sizes by name.
        warps: warps that share a block.
        stages: of the pipeline.
    """

    kernel: str
    shape: str
    blocks: tuple[tuple[str, int], ...]
    warps: int
    stages: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "blocks": dict(self.blocks)}


@dataclass(frozen=True)
class Record:
    """All that was found on a device.

    Attributes:
        key: what it holds for, see :func:`machine_key`.
        classes: what was measured.
        made: when, in words.
        tiles: blocks of the Triton kernels, where they were measured.
    """

    key: dict[str, str]
    classes: tuple[Measured, ...]
    made: str = ""
    tiles: tuple[Tile, ...] = ()

    @functools.cached_property
    def digest(self) -> str:
        """Hash of all that ``auto`` reads: two records of one digest give the same choices."""
        read = [
            [*_as_lists(each.shape), each.backend, sorted(n for n, t in each.tried.items() if t.failed)]
            for each in self.classes
        ]
        tiles = sorted(json.dumps(each.to_json(), sort_keys=True) for each in self.tiles)
        text = json.dumps([self.key, sorted(read, key=json.dumps), tiles], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def failures(self) -> list[tuple[ShapeClass, str, str]]:
        """Class, back end and reason of each one that failed."""
        return [
            (each.shape, name, tried.failed)
            for each in self.classes
            for name, tried in each.tried.items()
            if tried.failed is not None
        ]

    def merged(self, newer: Record) -> Record:
        """Return a record of both, in which the newer one's classes replace those of the same shape."""
        if newer.key != self.key:
            return newer
        classes = {each.shape: each for each in (*self.classes, *newer.classes)}
        tiles = {(each.kernel, each.shape): each for each in (*self.tiles, *newer.tiles)}
        return Record(newer.key, tuple(classes.values()), newer.made, tuple(tiles.values()))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        classes = [
            {
                "op": each.shape.op,
                "dtype": each.shape.dtype,
                "features": list(each.shape.features),
                "sizes": dict(each.shape.sizes),
                "backend": each.backend,
                "tried": {
                    name: {key: value for key, value in vars(tried).items() if value is not None}
                    for name, tried in each.tried.items()
                },
            }
            for each in self.classes
        ]
        return {
            "format": FORMAT,
            "made": self.made,
            "digest": self.digest,
            "key": self.key,
            "classes": classes,
            "tiles": [each.to_json() for each in self.tiles],
        }

    def save(self, path: Path) -> None:
        """Write the file in one piece."""
        write_text(path, json.dumps(self.to_json(), indent=1) + "\n")


def _as_lists(shape: ShapeClass) -> list[Any]:
    return [shape.op, shape.dtype, list(shape.features), [list(pair) for pair in shape.sizes]]


def read_record(path: str | Path) -> Record:
    """Read a record; of the file only names, numbers and words are taken.

    Raises:
        ValueError: it is no record, or a value in it is none that a record has; the message is one line.
        OSError: it cannot be read.
    """
    values = load_json_text(path)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = shortened(values.get("format")) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"{path} is no tuning record: expected format {FORMAT!r}, found {found}")
    key, classes = values.get("key"), values.get("classes")
    if not isinstance(key, dict) or not all(isinstance(each, str) for each in key.values()):
        raise ValueError(f"{path}: key must hold names and words, got {shortened(key)}")
    if not isinstance(classes, list) or len(classes) > _MOST_CLASSES:
        raise ValueError(f"{path}: classes must be a list of at most {_MOST_CLASSES:,}")
    tiles = values.get("tiles", [])
    if not isinstance(tiles, list) or len(tiles) > _MOST_CLASSES:
        raise ValueError(f"{path}: tiles must be a list of at most {_MOST_CLASSES:,}")
    record = Record(
        key,
        tuple(_measured(each, f"{path}: class {i}") for i, each in enumerate(classes)),
        str(values.get("made", ""))[:100],
        tuple(tile_of(each, f"{path}: tile {i}") for i, each in enumerate(tiles)),
    )
    if values.get("digest") != record.digest:
        raise ValueError(f"{path} was changed after it was written: its digest is not {record.digest}")
    return record


_PARTS: dict[str, type[Any]] = {"features": list, "sizes": dict, "tried": dict}


def _measured(values: Any, where: str) -> Measured:
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {shortened(values)}, expected a mapping")
    op, dtype, backend = (values.get(name) for name in ("op", "dtype", "backend"))
    features, sizes, tried = (values.get(name, kind()) for name, kind in _PARTS.items())
    for name, kind in _PARTS.items():
        if not isinstance(values.get(name, kind()), kind):
            raise ValueError(f"{where}: {name} is {shortened(values[name])}, expected a {kind.__name__}")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"{where}: dtype is {shortened(dtype)}, expected one of {', '.join(_DTYPES)}")
    for name in (op, *([] if backend is None else [backend]), *features, *sizes, *tried):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                f"{where} holds {shortened(name)} where a name of an op, back end or size is expected"
            )
    for size in sizes.values():
        if type(size) is not int or not 0 <= size < 1 << 62:
            raise ValueError(f"{where}: a size is {shortened(size)}, expected a whole number")
    found = {name: _tried(each, f"{where}, {name}") for name, each in tried.items()}
    if backend is not None and (backend not in found or found[backend].failed is not None):
        raise ValueError(f"{where} takes {backend!r}, which did not pass there")
    return Measured(ShapeClass(str(op), dtype, tuple(features), tuple(sizes.items())), backend, found)


def tile_of(values: Any, where: str) -> Tile:
    """Return a tile of plain values.

    Raises:
        ValueError: they are not those of a tile.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {shortened(values)}, expected a mapping")
    kernel, shape, blocks = values.get("kernel"), values.get("shape"), values.get("blocks")
    if not isinstance(kernel, str) or not isinstance(shape, str) or len(kernel) + len(shape) > 500:
        raise ValueError(f"{where}: kernel and shape are {shortened([kernel, shape])}, expected words")
    if not isinstance(blocks, dict):
        raise ValueError(f"{where}: blocks are {shortened(blocks)}, expected a mapping")
    for number in (*blocks.values(), values.get("warps"), values.get("stages")):
        if type(number) is not int or not 0 <= number < 1 << 20:
            raise ValueError(f"{where} holds {shortened(number)}, expected a whole number")
    return Tile(kernel, shape, tuple(blocks.items()), values["warps"], values["stages"])


def _tried(values: Any, where: str) -> Tried:
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {shortened(values)}, expected a mapping")
    failed = values.get("failed")
    if failed is not None and not isinstance(failed, str):
        raise ValueError(f"{where}: failed is {shortened(failed)}, expected words")
    numbers = {}
    for name in ("error", "ms", "cold_ms"):
        number = values.get(name)
        if number is not None and (type(number) not in (int, float) or not math.isfinite(number)):
            raise ValueError(f"{where}: {name} is {shortened(number)}, expected a number")
        numbers[name] = number
    return Tried(None if failed is None else failed[:500], **numbers)


def dtype_name(dtype: torch.dtype) -> str:
    """``bfloat16`` for ``torch.bfloat16``."""
    return str(dtype).removeprefix("torch.")


def dtype_named(name: str) -> torch.dtype:
    """The reverse of :func:`dtype_name`, for the dtypes of a record."""
    return _DTYPES[name]


def machine_key(device_type: str) -> dict[str, str]:
    """What a record of this machine holds for: device, threads or driver, versions, and the kernels' sources."""
    versions = {"fastamr": __version__, "torch": str(torch.__version__)}
    if device_type == "cuda":
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        device = {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "driver": _driver(),
            "triton": package_version("triton") or "none",
        }
    else:
        device = {
            "device": processor(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "threads": str(torch.get_num_threads()),
            "products": product_library(),
            "FASTAMR_CPU": os.environ.get("FASTAMR_CPU", "not set"),
        }
    return {"kind": device_type, **device, **versions, "sources": sources_digest()}


def _driver() -> str:
    try:
        return Path("/sys/module/nvidia/version").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return str(getattr(torch._C, "_cuda_getDriverVersion", lambda: "unknown")())


@functools.cache
def sources_digest() -> str:
    """Hash of the kernels' sources, of ``kernels/`` and of ``csrc/``."""
    digest, folders = hashlib.blake2b(digest_size=8), list[Path]()
    spec = importlib.util.find_spec("fastamr.kernels")
    if spec is not None:
        folders += map(Path, spec.submodule_search_locations or ())
    with suppress(BuildError):  # no sources, nothing to compile
        folders.append(sources_folder())
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".py", ".h", ".cpp", ".cu"):
                digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def record_name(device_type: str, key: Mapping[str, str]) -> str:
    """Name of the record's file in the cache: one for each device, or processor and number of threads."""
    words = [device_type, key["device"], *([f"{key['threads']} threads"] if "threads" in key else [])]
    return f"tuning-{re.sub(r'[^a-z0-9]+', '-', ' '.join(words).lower()).strip('-')}.json"


def find_record(device_type: str, key: Mapping[str, str]) -> Path | None:
    """The file of a device's record in the cache; None where there is none."""
    name = record_name(device_type, key)
    return next((folder / name for folder in cache.readable() if (folder / name).is_file()), None)


def changed(key: Mapping[str, str], now: Mapping[str, str]) -> str:
    """In words, in what a record's key differs from this machine's; empty where they are the same."""
    names = sorted({*key, *now})
    found = [
        f"{name} {key.get(name)!r}, here {now.get(name)!r}"
        for name in names
        if key.get(name) != now.get(name)
    ]
    return "; ".join(found)
