"""GFP, General Feature Prediction (Sun et al., ICCV 2025, arXiv 2509.03609)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .. import ops
from ..nn import FeaturePredictionLoss, WorkingLinear, describe_features, initialize
from ..skeleton import SkeletonLayout
from .base import PretrainOutput, SkeletonModel
from .parts.config import ModelConfig
from .parts.encoder import SkeletonEncoder
from .parts.mask_tokens import MaskTokenDecoder, decoder_blocks
from .parts.pooling import mean_tokens
from .parts.presence import over_layout, over_times, present_index

GLOBAL = "global"


@dataclass(frozen=True)
class GFPConfig(ModelConfig):
    """Options of :class:`GFPModel` beside those of :class:`fastamr.models.ModelConfig`.

    ``target``, ``stride`` and ``normalize`` describe the motion that the target networks see (choice: normalised over
    the sequence, as AMR's target).

    Attributes:
        masking: motion-aware, as in MAMP (paper).
        visible_rounding: down, as in MAMP's public code (choice).
        decoder_depth: transformer blocks of each level (choice: 2, by the published cost).
        levels: encoder patches in time that one target of each local level spans, ascending (paper: 5, 10, 30, i.e. 20,
            40 and 120 frames); the global level is always there.
        target_width: features of a target (choice: 256, by the published cost).
        target_hidden: inner width of the local target networks (paper: 512).
        global_hidden: inner width of the global one (paper: 2048).
        prediction_weight: of the squared error (paper: 5).
        covariance_weight: of the covariance loss of each level (paper: 5).
        variance_weight: of the variance loss of each level (paper: 1).
    """

    masking: str = "motion"
    visible_rounding: str = "down"
    decoder_depth: int = 2
    levels: tuple[int, ...] = (5, 10, 30)
    target_width: int = 256
    target_hidden: int = 512
    global_hidden: int = 2048
    prediction_weight: float = 5.0
    covariance_weight: float = 5.0
    variance_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        times = self.frames // self.patch_frames
        chain = (1, *self.levels, times)
        if not self.levels or any(small < 1 or large % small for small, large in pairwise(chain)):
            divisors = [size for size in range(1, times + 1) if times % size == 0]
            raise ValueError(
                f"levels={tuple(self.levels)}: each must divide the next one, and the last the {times} time patches "
                f"(frames/patch_frames); {times} is divided by {', '.join(map(str, divisors))}"
            )
        for name in ("target_width", "target_hidden", "global_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("prediction_weight", "covariance_weight", "variance_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be zero or more")

    @property
    def level_names(self) -> tuple[str, ...]:
        """Names of the levels, from the shortest to the global one."""
        return (*(f"level_{span}" for span in self.levels), GLOBAL)

    @property
    def level_rows(self) -> tuple[int, ...]:
        """Targets of each level in one sequence; 150 + 75 + 25 + 1 = 251 at the defaults."""
        times = self.frames // self.patch_frames
        return (*(times // span * len(self.present_joints) for span in self.levels), 1)


class PyramidLevel(nn.Module):
    """One stage of the decoder: transformer blocks over the pooled tokens, and the prediction of the level.

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: GFPConfig) -> None:
        super().__init__()
        self.blocks = decoder_blocks(config)
        self.norm = nn.LayerNorm(config.decoder_width)
        self.head = WorkingLinear(config.decoder_width, config.target_width)

    def forward(self, x: Tensor, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(S, Q, D)`` to the tokens that the next level pools ``(S, Q, D)`` and the prediction ``(S, Q, Z)``.

        Tokens that are not ``known (S, Q)`` are attended to by none.
        """
        x, normed = self.blocks.with_stream(x, self.norm, known)
        return x, self.head(normed)


class PyramidDecoder(MaskTokenDecoder):
    """Visible and mask tokens, averaged over longer and longer windows with a stage after each.

    A level pools what the stage before it returned (choice).

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: GFPConfig) -> None:
        super().__init__(config)
        self.factors = [large // small for small, large in pairwise((1, *config.levels))]
        self.levels = nn.ModuleList(PyramidLevel(config) for _ in config.level_names)

    def forward(self, tokens: Tensor, keep: Tensor, seen: Tensor | None = None) -> list[Tensor]:
        """Predictions ``(S, Q, Z)`` of all levels from the visible tokens ``(S, K, D)`` listed by keep ``(S, K)``.

        Args:
            tokens: the encoded visible tokens.
            keep: which they are.
            seen: ``(S, V')`` bool, which of the joints that are present a sequence has; None = all.
        """
        x = self.fill(tokens, keep)
        joints = self.tokens // self.times
        *local, last = self.levels
        predictions, known = [], None
        for factor, level in zip(self.factors, local, strict=True):
            x = x.unflatten(1, (-1, factor, joints)).mean(2).flatten(1, 2)
            known = None if seen is None else over_times(seen, x.shape[1] // joints)
            x, prediction = level(x, known)
            predictions.append(prediction)
        whole = x.mean(1, keepdim=True) if known is None else mean_tokens(x, known)[:, None].to(x.dtype)
        predictions.append(last(whole)[1])
        return predictions


class TargetNetworks(nn.Module):
    """One MLP a level, from the unmasked motion of a target's window to the features to predict.

    Three linear layers (paper) with GELU between them (choice). The motion enters whole, all frames of the window side
    by side (choice): averaged, only the displacement between the window's ends would be left of it.

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: GFPConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("present", present_index(config), persistent=False)
        hidden = [*[config.target_hidden] * len(config.levels), config.global_hidden]
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(frames * joints * config.channels, inner),
                nn.GELU(),
                nn.Linear(inner, inner),
                nn.GELU(),
                nn.Linear(inner, config.target_width),
            )
            for (frames, joints), inner in zip(self._sizes(), hidden, strict=True)
        )

    present: Tensor | None

    def _sizes(self) -> list[tuple[int, int]]:
        """Frames and joints that a target of each level sees."""
        config = self.config
        local = [(span * config.patch_frames, 1) for span in config.levels]
        return [*local, (config.frames, config.joints)]

    def forward(self, clips: Tensor, valid: Tensor | None = None) -> tuple[list[Tensor], list[Tensor | None]]:
        """Targets of all levels from ``clips (S, T, V', C)`` of the joints that are present.

        Returns:
            Features ``(S, Q, Z)`` of each level, and which of them count ``(S, Q)`` bool, those of which any motion is
            known (choice); None for all.
        """
        features: list[Tensor] = []
        counted: list[Tensor | None] = []
        config = self.config
        for network, (frames, joints) in zip(self.networks, self._sizes(), strict=True):
            whole = joints > 1 and self.present is not None
            motion, known = ops.reconstruction_target(
                clips,
                target_frames=frames,
                target_joints=clips.shape[2] if whole else joints,
                valid=valid,
                target=config.target,
                stride=config.stride,
                normalize=config.normalize,
                eps=config.loss_eps,
            )
            if known is not None:
                motion = torch.where(known, motion, 0)
            if whole and self.present is not None:
                grid = motion.unflatten(2, (frames, -1, config.channels))
                motion = over_layout(grid, self.present, joints, 3).flatten(2)
            features.append(network(motion))
            counted.append(None if known is None else known.any(2))
        return features, counted


class GFPModel(SkeletonModel):
    """Predict learned features of the motion, from short windows to the whole clip, instead of coordinates.

    The features come from target networks that see the whole motion and train together with the encoder; a variance
    and a covariance loss keep them from collapsing to a constant. The details report every term of the loss, and spread
    and effective rank of the targets and of the encoder's features. The published FLOPs (linear layers only) are those
    of 8 encoder blocks over the 74 visible of 750 tokens, 251 targets, two decoder blocks a level.

    Args:
        layout: joints of the skeleton, by name or as a :class:`fastamr.SkeletonLayout`.
        frames: T, frames of a clip.
        options: any other field of :class:`GFPConfig`.
    """

    name = "gfp"
    Config = GFPConfig
    config: GFPConfig
    reports_terms = True

    def __init__(self, layout: str | SkeletonLayout = "ntu25", frames: int = 120, **options: Any) -> None:
        super().__init__(layout, frames, **options)
        config = self.config
        self.encoder = SkeletonEncoder(config)
        self.decoder = PyramidDecoder(config)
        self.targets = TargetNetworks(config)
        self.criterion = FeaturePredictionLoss(
            prediction=config.prediction_weight,
            covariance=config.covariance_weight,
            variance=config.variance_weight,
        )
        self.apply(initialize)

    def reconstruct(self, clips: Tensor, keep: Tensor, valid: Tensor | None) -> PretrainOutput:
        """Predict the targets of all levels ``(S, Q, Z)``; all of them enter the loss (choice)."""
        tokens = self.encoder(clips, keep)
        clips, valid = self.present_part(clips, valid)
        predictions = self.decoder(tokens, keep, self.joints_of_each(valid))
        features, counted = self.targets(clips, valid)
        loss, terms = self.criterion(predictions, features, counted, self.config.level_names)
        terms |= describe_features("encoder", mean_tokens(tokens.detach()))
        return PretrainOutput(loss, torch.cat(predictions, dim=1), keep, None, terms)

    def linear_rows(self, name: str) -> int:
        """Rows of a linear layer per sequence: visible tokens in the encoder, targets in the decoder's levels."""
        if name.startswith("encoder.") or name == "decoder.embed":
            return self.config.visible
        level = int(name.split(".")[2])
        return self.config.level_rows[level]
