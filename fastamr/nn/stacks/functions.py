"""One autograd function for a whole stack of blocks: no pass over the activations that is elementwise alone.

Each norm is taken where its rows are produced, GELU leaves its slope for the backward, the backward's column sums (the
gradients of biases and norms) come from the passes that make the columns, and all gradients are written where they are
needed. In cross-attention the keys and values of all layers are one product, whose gradients are laid side by side, and
queries that all sequences share pass the first layer's norm and projection once.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import ops
from .layers import (
    Gradients,
    Hidden,
    Layer,
    Linear,
    Norm,
    Plan,
    Stream,
    StreamGradient,
    Tape,
    attend,
    attend_backward,
    finish_backward,
    finish_layer,
    stream_backward,
)
from .side_branch import SideBranch, side_branch


class StackWeights(NamedTuple):
    """What a stack computes with: its layers, the norm after the last one and, in cross-attention, ``kv``.

    ``kv.weight`` is ``(L*2*D, D)``, the layers' weights one below the other; ``kv_parts`` are those, whose memory it
    may share.
    """

    layers: list[Layer]
    final: Norm
    kv: Linear | None = None
    kv_parts: tuple[Tensor, ...] = ()


class LayerTensors(NamedTuple):
    """What the backward of one layer reads: attention's inputs, output and log-sum-exp, state or tape, and the rest."""

    before: Stream
    q: Tensor
    kv: Tensor | None
    attended: Tensor
    lse: Tensor | None
    tape: ops.SdpaState | Tape | None
    hidden: Hidden


def _after(weights: StackWeights, index: int) -> Norm:
    """The norm that follows a layer."""
    return weights.layers[index + 1].norm1 if index + 1 < len(weights.layers) else weights.final


def self_layers(plan: Plan, weights: StackWeights, x: Tensor) -> tuple[Stream, list[LayerTensors]]:
    """All self-attention blocks of ``x (M, D)``: the last stream, and with ``plan.saves`` what the backward needs."""
    stream = Stream(x, *ops.row_norm(x, *weights.layers[0].norm1))
    kept: list[LayerTensors] = []
    for index, layer in enumerate(weights.layers):
        qkv = ops.row_linear(stream.normed, *layer.project).view(
            plan.sequences, plan.tokens, 3, plan.heads, -1
        )
        attended, lse, tape = attend(plan, qkv, None)
        hidden, after = finish_layer(layer, attended, stream.total, _after(weights, index), plan)
        if plan.saves:
            kept.append(LayerTensors(stream, qkv, None, attended, lse, tape, hidden))
        stream = after
    return stream, kept


def cross_layers(
    plan: Plan, weights: StackWeights, x: Tensor, memory: Tensor
) -> tuple[Stream, list[LayerTensors]]:
    """All cross-attention blocks.

    Args:
        plan: of the call.
        weights: of the stack.
        x: query rows ``(S*Q, D)``, or ``(Q, D)`` for queries that all sequences share.
        memory: rows ``(S*K, D)``.
    """
    sequences, queries, width = plan.sequences, plan.tokens, x.shape[1]
    assert weights.kv is not None
    kv = ops.row_linear(memory, *weights.kv).view(
        sequences, -1, len(weights.layers), 2, plan.heads, width // plan.heads
    )
    stream = Stream(x, *ops.row_norm(x, *weights.layers[0].norm1))
    kept: list[LayerTensors] = []
    for index, layer in enumerate(weights.layers):
        q = ops.row_linear(stream.normed, *layer.project).view(-1, queries, plan.heads, width // plan.heads)
        q = q.expand(sequences, -1, -1, -1)
        attended, lse, tape = attend(plan, q, kv[:, :, index])
        residual = stream.total.view(-1, queries, width).expand(sequences, -1, -1).reshape(-1, width)
        hidden, after = finish_layer(layer, attended, residual, _after(weights, index), plan)
        if plan.saves:
            kept.append(LayerTensors(stream, q, kv[:, :, index], attended, lse, tape, hidden))
        stream = after
    return stream, kept


def _save(
    ctx: Any, plan: Plan, weights: StackWeights, last: Stream, kept: list[LayerTensors], memory: Tensor | None
) -> None:
    """Hand all tensors to autograd, the weights too: it notices if one is changed before the backward."""
    ctx.set_materialize_grads(False)
    ctx.plan, ctx.weights, ctx.tapes = plan, weights, [each.tape for each in kept]
    flat: list[Tensor | None] = []
    for each in kept:
        middle, h, slope = each.hidden
        flat += [*each.before, each.q, each.kv, each.attended, each.lse, *middle, h, slope]
    flat += [*last, memory]
    for layer in weights.layers:
        flat += [part.weight for part in (layer.project, layer.out, layer.fc1, layer.fc2)]
    flat += weights.kv_parts
    ctx.save_for_backward(*flat)


def _load(ctx: Any) -> tuple[Stream, list[LayerTensors], Tensor]:
    """Inverse of :func:`_save`: the last stream, the layers' tensors and the memory."""
    rest = iter(ctx.saved_tensors)

    def take(count: int) -> list[Any]:
        return list(itertools.islice(rest, count))

    kept = []
    for tape in ctx.tapes:
        before, (q, kv, attended, lse) = Stream(*take(4)), take(4)
        middle, (h, slope) = Stream(*take(4)), take(2)
        kept.append(LayerTensors(before, q, kv, attended, lse, tape, Hidden(middle, h, slope)))
    return Stream(*take(4)), kept, take(1)[0]


def _start_backward(
    weights: StackWeights, last: Stream, dtotal: Tensor | None, dnormed: Tensor | None, gradients: Gradients
) -> StreamGradient:
    """Gradient of the last stream."""
    skip = None if dtotal is None else dtotal.reshape(last.total.shape).contiguous()
    if dnormed is None:
        assert skip is not None
        dx, bias_grads = skip, None
    else:
        upstream = dnormed.reshape(last.total.shape).contiguous()
        dx, dgamma, dbeta, bias_grads = ops.row_norm_backward(
            upstream, last.total, last.mean, last.rstd, weights.final.gamma, skip, columns=gradients.columns
        )
        gradients.norm("final", dgamma, dbeta)
    scale, compute = weights.layers[-1].scales[1], torch.promote_types(torch.float32, dx.dtype)
    if scale is not None:
        branch = dx * scale[:, None]
        return StreamGradient(dx, branch.to(dx.dtype), branch.sum(0))
    return StreamGradient(dx, dx, dx.sum(0, dtype=compute) if bias_grads is None else bias_grads)


def _begin_backward(
    weights: StackWeights, index: int, before: Stream, dproject: Tensor, skip: Tensor, gradients: Gradients
) -> StreamGradient:
    """Gradient of a block's input from that of its first projection."""
    layer, scale = weights.layers[index], weights.layers[index - 1].scales[1] if index else None
    return stream_backward(
        (dproject, layer.project.weight), before, layer.norm1, "norm1", skip, scale, gradients
    )


def _check_first_derivative() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the fused stack of blocks has no second derivative: use "
            "fastamr.backend(transformer_stack='reference', visible_attention='materialised') for it"
        )


def _beside(backward: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Give a backward ``ctx.branch`` for the weights' gradients, which is joined however the backward ends."""

    @functools.wraps(backward)
    def with_branch(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
        device = next((each.device for each in upstream if each is not None), torch.device("cpu"))
        with side_branch(ctx.plan.side_branch, device) as ctx.branch:
            return backward(ctx, *upstream)

    return with_branch


def _join(branch: SideBranch | None) -> None:
    """Before anything reads the weights' gradients."""
    if branch is not None:
        branch.join()


def _split(ctx: Any, names: list[str], needs: tuple[bool, ...]) -> tuple[list[Gradients], Gradients]:
    """Gradients to fill for each block, and for the final norm, from what autograd asks for."""
    count, depth, layer = len(names), len(ctx.tapes), ctx.weights.layers[0]
    weights = [part.weight for part in (layer.fc2, layer.fc1, layer.out, layer.project)]
    shapes = [(weight.shape[0], weight.shape[1]) for weight in weights]
    rows = ctx.plan.sequences * ctx.plan.tokens
    together = ctx.branch is not None or ops.groups_weight_gradients(weights[0], shapes, rows=rows)
    blocks = [
        {name for name, need in zip(names, needs[i * count : (i + 1) * count], strict=True) if need}
        for i in range(depth)
    ]
    final = {
        name
        for name, need in zip(("final.weight", "final.bias"), needs[depth * count :], strict=True)
        if need
    }
    # A block has two norms, and one follows the last.
    columns = ops.ColumnSums(2 * depth + 1)
    return [Gradients(wanted, columns, together) for wanted in blocks], Gradients(final, columns)


def _collect(
    parameters: tuple[tuple[torch.dtype, ...], list[str]], blocks: list[Gradients], final: Gradients
) -> list[Tensor | None]:
    """All parameters' gradients in autograd's order and in the parameters' dtypes."""
    dtypes, names = parameters
    final.columns.finish()
    flat = [gradient for block in blocks for gradient in block.ordered(names)]
    flat += final.ordered(["final.weight", "final.bias"])
    return [
        None if gradient is None else gradient.to(dtype) for gradient, dtype in zip(flat, dtypes, strict=True)
    ]


_COMMON = [
    "attn.proj.weight",
    "attn.proj.bias",
    "norm2.weight",
    "norm2.bias",
    "mlp.fc1.weight",
    "mlp.fc1.bias",
    "mlp.fc2.weight",
    "mlp.fc2.bias",
]
# Parameters of a block in the order in which they follow the inputs; the final norm's weight and bias come last.
SELF_NAMES = ["norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias", *_COMMON]
CROSS_NAMES = [
    *("norm1.weight", "norm1.bias", "attn.q.weight", "attn.q.bias", "attn.kv.weight", "attn.kv.bias"),
    *_COMMON,
]


class SelfStack(torch.autograd.Function):
    """Self-attention blocks: ``apply(plan, weights, x (M, D), *parameters)`` to last stream and normed rows."""

    @staticmethod
    def forward(
        ctx: Any, plan: Plan, weights: StackWeights, x: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run the blocks; the parameters are only what autograd ties the gradients to."""
        last, kept = self_layers(plan, weights, x)
        ctx.dtypes = tuple(parameter.dtype for parameter in parameters)
        _save(ctx, plan, weights, last, kept, None)
        return last.total, last.normed

    @staticmethod
    @_beside
    def backward(ctx: Any, dtotal: Tensor | None, dnormed: Tensor | None) -> tuple[Any, ...]:
        """Gradients of x and of the parameters, last block first."""
        _check_first_derivative()
        plan, weights, depth = ctx.plan, ctx.weights, len(ctx.tapes)
        blocks, final = _split(ctx, SELF_NAMES, ctx.needs_input_grad[3:])
        if dtotal is None and dnormed is None:
            return (None,) * (3 + len(ctx.dtypes))
        last, kept, _ = _load(ctx)
        upstream = _start_backward(weights, last, dtotal, dnormed, final)
        for index in reversed(range(depth)):
            layer, saved, gradients = weights.layers[index], kept.pop(), blocks[index]
            dmiddle = finish_backward(layer, saved.attended, saved.hidden, upstream, gradients)
            grad = ops.row_linear_backward(dmiddle.branch, layer.out.weight)
            dqkv = torch.empty_like(saved.q)
            (gradients["attn.qkv.bias"],) = attend_backward(
                *(plan, grad, saved.attended, saved.lse, saved.tape, saved.q, None, dqkv, None),
                gradients.columns,
            )
            rows = dqkv.view(len(grad), -1)
            gradients.weight("attn.qkv.weight", rows, saved.before.normed)
            gradients.finish(ctx.branch)
            upstream = _begin_backward(weights, index, saved.before, rows, dmiddle.total, gradients)
        _join(ctx.branch)
        gradient = upstream.total if ctx.needs_input_grad[2] else None
        return (None, None, gradient, *_collect((ctx.dtypes, SELF_NAMES), blocks, final))


class CrossStack(torch.autograd.Function):
    """Cross-attention blocks: ``apply(plan, weights, x, memory, *parameters)``, see :func:`cross_layers`."""

    @staticmethod
    def forward(
        ctx: Any, plan: Plan, weights: StackWeights, x: Tensor, memory: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run the blocks; the parameters are only what autograd ties the gradients to."""
        last, kept = cross_layers(plan, weights, x, memory)
        ctx.dtypes = tuple(parameter.dtype for parameter in parameters)
        _save(ctx, plan, weights, last, kept, memory)
        return last.total, last.normed

    @staticmethod
    @_beside
    def backward(ctx: Any, dtotal: Tensor | None, dnormed: Tensor | None) -> tuple[Any, ...]:
        """Gradients of x, of the memory and of the parameters, last block first."""
        _check_first_derivative()
        plan, weights, depth = ctx.plan, ctx.weights, len(ctx.tapes)
        blocks, final = _split(ctx, CROSS_NAMES, ctx.needs_input_grad[4:])
        if dtotal is None and dnormed is None:
            return (None,) * (4 + len(ctx.dtypes))
        last, kept, memory = _load(ctx)
        upstream = _start_backward(weights, last, dtotal, dnormed, final)
        shape = kept[0].kv.shape  # type: ignore[union-attr]
        dkv = last.total.new_empty((*shape[:2], depth, *shape[2:]))
        for index in reversed(range(depth)):
            layer, saved, gradients = weights.layers[index], kept.pop(), blocks[index]
            dmiddle = finish_backward(layer, saved.attended, saved.hidden, upstream, gradients)
            grad = ops.row_linear_backward(dmiddle.branch, layer.out.weight)
            dq = grad.new_empty(saved.q.shape)
            gradients["attn.q.bias"], gradients["attn.kv.bias"] = attend_backward(
                *(plan, grad, saved.attended, saved.lse, saved.tape, saved.q, saved.kv, dq, dkv[:, :, index]),
                gradients.columns,
            )
            rows, skip = (_as_in(each, saved.before, plan) for each in (dq, dmiddle.total))
            gradients.weight("attn.q.weight", rows, saved.before.normed)
            gradients.finish(ctx.branch)
            upstream = _begin_backward(weights, index, saved.before, rows, skip, gradients)
        dmemory = _memory_backward(
            weights, dkv.view(len(memory), -1), memory, blocks, ctx.needs_input_grad[3], ctx.branch
        )
        _join(ctx.branch)
        gradient = upstream.total if ctx.needs_input_grad[2] else None
        return (None, None, gradient, dmemory, *_collect((ctx.dtypes, CROSS_NAMES), blocks, final))


def _as_in(gradient: Tensor, before: Stream, plan: Plan) -> Tensor:
    """The gradient as rows of a stream: where all sequences share the rows, its sum over the sequences."""
    rows, width = before.total.shape
    if rows == plan.sequences * plan.tokens:
        return gradient.view(rows, width)
    compute = torch.promote_types(torch.float32, gradient.dtype)
    return gradient.view(plan.sequences, rows, width).sum(0, dtype=compute).to(gradient.dtype)


def _memory_backward(
    weights: StackWeights,
    dkv: Tensor,
    memory: Tensor,
    blocks: list[Gradients],
    wants_memory: bool,
    branch: SideBranch | None,
) -> Tensor | None:
    """Gradient of the memory, one product, and of all layers' key and value weights, another."""
    assert weights.kv is not None
    name = "attn.kv.weight"
    if any(name in block.wanted for block in blocks):
        if branch is None:
            whole = ops.weight_gradient(dkv, memory)
        else:
            whole = branch.run(lambda: ops.weight_gradient(dkv, memory), dkv, memory)
        for block, part in zip(blocks, whole.chunk(len(blocks)), strict=True):
            block[name] = part
    return ops.row_linear_backward(dkv, weights.kv.weight) if wants_memory else None
