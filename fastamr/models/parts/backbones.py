"""Encoders that can leave out joints or times: a graph network that never sees them, or the library's transformer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ...nn.st_gcn import STGCN, STRIDE
from .asma_config import ASMaConfig
from .encoder import SkeletonEncoder
from .joint_graph import JointGraph
from .masking import token_validity
from .presence import known_or_there, over_times, present_index, tokens_of


def _pick_joints(values: Tensor, joints: Tensor) -> Tensor:
    """``(S, T, V)`` to the listed joints ``(S, T, V')``."""
    return values.gather(2, joints[:, None, :].expand(-1, values.shape[1], -1))


def _pick_frames(values: Tensor, frames: Tensor) -> Tensor:
    """``(S, T, ...)`` to the listed frames ``(S, T', ...)``."""
    index = frames.view(*frames.shape, *[1] * (values.ndim - 2))
    return values.gather(1, index.expand(-1, -1, *values.shape[2:]))


class GraphBackbone(STGCN):
    """ST-GCN: hidden joints leave the graph, hidden frames are cut out of the clip (as in PSTL).

    Joints that a sequence lacks were never in it: the others have a graph of their own.

    Args:
        config: the model's configuration.
    """

    present: Tensor | None

    def __init__(self, config: ASMaConfig) -> None:
        joint_graph = JointGraph(config.skeleton, config.partition)
        present = present_index(config)
        super().__init__(
            config.skeleton,
            config.width,
            hidden=config.hidden,
            channels=config.channels,
            partition=config.partition,
            graph=None if present is None else joint_graph.partitions(present),
        )
        self.joint_graph = joint_graph
        self.register_buffer("present", present, persistent=False)
        self.register_buffer("every", torch.arange(config.joints), persistent=False)

    every: Tensor

    def stream(
        self,
        clips: Tensor,
        valid: Tensor | None,
        *,
        joints: Tensor | None = None,
        times: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens ``(S, N', D)`` of what is not hidden, and which of them count in a mean ``(S, N')`` bool or None.

        Args:
            clips: ``(S, T, V, C)``.
            valid: ``(S, T, V)`` bool.
            joints: ``(S, V')`` int64, the joints to see, among those that are present.
            times: ``(S, T')`` int64, the frames to see.
            seen: ``(S, V'')`` bool, which of the joints that are present a sequence has; None = all.
        """
        if self.present is not None:
            clips = clips.index_select(2, self.present)
            valid = None if valid is None else valid.index_select(2, self.present)
        if times is not None:
            clips = _pick_frames(clips, times)
            valid = None if valid is None else _pick_frames(valid, times)
        graph = None
        if seen is not None:
            graph = self.joint_graph.partitions(self.every if self.present is None else self.present, seen)
        tokens = self(clips, joints, graph=graph, index=self.present, known=seen)
        if valid is None:
            return tokens, None
        if joints is not None:
            valid = _pick_joints(valid, joints)
            seen = None if seen is None else seen.gather(1, joints)
        # Frames that the last time step lacks do not make it invalid.
        valid = functional.pad(valid, (0, 0, 0, -valid.shape[1] % STRIDE), value=True)
        there = None if seen is None else over_times(seen, valid.shape[1] // STRIDE)
        return tokens, known_or_there(token_validity(valid, STRIDE), there)

    def part(self, clips: Tensor, joints: Tensor, seen: Tensor | None = None) -> Tensor:
        """Tokens ``(S, T/l * V', D)`` of bodies that have the listed ``joints (V',)`` alone.

        Args:
            clips: ``(S, T, V, C)``.
            joints: int64, of the layout.
            seen: ``(S, V')`` bool, which of them each sequence has; None = all.
        """
        graph = self.joint_graph.partitions(joints, seen)
        return self(clips.index_select(2, joints), graph=graph, index=joints, known=seen)


class TransformerBackbone(SkeletonEncoder):
    """The transformer that the masked autoencoders use: hidden tokens are never embedded.

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: ASMaConfig) -> None:
        super().__init__(config)
        self.times, self.joints = config.time_patches, config.joints
        present = torch.tensor(config.present_joints)
        self.register_buffer("grid", tokens_of(present, self.times, self.joints), persistent=False)

    grid: Tensor

    def stream(
        self,
        clips: Tensor,
        valid: Tensor | None,
        *,
        joints: Tensor | None = None,
        times: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`GraphBackbone.stream`, with time patches instead of frames in ``times``."""
        tokens = self.grid.view(1, self.times, -1).expand(clips.shape[0], -1, -1)
        there = seen
        if joints is not None:
            tokens = _pick_joints(tokens, joints)
            there = None if seen is None else seen.gather(1, joints)
        if times is not None:
            tokens = _pick_frames(tokens, times)
        keep = tokens.flatten(1)
        there = None if there is None else over_times(there, tokens.shape[1])
        mask = None
        if valid is not None:
            mask = known_or_there(token_validity(valid, self.embed.patch_frames).gather(1, keep), there)
        return self(clips, keep, there), mask

    def part(self, clips: Tensor, joints: Tensor, seen: Tensor | None = None) -> Tensor:
        """As :meth:`GraphBackbone.part`."""
        keep = tokens_of(joints, self.times, self.joints).expand(clips.shape[0], -1)
        return self(clips, keep, None if seen is None else over_times(seen, self.times))


BACKBONES: dict[str, type[GraphBackbone] | type[TransformerBackbone]] = {
    "stgcn": GraphBackbone,
    "transformer": TransformerBackbone,
}
"""What ASMa's option ``backbone`` may name."""
