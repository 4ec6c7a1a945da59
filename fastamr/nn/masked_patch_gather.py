"""Patch embedding of the visible tokens only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import ops
from .initialization import learned_embedding


class MaskedPatchEmbed(nn.Module):
    """Embed patches of ``patch_frames`` frames of one joint and add learned time and joint positions.

    Drop-in for a patch embedding followed by a gather of the visible tokens: only those are ever embedded.

    Args:
        frames: T, frames of a clip.
        joints: V.
        width: D, width of a token.
        patch_frames: l, frames of a patch; divides T.
        channels: C, 2 or 3.
        flat_embedding: add a learned vector to the tokens of sequences whose third channel is 0 throughout: 2-D data
            and projections among 3-D data.

    Shapes:
        clips ``(S, T, V, C)``, keep ``(S, K)`` -> tokens ``(S, K, D)``; without keep all ``N = T/l*V`` tokens.
    """

    no_decay = ("time_embed", "joint_embed", "flat_embed")

    def __init__(
        self,
        frames: int,
        joints: int,
        width: int,
        *,
        patch_frames: int = 4,
        channels: int = 3,
        flat_embedding: bool = False,
    ) -> None:
        super().__init__()
        if patch_frames < 1 or frames % patch_frames:
            raise ValueError(f"patch_frames={patch_frames} does not divide frames={frames}")
        self.patch_frames = patch_frames
        self.tokens = frames // patch_frames * joints
        self.proj = nn.Linear(patch_frames * channels, width)
        self.time_embed = learned_embedding(frames // patch_frames, 1, width)
        self.joint_embed = learned_embedding(1, joints, width)
        self.flat_embed = learned_embedding(1, 1, width) if flat_embedding else None

    def forward(self, clips: Tensor, keep: Tensor | None = None) -> Tensor:
        """Tokens ``(S, K, D)`` of the listed patches, or of all."""
        if keep is None:
            keep = torch.arange(self.tokens, device=clips.device).expand(clips.shape[0], -1)
        position = (self.time_embed + self.joint_embed).flatten(0, 1)
        tokens = ops.masked_patch_gather(
            clips, keep, self.proj.weight, self.proj.bias, position, patch_frames=self.patch_frames
        )
        return (
            tokens if self.flat_embed is None else tokens + flat_part(clips, self.flat_embed).to(tokens.dtype)
        )


def flat_part(clips: Tensor, embedding: Tensor) -> Tensor:
    """What the tokens of each sequence receive ``(S, 1, D)``: the embedding ``(1, 1, D)`` without depth, else 0."""
    flat = (clips[..., 2] == 0).flatten(1).all(1)
    return embedding * flat[:, None, None]
