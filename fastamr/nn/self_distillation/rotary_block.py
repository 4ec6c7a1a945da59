"""A pre-norm transformer block with SwiGLU, whose queries and keys turn with a token's time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import ops
from ..drop_path import DropPath
from ..visible_attention import VisibleAttention


def rotation_table(times: int, size: int, *, base: float = 100.0) -> Tensor:
    """Cosines and sines of RoPE (Su et al. 2021, arXiv 2104.09864) for the times ``0 .. times-1``.

    Args:
        times: number of times.
        size: E, features of a head, even.
        base: of the frequencies ``base ** (-i / (E/2))`` (choice: 100, as DINOv3, for few positions).

    Returns:
        ``(2, times, E/2)`` float32.

    Raises:
        ValueError: an odd size.
    """
    if size % 2:
        raise ValueError(f"heads have {size} features, expected an even number: change width or heads")
    powers = torch.arange(size // 2, dtype=torch.float64) / (size // 2)
    angles = torch.arange(times, dtype=torch.float64)[:, None] * base**-powers
    return torch.stack([angles.cos(), angles.sin()]).float()


def rotate(values: Tensor, rotation: Tensor) -> Tensor:
    """Turn the feature pairs ``(i, i + E/2)`` of every token by its angles.

    Args:
        values: ``(S, K, ..., E)``.
        rotation: ``(2, K, E/2)`` from :func:`rotation_table`, one row a token.

    Returns:
        As ``values``; computed in float32 at least, and rounded once.
    """
    middle = [1] * (values.ndim - 3)
    cos, sin = rotation.view(2, 1, rotation.shape[1], *middle, rotation.shape[2])
    first, second = values.to(torch.promote_types(values.dtype, rotation.dtype)).chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(values.dtype)


class RotaryAttention(VisibleAttention):
    """Self-attention of :class:`fastamr.nn.VisibleAttention` with RoPE; the same parameters ``qkv`` and ``proj``.

    Args:
        width: D.
        heads: H, divides D.
        backend: back end of :func:`fastamr.ops.visible_attention`; None or ``"auto"`` takes the user's choice.
    """

    def __init__(self, width: int, heads: int, *, backend: str | None = None) -> None:
        super().__init__(width, heads, backend=backend)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        known: Tensor | None = None,
        rotation: Tensor | None = None,
    ) -> Tensor:
        """Attend over ``x (S, K, D)`` with the tokens' ``rotation (2, K, E/2)``; None turns nothing.

        Only tokens that are ``known (S, K)`` are attended to, see :class:`fastamr.nn.VisibleAttention`.
        """
        if memory is not None:
            raise ValueError("memory is given, but rotary attention is over its own tokens: pass None")
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, self.size))
        if rotation is not None:
            qkv = torch.cat([rotate(qkv[:, :, :2], rotation), qkv[:, :, 2:]], dim=2)
        if known is not None:
            return self.proj(self._over_known(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], known))
        return self.proj(ops.visible_attention(qkv, backend=self.backend))


class SwiGLU(nn.Module):
    """``fc2(silu(gate) * value)`` with gate and value from one layer (Shazeer 2020, arXiv 2002.05202).

    Args:
        width: D.
        hidden: inner width.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to ``(..., D)``."""
        gate, value = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(functional.silu(gate) * value)


def swiglu_hidden(width: int, mlp_ratio: float) -> int:
    """Inner width of a SwiGLU with about the weights of a plain MLP: two thirds, up to a multiple of 8 (DINOv2)."""
    return -(-int(width * mlp_ratio * 2 / 3) // 8) * 8


class RotaryBlock(nn.Module):
    """``x + attention(norm(x))``, then ``x + swiglu(norm(x))``, with drop path off unless its rate is set.

    Args:
        width: D.
        heads: H.
        mlp_ratio: inner width over D of the plain MLP that the SwiGLU replaces, see :func:`swiglu_hidden`.
        backend: back end of the attention.
    """

    def __init__(self, width: int, heads: int, *, mlp_ratio: float = 4.0, backend: str | None = None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = RotaryAttention(width, heads, backend=backend)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = SwiGLU(width, swiglu_hidden(width, mlp_ratio))
        self.drop_path = DropPath()

    def forward(self, x: Tensor, rotation: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """``(S, K, D)`` to ``(S, K, D)``, with the tokens' ``rotation (2, K, E/2)``.

        Tokens that are not ``known (S, K)`` are attended to by none; None = all are.
        """
        x = x + self.drop_path(self.attn(self.norm1(x), rotation=rotation, known=known))
        return x + self.drop_path(self.mlp(self.norm2(x)))
