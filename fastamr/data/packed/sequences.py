"""From the field's clip batches to body sequences."""

from __future__ import annotations

import torch
from torch import Tensor


def to_sequences(batch: Tensor, *, keep_empty_bodies: bool = False) -> tuple[Tensor, Tensor]:
    """Split a batch of clips in the field's layout into one sequence per body.

    Args:
        batch: ``(N, C, T, V, M)`` floating point, as ST-GCN and its successors feed it.
        keep_empty_bodies: keep the bodies whose coordinates are all 0. Then ``S = N * M`` whatever the values
            are, and a GPU is not waited for; otherwise the values decide and it is.

    Returns:
        ``clips (S, T, V, C)``, the bodies of a clip after each other, and ``clip_index (S,)`` int64, the clip in
        the batch that each sequence belongs to.

    Raises:
        TypeError: ``batch`` is not a floating-point tensor.
        ValueError: ``batch`` has not five dimensions, or no body is left.
    """
    if not isinstance(batch, Tensor) or not batch.is_floating_point():
        kind = batch.dtype if isinstance(batch, Tensor) else type(batch).__name__
        raise TypeError(f"batch is {kind}, expected a floating-point tensor (N, C, T, V, M)")
    if batch.ndim != 5:
        raise ValueError(f"batch has shape {tuple(batch.shape)}, expected (N, C, T, V, M)")
    count, channels, frames, joints, bodies = batch.shape
    if channels not in (2, 3):
        raise ValueError(
            f"batch has {channels} channels (shape {tuple(batch.shape)}), expected (N, 2 or 3, T, V, M)"
        )
    clips = batch.permute(0, 4, 2, 3, 1).reshape(count * bodies, frames, joints, channels)
    clip_index = torch.arange(count, device=batch.device).repeat_interleave(bodies)
    if not keep_empty_bodies:
        # NaN counts as present, so that bad coordinates are met where they are used, not lost here.
        present = (clips != 0).flatten(1).any(1)
        clips, clip_index = clips[present], clip_index[present]
    if clips.shape[0] == 0:
        raise ValueError(
            f"batch of shape {tuple(batch.shape)} holds no body with a coordinate other than 0; "
            f"remove empty clips, or pass keep_empty_bodies=True"
        )
    return clips, clip_index
