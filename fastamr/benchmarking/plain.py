"""SkeletonMAE and AMR in nothing but PyTorch: the baselines that fastamr is measured against.

No op, kernel or compiled extension of this library runs here: linear layers, LayerNorm, GELU, softmax or
``scaled_dot_product_attention``, gathers and reductions, written as in the public codes (MAE, MAMP, timm), so that
``torch.compile`` sees all of it. The weights are those of a :class:`~fastamr.models.SkeletonModel`, whose loss in
float64 is the truth for both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import reference
from ..models import AMRModel, SkeletonMAEModel, SkeletonModel
from ..reference.weighted_reconstruction_loss import reconstruction_target, to_patches

ATTENTIONS = ("materialised", "sdpa")


class PlainModel(nn.Module):
    """The pre-training loss of a model, from the same weights, in plain PyTorch.

    Args:
        model: SkeletonMAE or AMR with random masking; its parameters are trained in place.
        attention: ``"materialised"`` writes the attention matrices out, as the public code does; ``"sdpa"`` is
            ``torch.nn.functional.scaled_dot_product_attention``.

    Raises:
        ValueError: another masking strategy or attention.
        TypeError: a model that has no plain form here.
    """

    def __init__(self, model: SkeletonModel, attention: str) -> None:
        super().__init__()
        if not isinstance(model, SkeletonMAEModel | AMRModel):
            raise TypeError(
                f"{type(model).__name__} has no plain form: expected SkeletonMAEModel or AMRModel"
            )
        if model.config.masking != "random" or attention not in ATTENTIONS:
            raise ValueError(
                f"masking {model.config.masking!r} and attention {attention!r}: expected 'random' and one of "
                f"{', '.join(ATTENTIONS)}"
            )
        self.model, self.attention = model, attention

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Mask at random; return the loss and the visible tokens ``(S, K)`` of ``clips (S, T, V, C)``."""
        config = self.model.config
        noise = torch.rand(clips.shape[0], config.tokens, device=clips.device)
        keep = noise.argsort(dim=1)[:, : config.visible]
        return self.loss(clips, keep), keep

    def loss(self, clips: Tensor, keep: Tensor) -> Tensor:
        """The loss for given visible tokens ``(S, K)`` int64, a float32 scalar."""
        tokens = self._encode(clips, keep)
        if isinstance(self.model, AMRModel):
            return self._guided_loss(self._decode_queries(tokens), clips)
        return self._masked_loss(self._decode_all(tokens, keep), clips, keep)

    def _encode(self, clips: Tensor, keep: Tensor) -> Tensor:
        encoder: Any = self.model.encoder
        patches = reference.patch_gather(clips, keep, patch_frames=self.model.config.patch_frames)
        positions = (encoder.embed.time_embed + encoder.embed.joint_embed).flatten(0, 1)
        x = encoder.embed.proj(patches) + positions[keep]
        for block in encoder.blocks:
            x = self._block(block, x)
        return encoder.norm(x)

    def _decode_all(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """SkeletonMAE: mask tokens in the gaps, self-attention over all tokens, every patch is predicted."""
        decoder: Any = self.model.decoder
        visible = decoder.embed(tokens)
        index = keep[..., None].expand_as(visible)
        blank = decoder.mask_token.to(visible.dtype).expand(len(visible), decoder.tokens, -1)
        x = blank.scatter(1, index, visible) + (decoder.time_embed + decoder.joint_embed).flatten(0, 1)
        for block in decoder.blocks:
            x = self._block(block, x)
        return decoder.head(decoder.norm(x))

    def _decode_queries(self, tokens: Tensor) -> Tensor:
        """AMR: learned queries over the visible tokens; the first layer projects them once for all sequences."""
        decoder: Any = self.model.decoder
        memory = decoder.embed(tokens)
        x = decoder.queries + (decoder.time_embed + decoder.joint_embed).flatten(0, 1)
        for block in decoder.blocks:
            x = self._block(block, x, memory)
        return decoder.head(decoder.norm(x))

    def _block(self, block: Any, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """Pre-norm block: attention (over ``memory`` where given), then the MLP."""
        attn, normed = block.attn, block.norm1(x)
        heads, size = attn.heads, attn.size
        if memory is None:
            q, k, v = attn.qkv(normed).unflatten(-1, (3, heads, size)).permute(2, 0, 3, 1, 4)
        else:
            k, v = attn.kv(memory).unflatten(-1, (2, heads, size)).permute(2, 0, 3, 1, 4)
            q = attn.q(normed).unflatten(-1, (heads, size)).transpose(1, 2).expand(len(memory), -1, -1, -1)
        if self.attention == "sdpa":
            out = functional.scaled_dot_product_attention(q, k, v)
        else:
            out = ((q @ k.transpose(-2, -1)) * size**-0.5).softmax(dim=-1) @ v
        x = x + attn.proj(out.transpose(1, 2).flatten(2))
        return x + block.mlp.fc2(functional.gelu(block.mlp.fc1(block.norm2(x))))

    def _target(self, clips: Tensor, frames: int, joints: int = 1) -> Tensor:
        config = self.model.config
        return reconstruction_target(
            clips,
            target_frames=frames,
            target_joints=joints,
            target=config.target,
            stride=config.stride,
            normalize=config.normalize,
            eps=config.loss_eps,
        )[0]

    def _masked_loss(self, prediction: Tensor, clips: Tensor, keep: Tensor) -> Tensor:
        target = self._target(clips, self.model.config.patch_frames)
        error = (prediction.to(target.dtype) - target).square().mean(-1)
        masked = torch.ones_like(error).scatter(1, keep, 0.0)
        return (error * masked).sum() / masked.sum()

    def _guided_loss(self, prediction: Tensor, clips: Tensor) -> Tensor:
        config: Any = self.model.config
        frames, joints = config.target_frames, config.target_joints
        target = self._target(clips, frames, joints)
        error = (prediction.to(target.dtype) - target).square()
        if config.guidance == "none":
            return error.mean()
        guidance = reference.motion_guidance(
            clips,
            windows=tuple(config.guidance_windows),
            k=config.guidance_k,
            eps=config.guidance_eps,
            kind=config.guidance,
            bins=config.guidance_bins,
        )
        weight = to_patches(guidance[..., None].expand_as(clips), frames, joints)
        return (weight * error).mean()
