"""Writing safetensors files whose tensors never lie in memory as a whole."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...checksums import CHECKSUMS, DTYPES, as_text, start

_ALIGNMENT = 8


@dataclass(frozen=True)
class Pieces:
    """A tensor that comes in pieces along its first dimension.

    Args:
        dtype: of the elements.
        shape: of the whole.
        parts: the pieces, in order; they are asked for once.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    parts: Iterable[Tensor]


def write_tensors(path: Path, tensors: Mapping[str, Tensor | Pieces], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with checksums; a piece is let go before the next one is asked for.

    Raises:
        ValueError: the pieces of a tensor do not add up to its shape.
        OSError: the file cannot be written.
    """
    # As the reference implementation: the widest elements first, so that all are aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    sums = {name: start(DTYPES[tensors[name].dtype], tensors[name].shape) for name in order}
    header: dict[str, object] = {"__metadata__": {**metadata, CHECKSUMS: as_text(sums, metadata)}}
    sizes: dict[str, int] = {}
    end = 0
    for name in order:
        tensor = tensors[name]
        sizes[name] = torch.Size(tensor.shape).numel() * tensor.dtype.itemsize
        offsets = [end, end + sizes[name]]
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        end += sizes[name]
    with open(path, "wb") as file:
        file.write(_header_bytes(header))
        for name in order:
            tensor = tensors[name]
            written = 0
            for part in [tensor] if isinstance(tensor, Tensor) else tensor.parts:
                if part.dtype != tensor.dtype or part.shape[1:] != torch.Size(tensor.shape[1:]):
                    raise ValueError(f"{name}: a piece is {part.dtype} of shape {tuple(part.shape)}")
                content = part.contiguous().flatten().view(torch.uint8)
                if content.numel():
                    sums[name] = zlib.crc32(content.numpy().data, sums[name])
                    written += file.write(content.numpy().data)
            if written != sizes[name]:
                raise ValueError(f"{name}: its pieces have {written} bytes, expected {sizes[name]}")
        # The checksums are known now; they take as many bytes as those that stood in their place.
        header["__metadata__"] = {**metadata, CHECKSUMS: as_text(sums, metadata)}
        file.seek(0)
        file.write(_header_bytes(header))


def _header_bytes(header: Mapping[str, object]) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text
