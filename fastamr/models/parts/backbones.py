"""Encoders that can leave out joints or times: a graph network that never sees them, or the library's transformer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ...nn.st_gcn import STGCN, STRIDE
from .asma_config import ASMaConfig
from .encoder import SkeletonEncoder
from .masking import token_validity


def _pick_joints(values: Tensor, joints: Tensor) -> Tensor:
    """``(S, T, V)`` to the listed joints ``(S, T, V')``."""
    return values.gather(2, joints[:, None, :].expand(-1, values.shape[1], -1))


def _pick_frames(values: Tensor, frames: Tensor) -> Tensor:
    """``(S, T, ...)`` to the listed frames ``(S, T', ...)``."""
    index = frames.view(*frames.shape, *[1] * (values.ndim - 2))
    return values.gather(1, index.expand(-1, -1, *values.shape[2:]))


class GraphBackbone(STGCN):
    """ST-GCN: hidden joints leave the graph, hidden frames are cut out of the clip (as in PSTL).

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: ASMaConfig) -> None:
        super().__init__(
            config.skeleton,
            config.width,
            hidden=config.hidden,
            channels=config.channels,
            partition=config.partition,
        )

    def stream(
        self,
        clips: Tensor,
        valid: Tensor | None,
        *,
        joints: Tensor | None = None,
        times: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens ``(S, N', D)`` of what is not hidden, and which of them are valid ``(S, N')`` bool or None.

        Args:
            clips: ``(S, T, V, C)``.
            valid: ``(S, T, V)`` bool.
            joints: ``(S, V')`` int64, the joints to see.
            times: ``(S, T')`` int64, the frames to see.
        """
        if times is not None:
            clips = _pick_frames(clips, times)
            valid = None if valid is None else _pick_frames(valid, times)
        tokens = self(clips, joints)
        if valid is None:
            return tokens, None
        if joints is not None:
            valid = _pick_joints(valid, joints)
        # Frames that the last time step lacks do not make it invalid.
        valid = functional.pad(valid, (0, 0, 0, -valid.shape[1] % STRIDE), value=True)
        return tokens, token_validity(valid, STRIDE)


class TransformerBackbone(SkeletonEncoder):
    """The transformer that the masked autoencoders use: hidden tokens are never embedded.

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: ASMaConfig) -> None:
        super().__init__(config)
        self.grid = (config.frames // config.patch_frames, config.joints)

    def stream(
        self,
        clips: Tensor,
        valid: Tensor | None,
        *,
        joints: Tensor | None = None,
        times: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`GraphBackbone.stream`, with time patches instead of frames in ``times``."""
        tokens = torch.arange(self.grid[0] * self.grid[1], device=clips.device).view(1, *self.grid)
        tokens = tokens.expand(clips.shape[0], -1, -1)
        if joints is not None:
            tokens = _pick_joints(tokens, joints)
        if times is not None:
            tokens = _pick_frames(tokens, times)
        keep = tokens.flatten(1)
        mask = None
        if valid is not None:
            mask = token_validity(valid, self.embed.patch_frames).gather(1, keep)
        return self(clips, keep), mask


BACKBONES: dict[str, type[GraphBackbone] | type[TransformerBackbone]] = {
    "stgcn": GraphBackbone,
    "transformer": TransformerBackbone,
}
"""What ASMa's option ``backbone`` may name."""
