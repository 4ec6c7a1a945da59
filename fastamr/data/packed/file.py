"""A packed data set on disk: one safetensors file with a JSON header, memory-mapped, never unpickled."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ... import checksums
from ...checksums import save_file
from ...errors import STRAY, shortened, told
from ...files import check_folder_of, check_name_of_tensors, check_writable, replaced
from ...skeleton import SkeletonLayout
from .checks import known_rates
from .mapped import MappedFile, attach, parts_of
from .split import Split
from .structure import PackedFields
from .tensor_file import Pieces, write_tensors

FORMAT = "fastamr-packed-1"
_FAMILY = "fastamr-packed-"
_TENSORS = ("coords", "offsets", "body_clip", "body_start", "labels", "fps")
_OPTIONAL = ("valid", "frame_labels")
# What holds a value a frame, and may be too large for the memory.
_LARGE = ("coords", *_OPTIONAL)
_BLOCK = 1 << 16  # rows of a tensor
COPIED = 64 << 20
"""Bytes of the largest file that is read into memory instead of being mapped."""


def write_packed(data: PackedFields, path: str | Path) -> None:
    """Write a data set as one file that replaces ``path`` in one piece.

    Raises:
        FileNotFoundError: the folder does not exist.
        OSError: the file cannot be written (a full disk, for one); what was at ``path`` before is intact.
    """
    with _saving(path) as temporary:
        save_file(_tensors(data), temporary, {"format": FORMAT, "header": _header(data)})


def check_packed_target(path: str | Path, *inputs: str | Path | None) -> None:
    """Raise now if a packed file cannot be written to a place, or would replace what is not its earlier form.

    Args:
        path: the file to write.
        inputs: what is read, see :func:`fastamr.files.check_writable`; a packed file in a folder that is read may be
            replaced.

    Raises:
        FileExistsError: it is one of the files that are read, or a file that is no packed data.
        OSError: see :func:`fastamr.files.check_writable`.
    """
    check_writable(path, *(source for source in inputs if source is not None and not Path(source).is_dir()))
    if Path(path).is_file() and Path(path).stat().st_size and not _is_packed(path):
        raise FileExistsError(
            f"out {str(path)!r} exists and holds something else than packed data: name another file, or remove it"
        )


def _is_packed(path: str | Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return str((file.metadata() or {}).get("format")).startswith(_FAMILY)
    except (SafetensorError, OSError):
        return False


@contextmanager
def _saving(path: str | Path) -> Iterator[Path]:
    """Give a temporary path that takes the place of ``path``; a failure says that nothing was lost."""
    check_folder_of(path)
    try:
        with replaced(path) as temporary:
            yield temporary
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"cannot save {path} ({error}); a file that was there before is intact: make room and save again"
        ) from error


def write_packed_pieces(
    data: PackedFields, path: str | Path, pieces: Callable[[], Iterable[PackedFields]]
) -> None:
    """Write a data set whose coordinates come in pieces, one after another, so that they need not fit into memory.

    Args:
        data: the whole, with ``coords``, ``valid`` and ``frame_labels`` on the device ``meta``.
        path: the file, which is replaced in one piece.
        pieces: gives data sets whose frames follow one another in ``data``; it is called once a tensor.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: the pieces do not make up the whole.
        OSError: the file cannot be written; what was at ``path`` before is intact.
    """
    tensors: dict[str, Tensor | Pieces] = {}
    for name, tensor in _named_tensors(data).items():
        if tensor.is_meta:
            # map() binds the name now; a generator would look it up when the file is written.
            parts = map(operator.attrgetter(name), pieces())
            tensors[name] = Pieces(tensor.dtype, tuple(tensor.shape), parts)
        else:
            tensors[name] = tensor.contiguous()
    with _saving(path) as temporary:
        write_tensors(temporary, tensors, {"format": FORMAT, "header": _header(data)})


def fingerprint(data: PackedFields) -> str:
    """Return a hash of all that would be written: 32 hexadecimal digits, the same on every device."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(_named_tensors(data).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        for part in parts_of(tensor):
            # In blocks, so that neither a copy to the CPU nor one of another type needs much memory.
            for block in part.detach().split(_BLOCK):
                content = block.to("cpu", tensor.dtype).contiguous().view(torch.uint8)
                digest.update(content.numpy().data if content.numel() else b"")
    digest.update(_header(data).encode())
    return digest.hexdigest()


def _tensors(data: PackedFields) -> dict[str, Tensor]:
    """Return what is written as tensors, contiguous, on the CPU, each in memory of its own, as safetensors wants."""
    found: dict[str, Tensor] = {}
    addresses = set()
    for name, tensor in _named_tensors(data).items():
        tensor = tensor.detach().cpu().contiguous()
        found[name] = tensor.clone() if tensor.data_ptr() in addresses else tensor
        addresses.add(tensor.data_ptr())
    return found


def _named_tensors(data: PackedFields) -> dict[str, Tensor]:
    """Return what is written as tensors, by the names in the file."""
    tensors = {name: getattr(data, name) for name in _TENSORS}
    tensors |= {name: value for name in _OPTIONAL if (value := getattr(data, name)) is not None}
    tensors |= {f"column.{name}": column for name, column in data.columns.items()}
    for name, split in data.splits.items():
        tensors |= {f"split.{name}.train": split.train, f"split.{name}.test": split.test}
    tensors["names"] = _text_tensor(data.names, "clip")
    if data.body_names:
        tensors["body_names"] = _text_tensor(data.body_names, "body")
    return tensors


def _text_tensor(names: Sequence[str], what: str) -> Tensor:
    """Return names as one tensor of bytes: safetensors limits the size of the JSON header."""
    text = "\0".join(names)
    if text.count("\0") != len(names) - 1:
        raise ValueError(
            f"names: a {what} name holds a NUL character, which ends a name in the file; rename the {what}"
        )
    return torch.from_numpy(np.array(bytearray(text.encode()), dtype=np.uint8))


def _texts(tensor: Tensor) -> list[str]:
    return tensor.numpy().tobytes().decode().split("\0")


def _header(data: PackedFields) -> str:
    return json.dumps(
        {
            "layout": data.layout.to_dict(),
            "columns": list(data.columns),
            "splits": list(data.splits),
            "label_names": data.label_names,
            "column_names": data.column_names,
            "steps": data.steps,
            "dropped": data.dropped,
        }
    )


def read_packed(path: str | Path) -> dict[str, Any]:
    """Read a packed file, of up to :data:`COPIED` bytes; map what has a value a frame of a larger one into memory.

    Mapped pages are read when they are used. The mapping is private: writing into a tensor does not change the file.
    What is read is compared with its checksums, what is mapped is not: see :class:`~.mapped.MappedFile`.

    Returns:
        The fields of ``PackedSkeletons`` by name, on the CPU.

    Raises:
        FileNotFoundError: there is no such file, or it is a folder.
        ValueError: the file is truncated, damaged, of another kind or of another version.
    """
    path = Path(path)
    if not path.is_file():
        if path.is_dir():
            raise FileNotFoundError(
                f"{path} is a folder, expected a packed data file; make one with: fastamr import {path} OUT.safetensors"
            )
        raise FileNotFoundError(f"no packed data file {path}; make one with: fastamr import FILE {path}")
    check_name_of_tensors(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            _check_format(path, file.metadata() or {})
            header = json.loads(file.metadata()["header"])
            known = checksums.expected(path, file.metadata())
            names = list(file.keys())
            large = _LARGE if path.stat().st_size > COPIED else ()
            mapped = MappedFile(path, tuple(name for name in large if name in names)) if large else None
            tensors = {
                name: file.get_tensor(name)
                if name in large
                else checksums.read_tensor(file, path, name, known)
                for name in names
            }
    except (SafetensorError, json.JSONDecodeError, *STRAY) as error:
        raise ValueError(
            f"{path} is not a packed data file, or is truncated ({told(error)}); make it with: fastamr import FILE OUT"
        ) from None
    if mapped is not None:
        for name in mapped.names:
            attach(tensors[name], mapped)
    try:
        return _fields(tensors, header)
    except (ValueError, *STRAY) as error:
        raise ValueError(f"{path} has a damaged header ({error!r}); import the source again") from None


def _check_format(path: Path, metadata: dict[str, str]) -> None:
    found = metadata.get("format", "")
    if not found.startswith(_FAMILY):
        raise ValueError(f"{path} holds tensors, but no packed data; make it with: fastamr import FILE OUT")
    if found != FORMAT:
        raise ValueError(f"{path} has format {found!r}, expected {FORMAT!r}; import the source again")


def _fields(tensors: dict[str, Tensor], header: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: tensors[name] for name in _TENSORS}
    fields["fps"] = known_rates(fields["fps"])
    fields |= {name: tensors.get(name) for name in _OPTIONAL}
    fields["names"] = _texts(tensors["names"])
    fields["body_names"] = _texts(tensors["body_names"]) if "body_names" in tensors else []
    fields["layout"] = SkeletonLayout.from_dict(header["layout"])
    fields["columns"] = {name: tensors[f"column.{name}"] for name in header["columns"]}
    fields["splits"] = {
        name: Split(tensors[f"split.{name}.train"], tensors[f"split.{name}.test"])
        for name in header["splits"]
    }
    fields["label_names"] = _words(header["label_names"], "label_names")
    fields["column_names"] = {
        name: _words(names, f"column_names of {name!r}") for name, names in header["column_names"].items()
    }
    for step in header["steps"]:
        if not isinstance(step, dict) or not isinstance(step.get("name"), str):
            raise ValueError(f"steps holds {shortened(step)}, expected mappings with a name")
    fields["steps"] = tuple(header["steps"])
    fields["dropped"] = dict(header["dropped"])
    _words(list(fields["dropped"].values()), "dropped")
    return fields


def _words(names: Any, what: str) -> tuple[str, ...]:
    """Return a list of texts as a tuple, or raise ``ValueError`` where it holds something else."""
    wrong = [name for name in names if not isinstance(name, str)] if isinstance(names, list) else [names]
    if wrong:
        raise ValueError(f"{what} holds {shortened(wrong[0])}, expected a list of texts")
    return tuple(names)
