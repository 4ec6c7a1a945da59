"""Adaptive Masked Reconstruction (Sun et al., CVPR 2026, arXiv 2606.11450)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ..errors import check_name
from ..nn import (
    CrossAttentionBlock,
    CrossAttentionStack,
    MotionEntropyGuidance,
    WeightedReconstructionLoss,
    WorkingLinear,
    initialize,
    learned_embedding,
)
from ..ops.common.checks import check_divides
from ..ops.motion_guidance import KINDS, check_guidance
from ..skeleton import SkeletonLayout
from .base import PretrainOutput, SkeletonModel
from .parts.config import ModelConfig
from .parts.encoder import SkeletonEncoder
from .parts.presence import over_layout, present_index, tokens_of


@dataclass(frozen=True)
class AMRConfig(ModelConfig):
    """Options of :class:`AMRModel` beside those of :class:`fastamr.models.ModelConfig`.

    Attributes:
        target_patches: r, encoder patches in time that one target patch spans (paper: 6, i.e. 24 frames).
        target_joints: neighbouring joints that one target patch spans (choice: 1).
        guidance: ``"entropy"`` (choice; equal to ``"energy"``, the paper's formula), ``"histogram"`` or ``"none"``.
        guidance_windows: window lengths in frames (paper: 4, 8, 12).
        guidance_k: strength (paper: 0.01).
        guidance_eps: squared coordinate unit (choice: 1e-8 m^2).
        guidance_bins: bins of the histogram form (choice: 8).
    """

    target_patches: int = 6
    target_joints: int = 1
    guidance: str = "entropy"
    guidance_windows: tuple[int, ...] = (4, 8, 12)
    guidance_k: float = 0.01
    guidance_eps: float = 1e-8
    guidance_bins: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        times = self.frames // self.patch_frames
        check_divides("target_patches", self.target_patches, "time patches (frames/patch_frames)", times)
        check_divides("target_joints", self.target_joints, "joints", self.joints)
        if self.target_joints > 1 and len(self.present_joints) < self.joints:
            raise ValueError(
                f"target_joints={self.target_joints} makes one target of joints of which some are not present: use 1"
            )
        check_name("guidance", self.guidance, (*KINDS, "none"))
        if self.guidance != "none":
            check_guidance(
                tuple(self.guidance_windows),
                self.guidance_k,
                self.guidance_eps,
                self.guidance,
                self.guidance_bins,
            )

    @property
    def target_frames(self) -> int:
        """Frames of a target patch, r*l."""
        return self.target_patches * self.patch_frames

    @property
    def target_grid(self) -> tuple[int, int]:
        """Target patches in time and over the joints."""
        return self.frames // self.target_frames, self.joints // self.target_joints


class DecoupledDecoder(nn.Module):
    """Learnable queries, one per target patch, that attend to the visible tokens only.

    The first layer's query projection is the same for every sequence and is computed once.

    Args:
        config: the model's configuration.
    """

    no_decay = ("queries", "time_embed", "joint_embed")
    present: Tensor | None

    def __init__(self, config: AMRConfig) -> None:
        super().__init__()
        rows, columns = config.target_grid
        width = config.decoder_width
        self.embed = WorkingLinear(config.width, width)
        self.register_buffer("present", present_index(config), persistent=False)
        self.queries = learned_embedding(1, rows * columns, width)
        self.time_embed = learned_embedding(rows, 1, width)
        self.joint_embed = learned_embedding(1, columns, width)
        self.blocks = self.make_blocks(config)
        self.norm = nn.LayerNorm(width)
        self.head = WorkingLinear(width, config.target_frames * config.target_joints * config.channels)

    def make_blocks(self, config: AMRConfig) -> nn.ModuleList:
        """Build the ``decoder_depth`` blocks; a decoder with other blocks makes its own."""
        blocks = (
            CrossAttentionBlock(
                config.decoder_width,
                config.decoder_heads,
                mlp_ratio=config.mlp_ratio,
                backend=config.attention,
            )
            for _ in range(config.decoder_depth)
        )
        return CrossAttentionStack(blocks, backend=config.blocks)

    def forward(self, tokens: Tensor) -> Tensor:
        """Predict the target patches ``(S, Q, P)`` of the joints that are present from visible tokens ``(S, K, D)``."""
        memory = self.embed(tokens)
        # As a batch of one, so that the positions' gradient needs no sum over it.
        x = self.queries + (self.time_embed + self.joint_embed).flatten(0, 1)[None]
        if self.present is not None:
            rows, columns = len(self.time_embed), self.joint_embed.shape[1]
            x = x.index_select(1, tokens_of(self.present, rows, columns))
        return self.head(self.blocks(x, memory, self.norm))


class AMRModel(SkeletonModel):
    """Masked reconstruction of few, long target patches, weighted by motion information entropy.

    The defaults are the paper's configuration: 8 encoder blocks of width 256 over the 75 visible of 750 tokens, 125
    queries through 5 decoder blocks without self-attention, each predicting 24 frames of one joint; 10,409,288
    parameters. What the paper leaves open is an option marked as a choice in :class:`AMRConfig`.

    Args:
        layout: joints of the skeleton, by name or as a :class:`fastamr.SkeletonLayout`.
        frames: T, frames of a clip.
        options: any other field of :class:`AMRConfig`.

    Attributes:
        decoder_class: what the decoder is built of; a subclass of the model names another one. It is called with the
            configuration, and maps the visible tokens ``(S, K, D)`` to all target patches ``(S, Q, P)``.
    """

    name = "amr"
    Config = AMRConfig
    reports_sequences = True
    config: AMRConfig
    decoder_class: ClassVar[type[nn.Module]] = DecoupledDecoder

    def __init__(self, layout: str | SkeletonLayout = "ntu25", frames: int = 120, **options: Any) -> None:
        super().__init__(layout, frames, **options)
        config = self.config
        self.encoder = SkeletonEncoder(config)
        self.decoder = self.decoder_class(config)
        self.guidance = None
        if config.guidance != "none":
            self.guidance = MotionEntropyGuidance(
                tuple(config.guidance_windows),
                config.guidance_k,
                eps=config.guidance_eps,
                kind=config.guidance,
                bins=config.guidance_bins,
            )
        self.criterion = WeightedReconstructionLoss(
            config.target_frames,
            config.target_joints,
            target=config.target,
            stride=config.stride,
            normalize=config.normalize,
            eps=config.loss_eps,
        )
        self.apply(initialize)

    def reconstruct(self, clips: Tensor, keep: Tensor, valid: Tensor | None) -> PretrainOutput:
        """Predict all target patches from the visible tokens; all of them enter the loss (choice)."""
        prediction = self.decoder(self.encoder(clips, keep))
        clips, valid = self.present_part(clips, valid)
        guidance = self.guidance(clips, valid) if self.guidance is not None else None
        loss, sequences = self.criterion.with_sequences(prediction, clips, guidance=guidance, valid=valid)
        return PretrainOutput(loss, prediction, keep, guidance, sequences=sequences)

    def over_layout(self, output: PretrainOutput) -> PretrainOutput:
        """Return the details with zeros for the joints that are no tokens."""
        if self.present is None:
            return output
        joints, guidance = self.config.joints, output.guidance
        grid = output.prediction.unflatten(1, (-1, len(self.present)))
        prediction = over_layout(grid, self.present, joints, 2).flatten(1, 2)
        guidance = None if guidance is None else over_layout(guidance, self.present, joints, 2)
        return output._replace(prediction=prediction, guidance=guidance)

    def linear_rows(self, name: str) -> int:
        """Rows of a linear layer per sequence: visible tokens in the encoder and as memory, queries elsewhere."""
        if name.startswith("encoder.") or name == "decoder.embed" or name.endswith(".kv"):
            return self.config.visible
        rows, columns = self.config.target_grid
        return rows * (columns if self.present is None else len(self.present))
