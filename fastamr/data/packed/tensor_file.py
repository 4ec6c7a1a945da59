"""Writing safetensors files whose tensors never lie in memory as a whole."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

# The format's names of element types: github.com/huggingface/safetensors, "Format".
_DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int16: "I16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
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
    """Write a safetensors file; a piece is let go before the next one is asked for.

    Raises:
        ValueError: the pieces of a tensor do not add up to its shape.
        OSError: the file cannot be written.
    """
    # As the reference implementation: the widest elements first, so that all are aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    sizes: dict[str, int] = {}
    end = 0
    for name in order:
        tensor = tensors[name]
        sizes[name] = torch.Size(tensor.shape).numel() * tensor.dtype.itemsize
        offsets = [end, end + sizes[name]]
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        end += sizes[name]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            tensor = tensors[name]
            written = 0
            for part in [tensor] if isinstance(tensor, Tensor) else tensor.parts:
                if part.dtype != tensor.dtype or part.shape[1:] != torch.Size(tensor.shape[1:]):
                    raise ValueError(f"{name}: a piece is {part.dtype} of shape {tuple(part.shape)}")
                content = part.contiguous().flatten().view(torch.uint8)
                written += file.write(content.numpy().data) if content.numel() else 0
            if written != sizes[name]:
                raise ValueError(f"{name}: its pieces have {written} bytes, expected {sizes[name]}")
