"""SLiM (Do et al. 2026, arXiv 2603.10648), masked modelling without a decoder.

Hidden tokens are predicted as features of a slow teacher.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from ..nn import describe_features, initialize
from ..nn.self_distillation.prototypes import (
    PrototypeHead,
    class_loss,
    koleo_loss,
    patch_loss,
    sinkhorn_targets,
)
from ..skeleton import SkeletonLayout
from .base import PretrainOutput, SkeletonModel, is_readable
from .parts.pooling import mean_tokens
from .parts.presence import known_or_there
from .parts.slim_config import SLiMConfig
from .parts.slim_encoder import RegisterEncoder, Teacher
from .parts.slim_views import ViewMaker, Views


class SLiMModel(SkeletonModel):
    """One encoder that learns from a slow copy of itself, which sees what is hidden from it; there is no decoder.

    A clip is seen whole, several times, with left and right exchanged in some views and with other bone lengths, and in
    short crops. The teacher sees the whole views, the student sees them with whole regions of the body hidden over many
    frames (mask tokens take their place), and the crops. Both compare their tokens with the same number of learned
    prototypes. Three losses: hidden tokens are compared with prototypes as the teacher does (iBOT), the class tokens of
    different views as the teacher's (DINO), and the student's class tokens keep away from their nearest neighbours
    (KoLeo). Sinkhorn-Knopp shares the teacher's comparisons out evenly, so that they cannot collapse to one prototype.

    The frozen features are those of the student (choice). The teacher moves at the beginning of each training pass that
    has gradients: after every update once, with ``accumulate`` in each micro-batch, for which
    ``teacher_momentum ** (1 / accumulate)`` gives the same teacher. Sinkhorn and KoLeo are statistics of the batch,
    with ``accumulate`` of each micro-batch.

    Args:
        layout: joints of the skeleton, by name or as a :class:`fastamr.SkeletonLayout`.
        frames: T, frames of a clip.
        options: any other field of :class:`SLiMConfig`.
    """

    name = "slim"
    Config = SLiMConfig
    config: SLiMConfig
    encoder: RegisterEncoder  # type: ignore[assignment]
    reports_terms = True
    # Sinkhorn's targets and KoLeo's neighbours are sought among the sequences that lie in one process.
    spreads = False
    pretraining_parts = ("teacher", "view_maker")

    def __init__(self, layout: str | SkeletonLayout = "ntu25", frames: int = 64, **options: object) -> None:
        super().__init__(layout, frames, **options)
        config = self.config
        self.encoder = RegisterEncoder(config)
        self.head = PrototypeHead(config.width, config.head_hidden, config.bottleneck, config.prototypes)
        self.view_maker = ViewMaker(config)
        self.apply(initialize)
        self.teacher = Teacher(encoder=self.encoder, head=self.head)

    def choose_visible(
        self,
        clips: Tensor,
        *,
        seed: Tensor | None = None,
        generator: torch.Generator | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Draw the views of prepared clips: ``(S, K)`` int32, see :class:`~fastamr.models.parts.slim_views.Draws`."""
        if seed is None:
            seed = ops.make_seed(generator, clips.device)
        clips, valid = self.present_part(clips, valid)
        return self.view_maker.draw(seed, clips.shape[0], valid, self.joints_of_each(valid))

    def reconstruct(self, clips: Tensor, keep: Tensor, valid: Tensor | None) -> PretrainOutput:
        """Compare student and teacher; nothing is reconstructed.

        The prediction is the student's features ``(S, G*Q, Z)`` of the hidden tokens that enter the loss.
        """
        config, sequences = self.config, clips.shape[0]
        if self.training and sequences < 2:
            raise ValueError(
                f"clips holds {sequences} sequences: SLiM compares them over a batch, which needs at least 2 (with "
                "accumulate, in each micro-batch)"
            )
        if self.training and torch.is_grad_enabled():
            self.teacher.follow(config.teacher_momentum, encoder=self.encoder, head=self.head)
        clips, valid = self.present_part(clips, valid)
        draws = self.view_maker.split(keep)
        views = self.view_maker(clips, valid, draws, self.joints_of_each(valid))
        targets = draws.targets.flatten(0, 1)
        counted = views.hidden.gather(1, targets)
        if views.known is not None:
            counted = counted & views.known.gather(1, targets)
        counted = counted.flatten()

        class_targets, patch_targets, taught = self._teach(views, targets, counted)
        first, tokens = self.encoder.with_class(
            views.whole, views.hidden, joints=self.present, known=views.there
        )
        seen = ~views.hidden if views.known is None else ~views.hidden & views.known
        classes = [self._summary(first, tokens, seen, views.there).unflatten(0, (sequences, -1))]
        if views.local is not None:
            crops = self.encoder.with_class(views.local, joints=self.present, known=views.there_local)
            summary = self._summary(*crops, views.known_local, views.there_local)
            classes.append(summary.unflatten(0, (sequences, -1)))
        shown = torch.cat(classes, dim=1)
        rows = torch.cat([shown.flatten(0, 1), _pick(tokens, targets)])
        features, scores = self.head(rows)
        class_scores, patch_scores = scores.split([sequences * config.views, len(counted)])

        temperature = config.student_temperature
        by_class = class_loss(
            class_scores.unflatten(0, (sequences, -1)),
            class_targets.unflatten(0, (sequences, -1)),
            temperature,
        )
        by_patch = patch_loss(patch_scores, patch_targets, temperature, counted)
        spread = torch.stack([koleo_loss(view) for view in classes[0].unbind(1)]).mean()
        loss = config.class_weight * by_class + config.patch_weight * by_patch + config.koleo_weight * spread
        terms = {"class": by_class.detach(), "patch": by_patch.detach(), "koleo": spread.detach()}
        terms |= describe_features("encoder", mean_tokens(tokens.detach(), views.there))
        terms |= describe_features("teacher", mean_tokens(taught, views.there))
        prediction = features[sequences * config.views :].unflatten(0, (sequences, -1))
        return PretrainOutput(loss, prediction, keep, None, terms)

    @torch.no_grad()
    def _teach(self, views: Views, targets: Tensor, counted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The teacher's targets of class tokens ``(S*G, P)`` and of hidden tokens ``(S*G*Q, P)``, and its tokens."""
        config = self.config
        first, tokens = self.teacher.encoder.with_class(  # type: ignore[union-attr, operator]
            views.whole, joints=self.present, known=views.there
        )
        first = self._summary(first, tokens, views.known, views.there)
        _, scores = self.teacher.head(torch.cat([first, _pick(tokens, targets)]))  # type: ignore[operator]
        by_class, by_patch = scores.split([len(first), len(counted)])
        temperature, rounds = config.teacher_temperature, config.sinkhorn_rounds
        return (
            sinkhorn_targets(by_class, temperature, rounds=rounds),
            sinkhorn_targets(by_patch, temperature, rounds=rounds, counted=counted),
            tokens,
        )

    def _summary(self, first: Tensor, tokens: Tensor, seen: Tensor | None, there: Tensor | None) -> Tensor:
        """What stands for a view ``(R, D)``: its class token, or the mean of its tokens ``(R, N, D)`` that are seen.

        Where none is seen, of those that are ``there (R, N)``.
        """
        if self.config.summary == "class":
            return first
        counted = None if seen is None else known_or_there(seen, there)
        return mean_tokens(tokens, counted).to(tokens.dtype)

    def _encode_part(self, clips: Tensor, joints: Tensor, known: Tensor | None = None) -> Tensor:
        part = clips.index_select(2, joints)
        return self.encoder.with_class(part, joints=joints, known=known)[1]

    def _check_keep(self, keep: Tensor, clips: Tensor) -> None:
        width = sum(torch.Size(size).numel() for size in self.view_maker.sizes)
        if tuple(keep.shape) != (clips.shape[0], width):
            raise ValueError(
                f"keep has shape {tuple(keep.shape)}, expected ({clips.shape[0]}, {width}): take it from choose_visible"
            )
        if not is_readable(keep):
            return
        draws = self.view_maker.split(keep)
        for name, part, (low, high) in zip(draws._fields, draws, self.view_maker.bounds, strict=True):
            if part.numel() and not low <= int(part.min()) <= int(part.max()) <= high:
                raise ValueError(
                    f"keep holds {name} {int(part.min())} to {int(part.max())}, expected {low} to {high}: take it from "
                    "choose_visible"
                )

    def set_recompute(self, recompute: bool = True) -> None:
        """Refuse: its blocks are plain ones, which keep their activations.

        Raises:
            ValueError: always, but for False.
        """
        if recompute:
            raise ValueError(
                "recompute=True is for fused blocks, and SLiM's are plain: leave it out, or lower the batch size"
            )

    def set_side_branch(self, side_branch: bool = True) -> None:
        """Refuse: its blocks are plain ones, whose gradients PyTorch computes.

        Raises:
            ValueError: always, but for False.
        """
        if side_branch:
            raise ValueError("side_branch=True is for fused blocks, and SLiM's are plain: leave it out")

    def linear_rows(self, name: str) -> int:
        """Rows of a linear layer per sequence, over all views; those of the teacher see whole views alone."""
        config = self.config
        teacher = name.startswith("teacher.")
        crops, whole = 0 if teacher else config.local_crops, config.global_views
        if "head." in name:
            return whole * (1 + config.loss_tokens) + crops
        extra = 0 if name.endswith("embed.proj") else 1 + config.registers
        return whole * (extra + config.present_tokens) + crops * (extra + config.crop_tokens)


def _pick(tokens: Tensor, targets: Tensor) -> Tensor:
    """The listed tokens ``(R*Q, D)`` of ``tokens (R, N, D)``, with ``targets (R, Q)``."""
    return tokens.gather(1, targets[..., None].expand(-1, -1, tokens.shape[-1])).flatten(0, 1)
