"""Pre-norm transformer blocks: self-attention, and cross-attention without self-attention."""

from __future__ import annotations

from torch import Tensor, nn

from .drop_path import DropPath
from .visible_attention import VisibleAttention


class Mlp(nn.Module):
    """Two linear layers with GELU between them.

    Args:
        width: D.
        hidden: inner width.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to ``(..., D)``."""
        return self.fc2(self.act(self.fc1(x)))


class TransformerBlock(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))`` (ViT, MAE), with drop path off unless its rate is set.

    Args:
        width: D.
        heads: H.
        mlp_ratio: inner width of the MLP over D.
        backend: back end of the attention.
    """

    def __init__(self, width: int, heads: int, *, mlp_ratio: float = 4.0, backend: str | None = None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = VisibleAttention(width, heads, backend=backend)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, round(width * mlp_ratio))
        self.drop_path = DropPath()

    def forward(self, x: Tensor, scales: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """``(S, K, D)`` to ``(S, K, D)``.

        Args:
            x: tokens.
            scales: ``(2, S)`` float32, drop path's factors of the two branches; None draws them where it is active.
            known: ``(S, K)`` bool, the tokens that are attended to; None = all.
        """
        attention, mlp = (None, None) if scales is None else scales
        mask = {} if known is None else {"known": known}
        x = x + self.drop_path(self.attn(self.norm1(x), **mask), attention)
        return x + self.drop_path(self.mlp(self.norm2(x)), mlp)


class CrossAttentionBlock(nn.Module):
    """``q + attention(norm(q), memory)``, then ``q + mlp(norm(q))``; no self-attention among queries (AMR).

    The memory is not normalised per layer (choice).

    Args:
        width: D.
        heads: H.
        mlp_ratio: inner width of the MLP over D.
        backend: back end of the attention.
    """

    def __init__(self, width: int, heads: int, *, mlp_ratio: float = 4.0, backend: str | None = None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = VisibleAttention(width, heads, cross=True, backend=backend)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, round(width * mlp_ratio))

    def forward(self, queries: Tensor, memory: Tensor, known: Tensor | None = None) -> Tensor:
        """``queries (S or 1, Q, D)`` over ``memory (S, K, D)``, where it is ``known (S, K)``, to ``(S, Q, D)``."""
        mask = {} if known is None else {"known": known}
        queries = queries + self.attn(self.norm1(queries), memory, **mask)
        return queries + self.mlp(self.norm2(queries))
