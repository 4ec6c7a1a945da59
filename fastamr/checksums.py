"""Tensor files (safetensors) with a checksum per tensor in their header, so that a flipped bit is found, and where.

The header's metadata holds ``checksums``: a JSON object that gives for each tensor the CRC-32 of its type, shape and
bytes, and under the empty name that of the other metadata. CRC-32 finds every flipped bit and every burst of 32;
Python's zlib computes about 4 GB a second. A file without it, of an earlier version or another program, is taken as
it is.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from safetensors import torch as safetensors_torch
from torch import Tensor

# The format's names of element types: github.com/huggingface/safetensors, "Format".
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
CHECKSUMS = "checksums"
_CHUNK = 8 << 20
# safetensors itself refuses longer headers.
_LONGEST_HEADER = 100_000_000


def start(dtype: str, shape: Iterable[int]) -> int:
    """Return the checksum of a tensor before its bytes."""
    return zlib.crc32(f"{dtype} {list(shape)}".encode())


def checksum(tensor: Tensor) -> int:
    """Return the checksum of a tensor on the CPU."""
    content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return zlib.crc32(content.data if content.size else b"", start(DTYPES[tensor.dtype], tensor.shape))


def of_metadata(metadata: Mapping[str, str]) -> int:
    """Return the checksum of the metadata beside the checksums."""
    items = sorted((name, value) for name, value in metadata.items() if name != CHECKSUMS)
    return zlib.crc32(json.dumps(items).encode())


def as_text(sums: Mapping[str, int], metadata: Mapping[str, str]) -> str:
    """Return what the header says; its length depends on the names alone.

    Args:
        sums: by tensor.
        metadata: the other metadata.
    """
    return json.dumps(
        {name: f"{value:08x}" for name, value in ({"": of_metadata(metadata)} | dict(sums)).items()}
    )


def save_file(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with checksums; the same tensors and texts give the same bytes.

    Args:
        tensors: contiguous, on the CPU, each in memory of its own.
        path: the file.
        metadata: text by name.

    Raises:
        SafetensorError, OSError: it cannot be written.
    """
    sums = {name: checksum(tensor) for name, tensor in tensors.items()}
    safetensors_torch.save_file(dict(tensors), path, {**metadata, CHECKSUMS: as_text(sums, metadata)})
    _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Put the texts of a header in order: safetensors writes them in another one each time."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length)
        if len(text) == length:
            file.seek(8)
            file.write(text)


def load_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file into memory, and compare its checksums.

    Returns:
        Tensors by name, on the CPU; the metadata.

    Raises:
        ValueError: a checksum differs; the message names the tensor.
        SafetensorError: the file is truncated or of another kind.
    """
    with safe_open(path, framework="pt", device="cpu") as file:
        metadata = file.metadata() or {}
        known = expected(path, metadata)
        names = list(file.keys())
        return {name: read_tensor(file, path, name, known) for name in names}, metadata


def read_tensor(file: Any, path: Path, name: str, known: Mapping[str, str]) -> Tensor:
    """Copy a tensor out of a file that ``safe_open`` has opened, and compare its checksum.

    Raises:
        ValueError: it differs.
    """
    tensor: Tensor = file.get_tensor(name)
    # The bytes as they lie in the file: a copy of a bool is 0 or 1.
    compare(path, known, name, lambda: checksum(tensor))
    return tensor.clone()


def expected(path: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the checksums that a file's header holds, none where it has none.

    Raises:
        ValueError: they are no checksums, or the metadata beside them differ from theirs.
    """
    if CHECKSUMS not in metadata:
        return {}
    try:
        known = {str(name): str(value) for name, value in json.loads(metadata[CHECKSUMS]).items()}
    except (ValueError, AttributeError):
        known = {"": ""}
    if known.get("") != f"{of_metadata(metadata):08x}":
        raise damaged(path, "its header")
    return known


def compare(path: Path, known: Mapping[str, str], name: str, found: Any) -> None:
    """Raise unless a tensor has its checksum; ``found`` computes it where the file has checksums.

    Raises:
        ValueError: it has not.
    """
    if known and known.get(name) != f"{found():08x}":
        raise damaged(path, f"tensor {name!r}")


def damaged(path: Path, what: str) -> ValueError:
    """Build the error for a part that is not what was written."""
    return ValueError(
        f"{path} is damaged: {what} differs from its checksum; take a copy, or make the file again"
    )


def read_header(file: BinaryIO, path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str], int]:
    """Read the header of a safetensors file that has been opened before, as ``safe_open`` has checked it.

    Returns:
        The tensors' ``dtype``, ``shape`` and ``data_offsets`` by name; the metadata; where the tensors begin.

    Raises:
        ValueError: the file is truncated.
    """
    file.seek(0)
    first = file.read(8)
    length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
    text = file.read(length) if 0 < length <= _LONGEST_HEADER else b""
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", {})
    except (ValueError, AttributeError):
        raise ValueError(f"{path} is truncated: its header cannot be read; make the file again") from None
    return header, metadata, 8 + length


def verify_file(file: BinaryIO, path: Path, names: Iterable[str] | None = None) -> bool:
    """Compare the checksums of an open file by reading it, a few MB at a time.

    Args:
        file: open for reading bytes.
        path: what it is called.
        names: the tensors to look at; None = all.

    Returns:
        Whether the file has checksums.

    Raises:
        ValueError: a checksum differs, or the file is shorter than its header says; the message names the tensor.
    """
    header, metadata, begin = read_header(file, path)
    known = expected(path, metadata)
    if not known:
        return False
    for name in header if names is None else names:
        first, last = header[name]["data_offsets"]
        file.seek(begin + first)
        found, left = start(header[name]["dtype"], header[name]["shape"]), last - first
        while left > 0:
            part = file.read(min(left, _CHUNK))
            if not part:
                raise ValueError(f"{path} is truncated within tensor {name!r}; make the file again")
            found, left = zlib.crc32(part, found), left - len(part)
        compare(path, known, name, lambda found=found: found)
    return True
