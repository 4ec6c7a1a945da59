"""ASMa, asymmetric spatio-temporal masking (TMLR 2026, arXiv 2602.06251)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import ops
from ..errors import check_name
from ..nn import describe_features, initialize
from ..nn.barlow_twins import BarlowProjector, BarlowTwinsLoss
from ..nn.feature_alignment import FeatureAlignment
from ..nn.st_gcn import PARTITIONS, STRIDE
from ..skeleton import SkeletonLayout, get_layout
from .asymmetric_masking import VIEWS, ViewMasks, draw_masks, joint_degrees
from .backbones import BACKBONES
from .base import PretrainOutput, SkeletonModel
from .config import ModelConfig
from .pooling import mean_tokens

# What each encoder sees of a clip: all of it, a part of the joints, a part of the frames.
STREAMS = ("anchor", "spatial", "temporal")
# Lambda times width of the projector.
_PAPER_BALANCE = 2e-4 * 6144


@dataclass(frozen=True)
class ASMaConfig(ModelConfig):
    """Options of :class:`ASMaModel` beside those of :class:`fastamr.models.ModelConfig`.

    There is neither decoder nor reconstruction: ``mask_ratio``, ``masking``, ``mask_tau``, ``decoder_*``, ``target``,
    ``stride``, ``normalize`` and ``loss_eps`` have no effect. ``depth`` is of the transformer only, ``heads`` and
    ``mlp_ratio`` are of the transformer and of the alignment.

    Attributes:
        frames: T (paper: 50; choice: 52, which the graph network turns into 13 time steps as it does 50).
        backbone: ``"stgcn"`` (paper) or ``"transformer"``, the encoder of the other methods.
        partition: of a joint's neighbours in the graph, ``"uniform"``, ``"distance"`` or ``"spatial"`` (choice).
        hidden: channels of the graph network's first blocks (choice: 16, after PSTL).
        masked_joints: share of joints that the spatial streams miss (choice: 8 of 25).
        masked_times: share of frames, or with the transformer of time patches, that the temporal streams miss (choice:
            10 of 50).
        projector: width of the projector's layers (paper: 6144).
        redundancy_weight: lambda of the Barlow Twins loss (paper: 2e-4); None for ``2e-4 * 6144 / projector``, the
            paper's at its width and the same balance of both sums at others (choice): a narrow projector with the
            paper's lets the features collapse.
        align_depth: cross-attention blocks in each direction between the two encoders (choice: 1); 0 for none.
    """

    frames: int = 52
    backbone: str = "stgcn"
    partition: str = "spatial"
    hidden: int = 16
    masked_joints: float = 0.32
    masked_times: float = 0.2
    projector: int = 6144
    redundancy_weight: float | None = None
    align_depth: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name("backbone", self.backbone, BACKBONES)
        check_name("partition", self.partition, PARTITIONS)
        if self.backbone == "stgcn" and self.patch_frames != STRIDE:
            raise ValueError(
                f"patch_frames={self.patch_frames} must be {STRIDE} with backbone='stgcn', which halves the time "
                "twice; backbone='transformer' takes others"
            )
        for name, least in (("hidden", 1), ("projector", 1), ("align_depth", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        for name, units in (("masked_joints", self.joints), ("masked_times", self.times)):
            share = getattr(self, name)
            if not 0 < share < 1:
                raise ValueError(f"{name}={share} must be a share above 0 and below 1, for example 0.2")
            if units < 2:
                raise ValueError(f"{name}={share} cannot hide a part of {units}: use more frames or joints")
        if self.balance < 0:
            raise ValueError(f"redundancy_weight={self.redundancy_weight} must be zero or more")

    @property
    def balance(self) -> float:
        """Lambda of the Barlow Twins loss, whether given or not."""
        return _PAPER_BALANCE / self.projector if self.redundancy_weight is None else self.redundancy_weight

    @property
    def skeleton(self) -> SkeletonLayout:
        """The layout itself."""
        return get_layout(self.layout)

    @property
    def time_unit(self) -> int:
        """Frames that the temporal mask hides together: 1, or a patch of the transformer."""
        return 1 if self.backbone == "stgcn" else self.patch_frames

    @property
    def times(self) -> int:
        """Units of time in a clip."""
        return self.frames // self.time_unit

    @property
    def kept_joints(self) -> int:
        """Joints that a spatial stream sees; at least one is seen and one hidden."""
        return _kept(self.joints, self.masked_joints)

    @property
    def kept_times(self) -> int:
        """Units of time that a temporal stream sees; at least one is seen and one hidden."""
        return _kept(self.times, self.masked_times)


def _kept(units: int, share: float) -> int:
    return units - min(max(1, round(units * share)), units - 1)


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

    def forward(self, clips: Tensor) -> Tensor:
        """Aligned tokens of both encoders, side by side: ``(S, T, V, C)`` to ``(S, N, 2*D)``."""
        first, second = (self.views[view](clips) for view in VIEWS)
        return torch.cat(self.align(first, second), dim=-1)


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
    degrees: Tensor

    def __init__(self, layout: str | SkeletonLayout = "ntu25", frames: int = 52, **options: object) -> None:
        super().__init__(layout, frames, **options)
        config = self.config
        # On the model's device, so that a training step can be recorded as a CUDA graph; not saved.
        self.register_buffer("degrees", joint_degrees(self.layout), persistent=False)
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
            transformer, time patches) of its temporal stream, then both of encoder ``b``; each ascending.
        """
        config = self.config
        if seed is None:
            seed = ops.make_seed(generator, clips.device)
        masks = draw_masks(
            seed,
            clips,
            self.degrees,
            joints=config.kept_joints,
            times=config.kept_times,
            unit=config.time_unit,
            valid=valid,
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
            anchor, *masked = (self.projectors[view](feature) for feature in features)
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
        seen: tuple[dict[str, Tensor], ...] = ({}, {"joints": masks.joints}, {"times": masks.times})
        return [mean_tokens(*encoder.stream(clips, valid, **part)) for part in seen]  # type: ignore[operator]

    def _check_keep(self, keep: Tensor, clips: Tensor) -> None:
        config = self.config
        width = len(VIEWS) * (config.kept_joints + config.kept_times)
        if tuple(keep.shape) != (clips.shape[0], width):
            raise ValueError(
                f"keep has shape {tuple(keep.shape)}, expected ({clips.shape[0]}, {width}): take it from choose_visible"
            )
        if keep.device.type != "cpu" or torch.compiler.is_compiling():
            return
        for masks in self.split_masks(keep).values():
            for name, units, part in zip(
                ("joint", "time"), (config.joints, config.times), masks, strict=True
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
        return config.tokens + config.kept_joints * times + config.kept_times * config.joints
