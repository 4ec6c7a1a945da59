"""Self- and cross-attention over the few visible tokens."""

from __future__ import annotations

from torch import Tensor, nn

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

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """Attend from ``x (S, Q, D)`` over itself or, in cross-attention, over ``memory (S, K, D)``.

        In cross-attention ``x`` may be ``(1, Q, D)``, the same queries for every sequence: they are projected once.
        """
        if not self.cross:
            qkv = self.qkv(x).unflatten(-1, (3, self.heads, self.size))
            return self.proj(ops.visible_attention(qkv, backend=self.backend))
        if memory is None:
            raise ValueError("memory=None: cross-attention needs the visible tokens (S, K, D)")
        q = self.q(x).unflatten(-1, (self.heads, self.size)).expand(memory.shape[0], -1, -1, -1)
        kv = self.kv(memory).unflatten(-1, (2, self.heads, self.size))
        return self.proj(ops.visible_attention(q, kv, backend=self.backend))
