"""What one layer of a fused stack computes, forward and backward, on flat rows and without autograd.

:mod:`.functions` chains these pieces into one autograd function per stack. Rows are ``(M, D)`` with M = sequences
times tokens, in the activation dtype; sums and statistics are float32 (float64 for float64).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ... import ops
from ...ops.common.backends import Problem
from ...ops.rows.linear_residual_norm import residual_norm_problem
from .side_branch import SideBranch


class Norm(NamedTuple):
    """A layer norm: weight ``(D,)``, bias ``(D,)``, eps."""

    gamma: Tensor
    beta: Tensor
    eps: float


class Linear(NamedTuple):
    """A linear layer: weight ``(outputs, inputs)`` in the activation dtype, bias ``(outputs,)``."""

    weight: Tensor
    bias: Tensor


class Layer(NamedTuple):
    """A block. ``project`` is qkv, or in cross-attention q; there the keys and values belong to the stack."""

    norm1: Norm
    project: Linear
    out: Linear
    norm2: Norm
    fc1: Linear
    fc2: Linear


class Stream(NamedTuple):
    """Rows between two halves of a block: the residual stream ``total``, its norm, the norm's statistics ``(M,)``."""

    total: Tensor
    normed: Tensor
    mean: Tensor
    rstd: Tensor


class Tape(NamedTuple):
    """Attention recorded by autograd, for the back ends that give no log-sum-exp."""

    out: Tensor
    inputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Plan:
    """What is fixed for a call of a stack.

    Attributes:
        sequences: S.
        tokens: rows of a sequence in the stream.
        heads: H.
        attention: back end of the attention.
        recompute: the backward computes the hidden layer of each block again.
        saves: a backward may follow.
        side_branch: the backward computes the weights' gradients beside everything else, where the device can.
    """

    sequences: int
    tokens: int
    heads: int
    attention: str
    recompute: bool
    saves: bool
    side_branch: bool = False


def row_problems(rows: Tensor, hidden: int) -> Iterator[tuple[str, Problem]]:
    """The ops on flat rows that training a block runs, beside attention, each with the call that it makes.

    Args:
        rows: ``(M, D)``, or any tensor of this shape, dtype and device.
        hidden: inner width of the block's MLP.
    """
    device, (count, width) = rows.device.type, rows.shape
    for op in ("row_linear", "row_norm", "linear_gelu"):
        yield op, Problem(device, rows.dtype, sizes={"rows": count})
    yield "linear_residual_norm", residual_norm_problem(rows, width)
    for outputs, inputs in ((3 * width, width), (width, width), (hidden, width), (width, hidden)):
        sizes = {"rows": count, "outputs": outputs, "inputs": inputs}
        yield "weight_gradient", Problem(device, rows.dtype, sizes=sizes)


def attend(plan: Plan, q: Tensor, kv: Tensor | None) -> tuple[Tensor, Tensor | None, Tape | None]:
    """Attention of ``qkv (S, K, 3, H, E)``, or of ``q (S, Q, H, E)`` over ``kv (S, K, 2, H, E)``.

    Returns:
        Rows ``(M, D)``; the log-sum-exp or, from a back end without one, the tape; neither where nothing is saved.
    """
    if plan.attention in ops.ATTENTION_WITH_LSE:
        out, lse = ops.visible_attention_forward(q, kv, backend=plan.attention)
        return out.flatten(0, 1), lse, None
    if not plan.saves:
        return ops.visible_attention(q, kv, backend=plan.attention).flatten(0, 1), None, None
    with torch.enable_grad():
        inputs = tuple(each.detach().requires_grad_() for each in (q, kv) if each is not None)
        recorded = ops.visible_attention(*inputs, backend=plan.attention)
    return recorded.detach().flatten(0, 1), None, Tape(recorded, inputs)


def attend_backward(
    plan: Plan,
    grad: Tensor,
    out: Tensor,
    lse: Tensor | None,
    tape: Tape | None,
    q: Tensor,
    kv: Tensor | None,
    dq: Tensor,
    dkv: Tensor | None,
) -> Tensor:
    """Write the gradients of q (or qkv) and kv into ``dq`` and ``dkv``, which may be slices of larger buffers.

    Returns:
        ``(3, H, E)`` sums over all rows of the gradients of q, k and v: the gradients of the projections' biases.
    """
    shape = (plan.sequences, plan.tokens, grad.shape[-1])
    compute = torch.promote_types(torch.float32, grad.dtype)
    bias_grads = grad.new_empty((3, *q.shape[-2:]), dtype=compute)
    if lse is not None:
        ops.visible_attention_backward_into(
            grad.view(shape),
            out.view(shape),
            lse,
            q,
            kv,
            dq=dq,
            dkv=dkv,
            columns=bias_grads,
            backend=plan.attention,
        )
        return bias_grads
    assert tape is not None
    gradients = torch.autograd.grad(tape.out, tape.inputs, grad.view(shape), retain_graph=True)
    for target, gradient in zip((dq, dkv), gradients, strict=False):
        assert target is not None
        target.copy_(gradient)
    parts = [gradient.flatten(0, 1) for gradient in gradients]
    sums = [part.sum(0, dtype=compute).view(-1, *q.shape[-2:]) for part in parts]
    return torch.cat(sums, out=bias_grads)


class Hidden(NamedTuple):
    """What a block's MLP leaves for the backward: the stream before it, and the hidden layer with its slope if kept."""

    middle: Stream
    h: Tensor | None
    slope: Tensor | None


def finish_layer(
    layer: Layer, attended: Tensor, residual: Tensor, following: Norm, plan: Plan
) -> tuple[Hidden, Stream]:
    """From the attention's rows to the next block's normed rows: three products, nothing between them.

    Args:
        layer: the block.
        attended: ``(M, D)`` rows of the attention.
        residual: ``(M, D)``, the stream before the block.
        following: the norm of whatever comes next.
        plan: of the call.

    Returns:
        What the backward needs, and the stream after the block.
    """
    norm = layer.norm2
    middle = Stream(
        *ops.linear_residual_norm(attended, *layer.out, residual, norm.gamma, norm.beta, norm.eps)
    )
    saves_hidden = plan.saves and not plan.recompute
    h, slope = ops.linear_gelu(middle.normed, *layer.fc1, slope=saves_hidden)
    norm = following
    after = Stream(*ops.linear_residual_norm(h, *layer.fc2, middle.total, norm.gamma, norm.beta, norm.eps))
    return Hidden(middle, h if saves_hidden else None, slope), after


class Gradients(dict[str, Tensor | None]):
    """Gradients of one block's parameters by name, as in its ``state_dict``; only those of ``wanted`` are computed.

    Args:
        wanted: names of the parameters that need one.
        together: those of the weights wait for :meth:`finish`, which computes all at once.
    """

    def __init__(self, wanted: set[str], together: bool = False) -> None:
        super().__init__()
        self.wanted, self._together = wanted, together
        self._waiting: dict[str, tuple[Tensor, Tensor]] = {}

    def weight(self, name: str, upstream: Tensor, rows: Tensor) -> None:
        """Add the gradient of a linear layer's weight, at once or in :meth:`finish`."""
        if name not in self.wanted:
            return
        if self._together:
            self._waiting[name] = (upstream, rows)
        else:
            self[name] = ops.weight_gradient(upstream, rows)

    def finish(self, branch: SideBranch | None) -> None:
        """Compute what waits, on the branch if there is one; then its results may be read after a join."""
        if not self._waiting:
            return
        names, pairs = list(self._waiting), list(self._waiting.values())
        self._waiting.clear()
        if branch is None:
            found = ops.weight_gradients(pairs)
        else:
            found = branch.run(lambda: ops.weight_gradients(pairs), *itertools.chain(*pairs))
        self.update(zip(names, found, strict=True))

    def norm(self, name: str, dgamma: Tensor, dbeta: Tensor) -> None:
        """Add the gradients of a norm."""
        self[f"{name}.weight"], self[f"{name}.bias"] = dgamma, dbeta

    def ordered(self, names: Sequence[str]) -> list[Tensor | None]:
        """The gradients in this order, None for those that are not wanted."""
        return [self.get(name) if name in self.wanted else None for name in names]


def finish_backward(
    layer: Layer, attended: Tensor, hidden: Hidden, dafter: Tensor, gradients: Gradients
) -> Tensor:
    """Backward of :func:`finish_layer` up to the stream after attention.

    The gradient of ``mlp.fc2.bias`` is the sums of dafter's columns; whatever made dafter has computed them.

    Args:
        layer: the block.
        attended: as in the forward.
        hidden: from the forward.
        dafter: ``(M, D)`` gradient of the block's result, every path included.
        gradients: receives those of the parameters.

    Returns:
        ``(M, D)`` gradient of the stream after attention.
    """
    middle, h, slope = hidden
    if h is None or slope is None:
        h, slope = ops.linear_gelu(middle.normed, *layer.fc1)
    assert slope is not None
    gradients.weight("mlp.fc2.weight", dafter, h)
    del h
    du, gradients["mlp.fc1.bias"] = ops.linear_gelu_backward(dafter, layer.fc2.weight, slope)
    del slope
    gradients.weight("mlp.fc1.weight", du, middle.normed)
    dmiddle, dgamma, dbeta, bias_grads = ops.linear_residual_norm_backward(
        du, layer.fc1.weight, middle.total, middle.mean, middle.rstd, layer.norm2.gamma, dafter
    )
    gradients.norm("norm2", dgamma, dbeta)
    gradients["attn.proj.bias"] = bias_grads
    gradients.weight("attn.proj.weight", dmiddle, attended)
    return dmiddle
