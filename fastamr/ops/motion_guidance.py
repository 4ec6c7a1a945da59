"""The guidance map of the adaptive reconstruction loss."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import reference
from ..errors import check_name
from .common.backends import Backend, Problem, can_always, choose, declare
from .common.checks import check_clips, check_valid, clip_sizes
from .common.registration import fake_of
from .common.triton_support import TRITON
from .motion_entropy import check_window

KINDS = ("entropy", "energy", "histogram")

# The kernels unroll over the window lengths and hold a histogram in registers.
_MOST_WINDOWS = 8
_MOST_BINS = 1024

declare("motion_guidance", TRITON, Backend("reference", can_always))


@torch.library.custom_op("fastamr::motion_guidance", mutates_args=())
def _op(
    clips: Tensor,
    windows: list[int],
    k: float,
    eps: float,
    kind: str,
    bins: int,
    valid: Tensor | None,
    backend: str,
) -> Tensor:
    if backend == "triton":
        from ..kernels.motion_guidance import motion_guidance as run
    else:
        run = reference.motion_guidance
    return run(clips, windows=tuple(windows), k=k, eps=eps, kind=kind, bins=bins, valid=valid)


@fake_of(_op)
def _(clips: Tensor) -> Tensor:
    return clips.new_empty(clips.shape[:3], dtype=torch.promote_types(torch.float32, clips.dtype))


def check_guidance(windows: tuple[int, ...], k: float, eps: float, kind: str, bins: int) -> None:
    """Raise unless the guidance's options make sense; used by the op and, early, by the models."""
    check_name("guidance kind", kind, KINDS)
    if not windows:
        raise ValueError("windows=() must name at least one window length, for example (4, 8, 12)")
    for window in windows:
        check_window("windows entry", window, eps)
    if k < 0:
        raise ValueError(f"k={k} must be at least 0 (0.01 by default)")
    if kind == "histogram" and (bins < 2 or min(windows) < 3):
        raise ValueError(f"histogram guidance needs bins >= 2 and windows >= 3, got bins={bins}, {windows=}")


def motion_guidance(
    clips: Tensor,
    *,
    windows: tuple[int, ...] = (4, 8, 12),
    k: float = 0.01,
    eps: float = 1e-8,
    kind: str = "entropy",
    bins: int = 8,
    valid: Tensor | None = None,
) -> Tensor:
    """Weight of each frame and joint in the reconstruction loss (AMR); carries no gradient.

    ``kind="energy"`` is the paper's ``w = 1 / (1 + k * e_t / (e_s + eps))`` with ``e_t`` the mean energy over all
    windows and joints of the sequence (choice: all joints). ``kind="entropy"`` is the logistic of the entropy gap
    ``sigmoid(2/C * (H_s - H_t) - log k)``, the same up to eps in ``e_t``. ``kind="histogram"`` is the Shannon entropy
    of the displacement magnitudes within the window over ``bins`` equal bins between 0 and the sequence's maximum,
    divided by ``log(min(bins, n - 1))`` (choice); a rest of fewer than 3 frames weighs 0. A window's weight holds for
    all its frames; the maps of several windows are averaged (choice).

    Args:
        clips: ``(S, T, V, C)`` floating point, metres.
        windows: window lengths in frames (paper: 4, 8, 12).
        k: strength (paper: 0.01).
        eps: squared coordinate unit (choice: 1e-8 m^2).
        kind: ``"entropy"``, ``"energy"`` or ``"histogram"``.
        bins: bins of the histogram (choice: 8).
        valid: ``(S, T, V)`` bool; other frames do not count and weigh 0.

    Returns:
        ``(S, T, V)`` in [0, 1], float32 (float64 for float64 clips).

    Raises:
        ValueError: a shape that does not fit or an option out of range.
        TypeError: a wrong dtype.
    """
    check_clips(clips)
    check_valid(valid, clips)
    check_guidance(tuple(windows), k, eps, kind, bins)
    refusals: tuple[str, ...] = ()
    if len(windows) > _MOST_WINDOWS:
        refusals = (f"more than {_MOST_WINDOWS} windows",)
    elif kind == "histogram" and bins > _MOST_BINS:
        refusals = (f"more than {_MOST_BINS} bins",)
    name = choose("motion_guidance", Problem(clips.device.type, clips.dtype, (), clip_sizes(clips), refusals))
    return _op(clips.detach(), list(windows), k, eps, kind, bins, valid, name)
