"""Guided reconstruction loss as a module."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .. import ops
from ..distributed import processes, share_of
from ..ops.weighted_reconstruction_loss import check_reconstruction, counted_values


class WeightedReconstructionLoss(nn.Module):
    """Weighted mean squared error between predicted patches and a target made from the raw clip.

    Where the batch lies in several processes (:func:`fastamr.distributed.spread_over`) their mean is that of the whole
    batch, also where one of them has more valid targets than another. (A token mask must then leave as many patches of
    every sequence, as those of the models do.)

    Args:
        target_frames: frames of a target patch.
        target_joints: joints of a target patch.
        target: ``"motion"`` or ``"joints"``.
        stride: frames between the two ends of a motion.
        normalize: ``"sequence"``, ``"patch"`` or ``"none"``.
        eps: added to the variance.

    Attributes:
        by_sequence: let :meth:`with_sequences` return the loss of each sequence.

    See :func:`fastamr.ops.weighted_reconstruction_loss` for shapes, sources and choices.
    """

    def __init__(
        self,
        target_frames: int,
        target_joints: int = 1,
        *,
        target: str = "motion",
        stride: int = 1,
        normalize: str = "sequence",
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        check_reconstruction(target, normalize, stride, eps)
        self.target_frames, self.target_joints = target_frames, target_joints
        self.target, self.stride, self.normalize, self.eps = target, stride, normalize, eps
        self.by_sequence = False

    def forward(
        self,
        prediction: Tensor,
        clips: Tensor,
        *,
        guidance: Tensor | None = None,
        token_mask: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Scalar loss of ``prediction (S, Q, P)`` against ``clips (S, T, V, C)``."""
        return self.with_sequences(prediction, clips, guidance=guidance, token_mask=token_mask, valid=valid)[
            0
        ]

    def with_sequences(
        self,
        prediction: Tensor,
        clips: Tensor,
        *,
        guidance: Tensor | None = None,
        token_mask: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the loss, and that of each sequence ``(S,)``, NaN where nothing of it counts; None unless asked for.

        The latter is the mean over a sequence's own values, without gradient.
        """
        counting: dict[str, Any] = {
            "target_frames": self.target_frames,
            "target_joints": self.target_joints,
            "token_mask": token_mask,
            "target": self.target,
            "stride": self.stride,
        }
        found = ops.weighted_reconstruction_loss(
            prediction,
            clips,
            guidance=guidance,
            valid=valid,
            normalize=self.normalize,
            eps=self.eps,
            return_sequences=self.by_sequence,
            **counting,
        )
        loss, sequences = found if isinstance(found, tuple) else (found, None)
        if processes() > 1 and valid is not None:
            loss = loss * share_of(counted_values(valid, **counting).sum())
        return loss, sequences

    def extra_repr(self) -> str:
        """Options shown by ``repr``."""
        return f"target_frames={self.target_frames}, target={self.target!r}, normalize={self.normalize!r}"
