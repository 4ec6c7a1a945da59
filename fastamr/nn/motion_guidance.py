"""Adaptive guidance from motion information entropy."""

from __future__ import annotations

from torch import Tensor, nn

from .. import ops
from ..ops.motion_guidance import check_guidance


class MotionEntropyGuidance(nn.Module):
    """Weights ``(S, T, V)`` in [0, 1] that make the reconstruction loss look where the motion is (AMR).

    Args:
        windows: window lengths in frames.
        k: strength.
        eps: squared coordinate unit (choice: 1e-8 m^2).
        kind: ``"entropy"``, ``"energy"`` or ``"histogram"``; see :func:`fastamr.ops.motion_guidance`.
        bins: bins of the histogram form.
    """

    def __init__(
        self,
        windows: tuple[int, ...] = (4, 8, 12),
        k: float = 0.01,
        *,
        eps: float = 1e-8,
        kind: str = "entropy",
        bins: int = 8,
    ) -> None:
        super().__init__()
        check_guidance(tuple(windows), k, eps, kind, bins)
        self.windows, self.k, self.eps, self.kind, self.bins = tuple(windows), k, eps, kind, bins

    def forward(self, clips: Tensor, valid: Tensor | None = None) -> Tensor:
        """Guidance map of ``clips (S, T, V, C)``; where ``valid (S, T, V)`` is false it is 0."""
        return ops.motion_guidance(
            clips,
            windows=self.windows,
            k=self.k,
            eps=self.eps,
            kind=self.kind,
            bins=self.bins,
            valid=valid,
        )

    def extra_repr(self) -> str:
        """Options shown by ``repr``."""
        return f"windows={self.windows}, k={self.k}, kind={self.kind!r}"
