"""Self- and cross-attention over the few visible tokens."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from .. import ops
from ..errors import check_name
from ..ops.common.backends import NAMES


class VisibleAttention(nn.Module):
    """Multi-head attention with packed projections, drop-in for the attention of a ViT block.

    Self-attention has the parameters ``qkv`` and ``proj``, cross-attention ``q``, ``kv`` and ``proj``; the names do not
    depend on the back end.

    Args:
        width: D.
        heads: H, divides D.
        cross: attend from a second input over the first one.
        backend: back end of :func:`fastamr.ops.visible_attention`; None or ``"auto"`` takes the user's choice.
    """

    def __init__(self, width: int, heads: int, *, cross: bool = False, backend: str | None = None) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads={heads} does not divide width={width}")
        if backend is not None:
            check_name("attention", backend, NAMES)
        self.heads, self.size = heads, width // heads
        self.backend = None if backend == "auto" else backend
        if cross:
            self.q = nn.Linear(width, width)
            self.kv = nn.Linear(width, 2 * width)
        else:
            self.qkv = nn.Linear(width, 3 * width)
        self.cross = cross
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor | None = None, *, known: Tensor | None = None) -> Tensor:
        """Attend from ``x (S, Q, D)`` over itself or, in cross-attention, over ``memory (S, K, D)``.

        In cross-attention ``x`` may be ``(1, Q, D)``, the same queries for every sequence: they are projected once.

        Only tokens that are ``known`` are attended to, ``(S, Q)``, in cross-attention ``(S, K)``, at least one a
        sequence; PyTorch's ``scaled_dot_product_attention`` then computes it, whatever back end is chosen.

        Raises:
            ValueError: cross-attention without a memory, or ``known`` beside a back end that knows no such mask.
        """
        if not self.cross:
            qkv = self.qkv(x).unflatten(-1, (3, self.heads, self.size))
            if known is not None:
                return self.proj(self._over_known(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], known))
            return self.proj(ops.visible_attention(qkv, backend=self.backend))
        if memory is None:
            raise ValueError("memory=None: cross-attention needs the visible tokens (S, K, D)")
        q = self.q(x).unflatten(-1, (self.heads, self.size)).expand(memory.shape[0], -1, -1, -1)
        kv = self.kv(memory).unflatten(-1, (2, self.heads, self.size))
        if known is not None:
            return self.proj(self._over_known(q, kv[:, :, 0], kv[:, :, 1], known))
        return self.proj(ops.visible_attention(q, kv, backend=self.backend))

    def _over_known(self, query: Tensor, key: Tensor, value: Tensor, known: Tensor) -> Tensor:
        if self.backend not in (None, "sdpa", "reference"):
            raise ValueError(
                f"attention={self.backend!r} cannot leave out tokens that a sequence lacks: use 'auto' or 'sdpa'"
            )
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=known[:, None, None, :]
        )
        return attended.transpose(1, 2).flatten(2)
