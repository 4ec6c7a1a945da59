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
from ...ops.rows.checks import problem_of, row_problem
from ...ops.rows.linear_residual_norm import residual_norm_problem
from ...ops.rows.weight_gradient import weight_gradients_problem
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
    """A block. ``project`` is qkv, or in cross-attention q; there the keys and values belong to the stack.

    ``scales`` are drop path's factors of the rows ``(M,)`` of attention's and of the MLP's branch; None is 1.
    """

    norm1: Norm
    project: Linear
    out: Linear
    norm2: Norm
    fc1: Linear
    fc2: Linear
    scales: tuple[Tensor | None, Tensor | None] = (None, None)


class Stream(NamedTuple):
    """Rows between two halves of a block: the residual stream ``total``, its norm, the norm's statistics ``(M,)``."""

    total: Tensor
    normed: Tensor
    mean: Tensor
    rstd: Tensor


class StreamGradient(NamedTuple):
    """Gradients of a stream's ``total``, of the product that was added to it last, and ``(D,)`` of that one's bias.

    The first two are one tensor unless drop path scaled the product.
    """

    total: Tensor
    branch: Tensor
    bias: Tensor


class Tape(NamedTuple):
    """Attention recorded by autograd, for kernels of PyTorch whose backward cannot be called by itself."""

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
    for outputs in (3 * width, width):  # cross-attention projects the queries alone
        yield "row_linear", row_problem(rows, outputs, width)
    yield "row_norm", problem_of(rows, rows=count, width=width)
    yield "linear_gelu", row_problem(rows, hidden, width)
    for inputs in (width, hidden, 3 * width):
        yield "linear_residual_norm", residual_norm_problem(rows, inputs, width)
    for outputs, inputs in ((3 * width, width), (width, width), (hidden, width), (width, hidden)):
        sizes = {"rows": count, "outputs": outputs, "inputs": inputs}
        yield "weight_gradient", Problem(device, rows.dtype, sizes=sizes)
    if device == "cuda":  # elsewhere no back end takes a block's four weights at once
        for outputs in (3 * width, width):
            shapes = ((width, hidden), (hidden, width), (width, width), (outputs, width))
            yield "weight_gradient", weight_gradients_problem(rows, count, shapes)


def attend(
    plan: Plan, q: Tensor, kv: Tensor | None
) -> tuple[Tensor, Tensor | None, ops.SdpaState | Tape | None]:
    """Attention of ``qkv (S, K, 3, H, E)``, or of ``q (S, Q, H, E)`` over ``kv (S, K, 2, H, E)``.

    Returns:
        Rows ``(M, D)``; the log-sum-exp or, from PyTorch's attention, its state or tape; neither where nothing is
        saved.
    """
    if plan.attention in ops.ATTENTION_WITH_LSE:
        out, lse = ops.visible_attention_forward(q, kv, backend=plan.attention)
        return out.flatten(0, 1), lse, None
    if not plan.saves:
        return ops.visible_attention(q, kv, backend=plan.attention).flatten(0, 1), None, None
    if plan.attention == "sdpa":
        found = ops.sdpa_forward(q, kv, q.shape[-1] ** -0.5)
        if found is not None:
            return found[0].flatten(0, 1), None, found[1]
    with torch.enable_grad():
        inputs = tuple(each.detach().requires_grad_() for each in (q, kv) if each is not None)
        recorded = ops.visible_attention(*inputs, backend=plan.attention)
    return recorded.detach().flatten(0, 1), None, Tape(recorded, inputs)


def attend_backward(
    plan: Plan,
    grad: Tensor,
    out: Tensor,
    lse: Tensor | None,
    tape: ops.SdpaState | Tape | None,
    q: Tensor,
    kv: Tensor | None,
    dq: Tensor,
    dkv: Tensor | None,
    columns: ops.ColumnSums,
) -> list[Tensor]:
    """Write the gradients of q (or qkv) and kv into ``dq`` and ``dkv``, which may be slices of larger buffers.

    Returns:
        The sums over all rows of the gradients of qkv, or of q and of kv, flat: the gradients of the projections'
        biases, perhaps only after ``columns.finish()``.
    """
    shape = (plan.sequences, plan.tokens, grad.shape[-1])
    rows = grad.view(shape), out.view(shape)
    compute = torch.promote_types(torch.float32, grad.dtype)
    if lse is not None:
        sums = grad.new_empty((3, *q.shape[-2:]), dtype=compute)
        ops.visible_attention_backward_into(
            *(*rows, lse, q, kv), dq=dq, dkv=dkv, columns=sums, backend=plan.attention
        )
        return [sums.flatten()] if kv is None else [sums[0].flatten(), sums[1:].flatten()]
    if isinstance(tape, ops.SdpaState):
        return ops.sdpa_backward_into(*rows, tape, q, kv, dq=dq, dkv=dkv, columns=columns)
    assert tape is not None
    gradients = torch.autograd.grad(tape.out, tape.inputs, rows[0], retain_graph=True)
    for target, gradient in zip((dq, dkv), gradients, strict=False):
        assert target is not None
        target.copy_(gradient)
    return [gradient.flatten(0, 1).sum(0, dtype=compute).flatten() for gradient in gradients]


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
        *ops.linear_residual_norm(
            *(attended, *layer.out, residual, norm.gamma, norm.beta, norm.eps), scale=layer.scales[0]
        )
    )
    saves_hidden = plan.saves and not plan.recompute
    h, slope = ops.linear_gelu(middle.normed, *layer.fc1, slope=saves_hidden)
    norm = following
    after = Stream(
        *ops.linear_residual_norm(
            *(h, *layer.fc2, middle.total, norm.gamma, norm.beta, norm.eps), scale=layer.scales[1]
        )
    )
    return Hidden(middle, h if saves_hidden else None, slope), after


class Gradients(dict[str, Tensor | None]):
    """Gradients of one block's parameters by name, as in its ``state_dict``; only those of ``wanted`` are computed.

    Args:
        wanted: names of the parameters that need one.
        columns: adds up the column sums, those of biases and norms.
        together: those of the weights wait for :meth:`finish`, which computes all at once.
    """

    def __init__(self, wanted: set[str], columns: ops.ColumnSums, together: bool = False) -> None:
        super().__init__()
        self.wanted, self.columns, self._together = wanted, columns, together
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


def stream_backward(
    product: tuple[Tensor, Tensor],
    stream: Stream,
    norm: Norm,
    name: str,
    skip: Tensor | None,
    scale: Tensor | None,
    gradients: Gradients,
) -> StreamGradient:
    """Backward through the linear layer that took a stream's normed rows, the norm, and the addition before it.

    Args:
        product: gradient ``(M, F)`` of the linear layer's output, and its weight.
        stream: the rows.
        norm: the norm.
        name: of the norm.
        skip: ``(M, D)`` gradient that reaches ``stream.total`` past the norm.
        scale: drop path's factors ``(M,)`` of the product that was added to the stream.
        gradients: receives those of the norm.
    """
    dx, dgamma, dbeta, bias_grads, *scaled = ops.linear_residual_norm_backward(
        *(*product, stream.total, stream.mean, stream.rstd, norm.gamma, skip),
        scale=scale,
        columns=gradients.columns,
    )
    gradients.norm(name, dgamma, dbeta)
    return StreamGradient(dx, scaled[0] if scaled else dx, bias_grads)


def finish_backward(
    layer: Layer, attended: Tensor, hidden: Hidden, after: StreamGradient, gradients: Gradients
) -> StreamGradient:
    """Backward of :func:`finish_layer` up to the stream after attention.

    Args:
        layer: the block.
        attended: as in the forward.
        hidden: from the forward.
        after: gradient of the stream after the block, every path included.
        gradients: receives those of the parameters.

    Returns:
        The gradient of the stream after attention.
    """
    gradients["mlp.fc2.bias"] = after.bias
    middle, h, slope = hidden
    if h is None or slope is None:
        h, slope = ops.linear_gelu(middle.normed, *layer.fc1)
    assert slope is not None
    gradients.weight("mlp.fc2.weight", after.branch, h)
    del h
    du, gradients["mlp.fc1.bias"] = ops.linear_gelu_backward(
        after.branch, layer.fc2.weight, slope, columns=gradients.columns
    )
    del slope
    gradients.weight("mlp.fc1.weight", du, middle.normed)
    dmiddle = stream_backward(
        (du, layer.fc1.weight), middle, layer.norm2, "norm2", after.total, layer.scales[0], gradients
    )
    gradients["attn.proj.bias"] = dmiddle.bias
    gradients.weight("attn.proj.weight", dmiddle.branch, attended)
    return dmiddle
