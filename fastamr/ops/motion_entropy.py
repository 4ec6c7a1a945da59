"""Motion energy and motion information entropy per window and joint."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import reference
from .common.backends import Backend, Problem, can_always, choose, declare
from .common.checks import check_clips, check_valid, clip_sizes
from .common.registration import fake_of
from .common.triton_support import TRITON

declare("motion_entropy", TRITON, Backend("reference", can_always))


@torch.library.custom_op("fastamr::motion_entropy", mutates_args=())
def _op(clips: Tensor, window: int, valid: Tensor | None, eps: float, backend: str) -> tuple[Tensor, Tensor]:
    if backend == "triton":
        from ..kernels.motion_entropy import motion_entropy as kernel

        return kernel(clips, window=window, valid=valid, eps=eps)
    return reference.motion_entropy(clips, window=window, valid=valid, eps=eps)


@fake_of(_op)
def _(clips: Tensor, window: int) -> tuple[Tensor, Tensor]:
    sequences, frames, joints, _ = clips.shape
    dtype = torch.promote_types(torch.float32, clips.dtype)
    energy = clips.new_empty((sequences, (frames + window - 1) // window, joints), dtype=dtype)
    return energy, torch.empty_like(energy)


def check_window(name: str, window: int, eps: float) -> None:
    """Raise unless the window has at least one frame and eps is positive."""
    if window < 1:
        raise ValueError(f"{name}={window} must be at least 1 frame")
    if eps <= 0:
        raise ValueError(f"eps={eps} must be positive (squared coordinate units, 1e-8 m^2 by default)")


def motion_entropy(
    clips: Tensor, *, window: int, valid: Tensor | None = None, eps: float = 1e-8
) -> tuple[Tensor, Tensor]:
    """Energy and entropy of each joint in each window of frames.

    The energy is the mean squared distance from the window's mean position (AMR); the entropy is the differential
    entropy ``H = C/2 * log(2*pi*e * (energy + eps) / C)`` of an isotropic Gaussian with that total variance, in nats.
    A last window shorter than ``window`` uses its own frames. Carries no gradient.

    Args:
        clips: ``(S, T, V, C)`` floating point, metres.
        window: frames per window.
        valid: ``(S, T, V)`` bool; other frames do not count. A window without valid frames has energy 0.
        eps: squared coordinate unit (choice: 1e-8 m^2).

    Returns:
        ``energy`` and ``entropy``, each ``(S, ceil(T/window), V)`` in float32 (float64 for float64 clips).

    Raises:
        ValueError: a shape that does not fit, ``window < 1`` or ``eps <= 0``.
        TypeError: a wrong dtype.
    """
    check_clips(clips)
    check_valid(valid, clips)
    check_window("window", window, eps)
    name = choose("motion_entropy", Problem(clips.device.type, clips.dtype, (), clip_sizes(clips)))
    return _op(clips.detach(), window, valid, eps, name)
