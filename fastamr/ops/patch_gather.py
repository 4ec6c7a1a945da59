"""Gather the raw patches of chosen tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import reference
from .common.backends import Backend, Problem, can_always, choose, declare
from .common.checks import check_clips, check_device, check_divides, check_indices, check_keep, clip_sizes
from .common.registration import fake_of
from .common.triton_support import TRITON

declare("patch_gather", TRITON, Backend("reference", can_always))


@torch.library.custom_op("fastamr::patch_gather", mutates_args=())
def _op(clips: Tensor, keep: Tensor, patch_frames: int, backend: str) -> Tensor:
    check_indices("keep", keep, clips.shape[1] // patch_frames * clips.shape[2], "token")
    if backend == "triton":
        from ..kernels.patch_gather import patch_gather as kernel

        return kernel(clips, keep, patch_frames=patch_frames)
    return reference.patch_gather(clips, keep, patch_frames=patch_frames)


@fake_of(_op)
def _(clips: Tensor, keep: Tensor, patch_frames: int) -> Tensor:
    return clips.new_empty((clips.shape[0], keep.shape[1], patch_frames * clips.shape[3]))


def patch_gather(clips: Tensor, keep: Tensor, *, patch_frames: int) -> Tensor:
    """Gather the raw patches of chosen tokens; carries no gradient.

    Args:
        clips: ``(S, T, V, C)`` floating point.
        keep: ``(S, K)`` int32 or int64 token ids in ``0 .. T/l*V - 1`` (frame-major: ``time_patch*V + joint``).
        patch_frames: l, divides T.

    Returns:
        ``(S, K, l*C)`` in the clips' dtype, frame-major, then channel.

    Raises:
        ValueError: shapes that do not fit or ``patch_frames`` that does not divide T.
        TypeError: a wrong dtype.
    """
    check_clips(clips)
    check_keep(keep, clips.shape[0])
    check_device("keep", keep, clips.device, "clips")
    check_divides("patch_frames", patch_frames, "frames", clips.shape[1])
    name = choose("patch_gather", Problem(clips.device.type, clips.dtype, (), clip_sizes(clips)))
    return _op(clips.detach(), keep, patch_frames, name)
