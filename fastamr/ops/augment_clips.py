"""Mirror, resize, project, disturb and cut clips on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import reference
from ..reference.augment_clips import LIMBS
from .common.backends import Backend, Problem, can_always, choose, declare
from .common.checks import (
    check_clips,
    check_device,
    check_indices,
    check_seed,
    check_shape,
    check_tensor,
    check_valid,
    clip_sizes,
)
from .common.precision import exact
from .common.registration import fake_of
from .common.triton_support import TRITON

declare("augment_clips", TRITON, Backend("reference", can_always))


@torch.library.custom_op("fastamr::augment_clips", mutates_args=())
def _op(
    clips: Tensor,
    valid: Tensor | None,
    seed: Tensor,
    mirror: float,
    partners: Tensor | None,
    scale_jitter: float,
    drop_limbs: float,
    limbs: Tensor | None,
    patch_frames: int,
    visible: int,
    noise: float,
    project: float,
    flat: Tensor | None,
    group: Tensor | None,
    numbers: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    if partners is not None:
        check_indices("partners", partners, len(partners), "joint")
    if limbs is not None:
        check_indices("limbs, each plus 1,", limbs + 1, LIMBS + 1, "limb")
    if backend == "triton":
        from ..kernels.augment_clips import augment_clips as run
    else:
        run = reference.augment_clips
    with exact(clips):
        return run(
            clips,
            valid,
            seed,
            mirror=mirror,
            partners=partners,
            scale_jitter=scale_jitter,
            drop_limbs=drop_limbs,
            limbs=limbs,
            patch_frames=patch_frames,
            visible=visible,
            noise=noise,
            project=project,
            flat=flat,
            group=group,
            numbers=numbers,
        )


@fake_of(_op)
def _(clips: Tensor, valid: Tensor | None, drop_limbs: float, limbs: Tensor | None) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(torch.float32, clips.dtype)
    has_mask = valid is not None or (drop_limbs > 0 and limbs is not None)
    seen = clips.new_empty(clips.shape[:3] if has_mask else (0,), dtype=torch.bool)
    return clips.new_empty(clips.shape, dtype=dtype), seen


def _check_amounts(channels: int, amounts: dict[str, float]) -> None:
    """Raise unless each probability and size lies where it may."""
    if channels not in (2, 3):
        raise ValueError(f"augmentation needs 2 or 3 channels, got C={channels}")
    for name in ("mirror", "drop_limbs", "project"):
        if not 0 <= amounts[name] <= 1:
            raise ValueError(f"{name}={amounts[name]} must be a probability from 0 to 1")
    if not 0 <= amounts["scale_jitter"] < 1:
        raise ValueError(f"scale_jitter={amounts['scale_jitter']} must be at least 0 and below 1")
    if not 0 <= amounts["noise"] < float("inf"):
        raise ValueError(f"noise={amounts['noise']} must be zero or more, in the unit of the coordinates")
    if amounts["project"] > 0 and channels != 3:
        raise ValueError(f"project={amounts['project']} needs 3 channels, got C={channels}: set project=0")


def _check_rows(clips: Tensor, given: dict[str, tuple[Tensor | None, torch.dtype, str]]) -> None:
    """Raise unless each vector has a value for each joint or each sequence of the clips."""
    for name, (value, dtype, form) in given.items():
        if value is not None:
            length = clips.shape[2 if form == "(V,)" else 0]
            check_tensor(name, value, 1, form, (dtype,))
            check_shape(name, value, (length,), form)
            check_device(name, value, clips.device, "clips")


def augment_clips(
    clips: Tensor,
    seed: Tensor,
    *,
    valid: Tensor | None = None,
    mirror: float = 0.0,
    partners: Tensor | None = None,
    scale_jitter: float = 0.0,
    drop_limbs: float = 0.0,
    limbs: Tensor | None = None,
    patch_frames: int = 1,
    visible: int = 0,
    noise: float = 0.0,
    project: float = 0.0,
    flat: Tensor | None = None,
    group: Tensor | None = None,
    numbers: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Mirror, resize, project, disturb and cut clips, in this order; carries no gradient.

    Every back end draws the same choices from the same words of Philox-4x32-10. Whether a clip is mirrored, its scale
    and its projection follow from the sequence's group, which the bodies of one clip share; lost limbs and noise from
    the sequence's own number.

    Args:
        clips: ``(S, T, V, C)`` floating point, 2 or 3 channels: x across the body, y up.
        seed: ``(2,)`` int64, key and counter.
        valid: ``(S, T, V)`` bool, which joints were seen; None = all were.
        mirror: probability with which left and right change places and x its sign, the validity with them.
        partners: ``(V,)`` int64, the joint on the other side, or the joint itself; needed by ``mirror``.
        scale_jitter: R; the coordinates are multiplied by a number uniform in ``1 - R .. 1 + R``.
        drop_limbs: probability with which each limb is not seen in any frame: its coordinates are 0. Of the tokens
            beyond the ``visible`` ones a sequence loses at most three quarters; limbs that would take more stay.
        limbs: ``(V,)`` int64, the limb of each joint, 0 to 7, or -1 for what is never dropped; needed by
            ``drop_limbs``.
        patch_frames: frames of a token, which all must be seen; counts for ``drop_limbs`` alone.
        visible: tokens that every sequence must keep, where it has as many.
        noise: standard deviation of a normal disturbance of each coordinate in each frame, in the coordinates' unit;
            not of joints that were not seen, nor of the depth of a flat clip.
        project: probability with which a clip is turned about y by any angle, and its depth becomes 0 (an orthographic
            picture from the side).
        flat: ``(S,)`` bool, sequences without depth: they are not turned, and their third channel becomes 0.
        group: ``(S,)`` int64, see above; by default each sequence is a group of its own, of its place in the batch.
        numbers: ``(S,)`` int64, see above; by default the place in the batch.

    Returns:
        ``(S, T, V, C)`` float32 (float64 for float64 clips), and ``(S, T, V)`` bool, or None where ``valid`` is and no
        limb is dropped. A projected clip is one whose third channel is 0 throughout.

    Raises:
        ValueError: a shape or amount that does not fit, or ``partners`` or ``limbs`` are missing.
        TypeError: a wrong dtype.
    """
    check_clips(clips)
    check_valid(valid, clips)
    check_seed(seed)
    check_device("seed", seed, clips.device, "clips")
    amounts = {
        "mirror": mirror,
        "scale_jitter": scale_jitter,
        "drop_limbs": drop_limbs,
        "noise": noise,
        "project": project,
    }
    _check_amounts(clips.shape[3], amounts)
    if not 1 <= patch_frames <= max(clips.shape[1], 1):
        raise ValueError(f"patch_frames={patch_frames} must be at least 1 and at most T={clips.shape[1]}")
    for name, amount, other, value in (
        ("mirror", mirror, "partners", partners),
        ("drop_limbs", drop_limbs, "limbs", limbs),
    ):
        if amount > 0 and value is None:
            raise ValueError(f"{name}={amount} needs {other}: pass them, or {name}=0")
    if flat is not None and clips.shape[3] != 3:
        raise ValueError(f"flat is given for clips of C={clips.shape[3]} channels, expected 3")
    _check_rows(
        clips,
        {
            "partners": (partners, torch.int64, "(V,)"),
            "limbs": (limbs, torch.int64, "(V,)"),
            "flat": (flat, torch.bool, "(S,)"),
            "group": (group, torch.int64, "(S,)"),
            "numbers": (numbers, torch.int64, "(S,)"),
        },
    )
    name = choose("augment_clips", Problem(clips.device.type, clips.dtype, (), clip_sizes(clips)))
    out, seen = _op(
        clips.detach(), valid, seed, mirror, partners, scale_jitter, drop_limbs, limbs,
        patch_frames, visible, noise, project, flat, group, numbers, name,
    )  # fmt: skip
    return out, None if valid is None and drop_limbs == 0 else seen
