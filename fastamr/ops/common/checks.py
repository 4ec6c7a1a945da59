"""Argument checks that several ops share. Shapes and dtypes only: nothing here waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor

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
