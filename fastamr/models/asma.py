"""ASMa, asymmetric spatio-temporal masking (TMLR 2026, arXiv 2602.06251)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import ops
from ..nn import describe_features, initialize
from ..nn.barlow_twins import BarlowProjector, BarlowTwinsLoss
from ..nn.feature_alignment import FeatureAlignment
from ..skeleton import SkeletonLayout
from .base import PretrainOutput, SkeletonModel, is_readable
from .parts.asma_config import ASMaConfig
from .parts.asymmetric_masking import VIEWS, ViewMasks, draw_masks
from .parts.backbones import BACKBONES
from .parts.joint_graph import JointGraph
from .parts.pooling import mean_tokens
from .parts.presence import over_times

# What each encoder sees of a clip: all of it, a part of the joints, a part of the frames.
STREAMS = ("anchor", "spatial", "temporal")


class EncoderPair(nn.Module):
    """Two encoders of one kind, and the alignment of their features.

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: ASMaConfig) -> None:
        super().__init__()
        self.views = nn.ModuleDict({view: BACKBONES[config.backbone](config) for view in VIEWS})
        self.align = FeatureAlignment(
            config.width,
            config.heads,
            depth=config.align_depth,
            mlp_ratio=config.mlp_ratio,
            backend=config.attention,
        )

    def forward(self, clips: Tensor, joints: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        """Aligned tokens of both encoders, side by side: ``(S, T, V, C)`` to ``(S, N, 2*D)``.

        Args:
            clips: the clips.
            joints: ``(V',)`` int64, the joints that bodies have; None = all.
            seen: ``(S, V')`` bool, which of these each sequence has; None = all.
        """
        if joints is None:
            first, second = (self.views[view](clips) for view in VIEWS)
            return torch.cat(self.align(first, second), dim=-1)
        first, second = (self.views[view].part(clips, joints, seen) for view in VIEWS)  # type: ignore[operator]
        known = None if seen is None else over_times(seen, first.shape[1] // len(joints))
        return torch.cat(self.align(first, second, known), dim=-1)


class ASMaModel(SkeletonModel):
    """Two encoders that learn to see the whole body in a part of it, each from the opposite parts.

    Encoder ``a`` misses central joints (of a high degree) or still frames, encoder ``b`` outer joints or moving frames.
    Each describes the clip three times, whole (anchor), without some joints (spatial) and without some frames
    (temporal), and a Barlow Twins loss makes the anchor's projection agree with either other one. The three share the
    clip's crop and rotation, and the parameters but not the batch statistics (choices).

    The features are those of both encoders side by side, 2*D wide, after cross-attention between them. Pre-training
    does not reach the cross-attention: it starts as the identity, so that frozen features are the encoders' own, and
    learns with a classifier (paper).

    The loss is a statistic of the batch. With ``accumulate`` it is taken of each micro-batch, as are the batch
    normalisations: the update is then that of a smaller batch size with less noise, not that of the whole batch.

    Args:
        layout: joints of the skeleton, by name or as a :class:`fastamr.SkeletonLayout`.
        frames: T, frames of a clip.
        options: any other field of :class:`ASMaConfig`.
    """

    name = "asma"
    Config = ASMaConfig
    config: ASMaConfig
    encoder: EncoderPair  # type: ignore[assignment]
    reports_terms = True
    # Its batch normalisations and its loss are statistics of the sequences that lie in one process.
    spreads = False
    degrees: Tensor
    joints: Tensor

    def __init__(self, layout: str | SkeletonLayout = "ntu25", frames: int = 52, **options: object) -> None:
        super().__init__(layout, frames, **options)
        config = self.config
        # On the model's device, so that a training step can be recorded as a CUDA graph; not saved.
        self.joint_graph = JointGraph(self.layout, config.partition)
        joints = torch.tensor(config.present_joints)
        self.register_buffer("joints", joints, persistent=False)
        self.register_buffer("degrees", self.joint_graph.degrees(joints), persistent=False)
        self.encoder = EncoderPair(config)
        self.projectors = nn.ModuleDict(
            {view: BarlowProjector(config.width, config.projector) for view in VIEWS}
        )
        self.criterion = BarlowTwinsLoss(config.balance)
        self.apply(initialize)
        self.encoder.align.start_as_identity()

    def choose_visible(
        self,
        clips: Tensor,
        *,
        seed: Tensor | None = None,
        generator: torch.Generator | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Draw the masks of prepared clips.

        Returns:
            ``(S, K)`` int32, side by side of encoder ``a`` the joints of its spatial stream and the frames (with the
            transformer, time patches) of its temporal stream, then both of encoder ``b``; each ascending. Joints are
            places among those that are present.
        """
        config = self.config
        if seed is None:
            seed = ops.make_seed(generator, clips.device)
        clips, valid = self.present_part(clips, valid)
        seen = self.joints_of_each(valid)
        masks = draw_masks(
            seed,
            clips,
            self.degrees if seen is None else self.joint_graph.degrees(self.joints, seen),
            joints=config.kept_joints,
            times=config.kept_times,
            unit=config.time_unit,
            valid=valid,
            seen=seen,
            share=config.masked_joints,
        )
        return torch.cat([part for view in VIEWS for part in masks[view]], dim=1).int()

    def split_masks(self, keep: Tensor) -> dict[str, ViewMasks]:
        """The masks of each encoder, from what :meth:`choose_visible` returns."""
        config = self.config
        parts = keep.long().split([config.kept_joints, config.kept_times] * len(VIEWS), dim=1)
        return {view: ViewMasks(*parts[2 * place : 2 * place + 2]) for place, view in enumerate(VIEWS)}

    def reconstruct(self, clips: Tensor, keep: Tensor, valid: Tensor | None) -> PretrainOutput:
        """Describe the clip in six streams ``(S, 6, Z)`` and compare; nothing is reconstructed."""
        if self.training and clips.shape[0] < 2:
            raise ValueError(
                f"clips holds {clips.shape[0]} sequences: ASMa compares features over a batch, which needs at least "
                "2 (with accumulate, in each micro-batch)"
            )
        loss = torch.zeros((), device=clips.device)
        terms: dict[str, Tensor] = {}
        projections = []
        for view, masks in self.split_masks(keep).items():
            features = self._describe(view, clips, valid, masks)
            projected = self.projectors[view](torch.cat(features), len(features))
            anchor, *masked = projected.chunk(len(features))
            for stream, projection in zip(STREAMS[1:], masked, strict=True):
                part, parts = self.criterion(anchor, projection)
                loss = loss + part
                terms |= {f"{name}/{view}_{stream}": value for name, value in parts.items()}
            terms |= describe_features(f"encoder_{view}", features[0].detach())
            projections += [anchor, *masked]
        return PretrainOutput(loss, torch.stack(projections, dim=1), keep, None, terms)

    def _describe(self, view: str, clips: Tensor, valid: Tensor | None, masks: ViewMasks) -> list[Tensor]:
        """Features ``(S, D)`` of the three streams of one encoder."""
        encoder = self.encoder.views[view]
        there = self.joints_of_each(self.present_part(clips, valid)[1])
        parts: tuple[dict[str, Tensor], ...] = ({}, {"joints": masks.joints}, {"times": masks.times})
        return [
            mean_tokens(*encoder.stream(clips, valid, seen=there, **part))  # type: ignore[operator]
            for part in parts
        ]

    def _encode_part(self, clips: Tensor, joints: Tensor, known: Tensor | None = None) -> Tensor:
        return self.encoder(clips, joints, None if known is None else known[:, : len(joints)])

    def _check_keep(self, keep: Tensor, clips: Tensor) -> None:
        config = self.config
        width = len(VIEWS) * (config.kept_joints + config.kept_times)
        if tuple(keep.shape) != (clips.shape[0], width):
            raise ValueError(
                f"keep has shape {tuple(keep.shape)}, expected ({clips.shape[0]}, {width}): take it from choose_visible"
            )
        if not is_readable(keep):
            return
        for masks in self.split_masks(keep).values():
            for name, units, part in zip(
                ("joint", "time"), (len(config.present_joints), config.times), masks, strict=True
            ):
                if part.numel() and not 0 <= int(part.min()) <= int(part.max()) < units:
                    raise ValueError(
                        f"keep lists {name}s {int(part.min())} to {int(part.max())}, expected 0 to {units - 1}"
                    )

    def linear_rows(self, name: str) -> int:
        """Rows of a linear layer per sequence, over the three streams of its encoder.

        The alignment takes no part in pre-training. The graph network has convolutions, which are not linear layers:
        with it only the projectors count.
        """
        config = self.config
        if name.startswith("projectors."):
            return len(STREAMS)
        if name.startswith("encoder.align."):
            return 0
        times = config.frames // config.patch_frames
        joints = len(config.present_joints)
        return times * joints + config.kept_joints * times + config.kept_times * joints
