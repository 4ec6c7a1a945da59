"""Let two encoders' features of the same tokens learn from each other."""

from __future__ import annotations

from torch import Tensor, nn

from .transformer_block import CrossAttentionBlock


class FeatureAlignment(nn.Module):
    """Bidirectional cross-attention: each side attends over the other, both at once.

    The blocks are residual and start as the identity once :meth:`start_as_identity` was called.

    Args:
        width: D.
        heads: H, divides D.
        depth: blocks in each direction; 0 leaves the features as they are.
        mlp_ratio: inner width of the MLP over D.
        backend: back end of the attention.
    """

    def __init__(
        self, width: int, heads: int, *, depth: int = 1, mlp_ratio: float = 4.0, backend: str | None = None
    ) -> None:
        super().__init__()
        self.first, self.second = (
            nn.ModuleList(
                CrossAttentionBlock(width, heads, mlp_ratio=mlp_ratio, backend=backend) for _ in range(depth)
            )
            for _ in range(2)
        )

    def start_as_identity(self) -> None:
        """Set the last layer of every residual branch to zero, so that the features pass unchanged."""
        for block in (*self.first, *self.second):
            for layer in (block.attn.proj, block.mlp.fc2):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, first: Tensor, second: Tensor, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Two ``(S, N, D)`` to two ``(S, N, D)``; tokens that are not ``known (S, N)`` are attended to by none."""
        for left, right in zip(self.first, self.second, strict=True):
            first, second = left(first, second, known), right(second, first, known)
        return first, second
