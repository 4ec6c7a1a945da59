"""Argument checks that several ops share.

Shapes and dtypes are checked where an op is called, and nothing is waited for. Values (:func:`check_indices`) are
looked at where it runs: on a CPU always, on a GPU with ``FASTAMR_DEBUG=1`` only, because it must be waited for.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from .planning import device_type_of

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensor(
    name: str, value: Tensor, rank: int, form: str, dtypes: tuple[torch.dtype, ...] = FLOATS
) -> None:
    """Raise unless ``value`` is a tensor of this rank and of one of these dtypes."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor {form}, got {type(value).__name__}")
    if value.ndim != rank:
        raise ValueError(f"{name} must have shape {form}, got {tuple(value.shape)}")
    if value.dtype not in dtypes:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{name} must be of dtype {names}, got {str(value.dtype).removeprefix('torch.')}")


def check_shape(name: str, value: Tensor, shape: tuple[int, ...], form: str) -> None:
    """Raise unless ``value`` has exactly this shape."""
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} must have shape {form} = {shape}, got {tuple(value.shape)}")


def check_device(name: str, value: Tensor | None, device: torch.device, other: str) -> None:
    """Raise unless ``value`` lies on the device of the argument ``other``."""
    if value is not None and value.device != device:
        raise ValueError(f"{name} is on {value.device}, {other} on {device}: move both to one device")


def check_clips(clips: Tensor) -> None:
    """Raise unless ``clips`` is a floating tensor ``(S, T, V, C)``."""
    check_tensor("clips", clips, 4, "(S, T, V, C)")


def clip_sizes(clips: Tensor) -> dict[str, int]:
    """The sizes of clips ``(S, T, V, C)`` by which back ends are chosen."""
    return {"sequences": clips.shape[0], "frames": clips.shape[1], "joints": clips.shape[2]}


def check_valid(valid: Tensor | None, clips: Tensor) -> None:
    """Raise unless ``valid`` is None or a bool tensor ``(S, T, V)`` that fits the clips."""
    if valid is not None:
        check_tensor("valid", valid, 3, "(S, T, V)", (torch.bool,))
        check_shape("valid", valid, tuple(clips.shape[:3]), "(S, T, V) of clips")
        check_device("valid", valid, clips.device, "clips")


def check_keep(keep: Tensor, sequences: int) -> None:
    """Raise unless ``keep`` is an integer tensor ``(S, K)``."""
    check_tensor("keep", keep, 2, "(S, K)", (torch.int32, torch.int64))
    check_shape("keep", keep, (sequences, keep.shape[1]), "(S, K)")


def check_seed(seed: Tensor, *, may_shift: bool = False) -> None:
    """Raise unless ``seed`` is an int64 tensor ``(2,)`` holding key and counter.

    Args:
        seed: the seed.
        may_shift: it may also be ``(3,)``, with the number of the first sequence.
    """
    check_tensor("seed", seed, 1, "(2,): key and counter", (torch.int64,))
    if not (may_shift and len(seed) == 3):
        check_shape("seed", seed, (2,), "(key, counter)")


def check_divides(name: str, part: int, whole_name: str, whole: int) -> None:
    """Raise unless ``part`` is at least 1 and divides ``whole``."""
    if part < 1 or whole % part:
        divisors = [part for part in range(1, whole + 1) if whole % part == 0]
        raise ValueError(f"{name}={part} does not divide {whole_name}={whole}: expected one of {divisors}")


def is_readable(values: Tensor) -> bool:
    """Whether the host can look at the values without waiting: they are on the CPU, not traced and not only a shape."""
    return (
        device_type_of(values) == "cpu"
        and not torch.compiler.is_compiling()
        and not isinstance(values, FakeTensor)
    )


def are_values_checked(values: Tensor) -> bool:
    """Whether an op that runs looks at the values of its indices: on a CPU, with ``FASTAMR_DEBUG=1`` on a GPU too."""
    if values.device.type != "cuda":
        return is_readable(values)
    return os.environ.get("FASTAMR_DEBUG", "0") not in ("", "0") and not (
        torch.compiler.is_compiling()
        or isinstance(values, FakeTensor)
        or torch.cuda.is_current_stream_capturing()
    )


def check_indices(name: str, values: Tensor, count: int, what: str) -> None:
    """Raise ``ValueError`` if an index lies outside ``0 .. count - 1``; see :func:`are_values_checked`.

    Args:
        name: the argument.
        values: ``(S,)`` or ``(S, K)`` integers.
        count: how many things there are.
        what: what one of them is called.
    """
    if values.numel() == 0 or not are_values_checked(values):
        return
    least, greatest = (int(value) for value in torch.aminmax(values))
    if least < 0 or greatest >= count:
        bad = least if least < 0 else greatest
        place = (values == bad).nonzero()[0].tolist()
        where = f"in sequence {place[0]}" if len(place) == 2 else f"at {place[0]}"
        raise ValueError(f"{name} lists {what} {bad} {where}: expected 0 to {count - 1}")


def check_cu_seqlens(values: Tensor, rows: int) -> None:
    """Raise ``ValueError`` unless offsets ``(S+1,)`` lead from 0 to ``rows``; see :func:`are_values_checked`."""
    if not are_values_checked(values):
        return
    # Neighbours are compared, not subtracted: a difference can wrap around.
    falls = values[1:] < values[:-1]
    if int(values[0]) != 0 or int(values[-1]) != rows or bool(falls.any()):
        raise ValueError(f"cu_seqlens must begin with 0, never fall, and end with the number of rows, {rows}")


def check_sequences(offsets: Tensor, sequence_ids: Tensor, frames: int) -> None:
    """Raise ``ValueError`` unless each chosen sequence ``offsets[id] .. offsets[id + 1] - 1`` has frames that exist."""
    if sequence_ids.numel() == 0 or not are_values_checked(offsets):
        return
    first, last = offsets[sequence_ids], offsets[sequence_ids + 1]
    bad = (first < 0) | (last <= first) | (last > frames)
    if bool(bad.any()):
        place = int(bad.nonzero()[0])
        raise ValueError(
            f"offsets: sequence {int(sequence_ids[place])} has the frames {int(first[place])} to "
            f"{int(last[place]) - 1}, expected at least one, within 0 to {frames - 1}"
        )
