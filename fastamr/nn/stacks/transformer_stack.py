"""Stacks of transformer blocks, computed as one fused function where that is possible, else block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ... import ops
from ...errors import check_name
from ...ops.common.backends import Choice, Problem, explain
from ...ops.common.stack_backends import explain_stack
from ..drop_path import DropPath, draw_seed
from ..transformer_block import CrossAttentionBlock, Mlp, TransformerBlock
from ..visible_attention import VisibleAttention
from .functions import CROSS_NAMES, SELF_NAMES, CrossStack, SelfStack, StackWeights, cross_layers, self_layers
from .layers import Layer, Linear, Norm, Plan, row_problems
from .path import HOOKS, call_why_not, compute_dtype, is_plain
from .working_weights import joined_weights, working_weight

BACKENDS = ("auto", "fused", "reference")

# What the fused stack replaces; a subclass or a parametrised module may compute something else.
_EXACT = (
    TransformerBlock,
    CrossAttentionBlock,
    VisibleAttention,
    Mlp,
    DropPath,
    nn.Linear,
    nn.LayerNorm,
    nn.GELU,
)
_WITH_WEIGHTS = (nn.Linear, nn.LayerNorm)
_MASKED = "sequences lack some of the tokens, which only block-by-block computation masks"


def _module_why_not(module: nn.Module) -> str | None:
    """What keeps a module from being computed by other means than its own forward."""
    if type(module) not in _EXACT:
        return f"a block holds a {type(module).__name__}, which the fused stack does not know"
    state = module.__dict__  # every step asks every module, and a module's own attribute access is slow
    if any(state[hooks] for hooks in HOOKS):
        kind = type(module).__name__
        return f"a hook sits on a {kind} inside, which only block-by-block computation calls: remove it"
    if isinstance(module, nn.GELU) and module.approximate != "none":
        return "GELU is approximate: use nn.GELU()"
    own = state["_parameters"]
    if type(module) in _WITH_WEIGHTS and (own["weight"] is None or own["bias"] is None):
        return f"a {type(module).__name__} has no weight or no bias: give it both"
    return None


def _parts(block: nn.Module) -> list[nn.Module]:
    """A block and all modules inside, which lie at most two levels deep in the blocks known here."""
    inside = list(block._modules.values())
    leaves = [leaf for module in inside if module is not None for leaf in module._modules.values()]
    return [module for module in (block, *inside, *leaves) if module is not None]


def _parameter(block: nn.Module, path: list[str]) -> nn.Parameter:
    """``block.get_parameter``, in a tenth of the time."""
    module: Any = block
    for name in path[:-1]:
        module = module._modules[name]
    return module._parameters[path[-1]]


def _norm(module: nn.LayerNorm) -> Norm:
    return Norm(module.weight.detach(), module.bias.detach(), module.eps)


def _linear(module: nn.Linear, dtype: torch.dtype) -> Linear:
    return Linear(working_weight(module.weight, dtype), module.bias.detach())


def _projection(module: nn.Linear, dtype: torch.dtype) -> Linear:
    """A layer for ``row_linear``, which takes the bias in the activations' dtype."""
    return Linear(working_weight(module.weight, dtype), working_weight(module.bias, dtype))


class _Stack(nn.ModuleList):
    """What both stacks share. A ``ModuleList``: parameters are named ``N.norm1.weight`` and so on.

    Attributes:
        backend: ``"auto"``, ``"fused"`` or ``"reference"`` (block by block).
        recompute: the fused backward computes each block's hidden layer again instead of keeping it: about half the
            memory for about a tenth more arithmetic. Gradients stay the same to the bit.
        side_branch: on a GPU the fused backward computes the weights' gradients on a second stream, a branch of their
            own in a CUDA graph. Gradients stay the same to the bit; the inputs of a block's wait until the next.
    """

    block: type[nn.Module]
    names: list[str]

    def __init__(self, blocks: Iterable[nn.Module] = (), *, backend: str | None = None) -> None:
        super().__init__(blocks)
        if backend is not None:
            check_name("blocks", backend, BACKENDS)
        self.backend = backend or "auto"
        self.recompute = False
        self.side_branch = False
        self._paths = [name.split(".") for name in self.names]

    def _each(self) -> list[Any]:
        """The blocks, for readers of their parts."""
        return list(self)

    def _attention(self, x: Tensor, memory: Tensor, dtype: torch.dtype) -> str:
        """Back end of the blocks' attention."""
        first = self._each()[0].attn
        return ops.attention_backend(
            x.device.type,
            dtype,
            sequences=memory.shape[0],
            queries=x.shape[1],
            keys=memory.shape[1],
            heads=first.heads,
            size=first.size,
            backend=first.backend,
        )

    def _reasons(
        self, inputs: tuple[Tensor, ...], norm: nn.LayerNorm, dtype: torch.dtype
    ) -> Iterator[str | None]:
        """Reasons against the fused stack, the cheap ones first; None for each check that finds nothing."""
        yield "the stack has no blocks" if len(self) == 0 else None
        yield call_why_not(inputs)
        for block in self:
            yield None if type(block) is self.block else f"a {type(block).__name__} is among the blocks"
            for module in _parts(block):
                yield _module_why_not(module)
        yield _module_why_not(norm)
        yield self._unlike()
        yield self._parameters_why_not(norm, inputs[0], dtype)
        if self._attention(inputs[0], inputs[-1], dtype) == "materialised":
            yield "materialised attention belongs to plain blocks: set attention to 'auto'"

    def _unlike(self) -> str | None:
        """Whether the blocks could not be one stack: their rows and heads must be alike."""
        kinds = set()
        for block in self._each():
            attention = block.attn
            kinds.add((attention.heads, attention.size, attention.backend, block.mlp.fc1.out_features))
        return "the blocks differ in heads, widths or attention: make them alike" if len(kinds) > 1 else None

    def _parameters_why_not(self, norm: nn.LayerNorm, x: Tensor, dtype: torch.dtype) -> str | None:
        """Where parameters do not fit the activations, plain blocks say so in PyTorch's words."""
        fitting = (dtype, torch.float32) if torch.is_autocast_enabled(x.device.type) else (dtype,)
        for parameter in self._parameters_in_order(norm):
            if not is_plain(parameter):
                return f"a parameter is a {type(parameter).__name__}"
            if parameter.dtype not in fitting or parameter.device != x.device:
                found = f"{parameter.dtype} on {parameter.device}"
                return f"parameters of {found} meet activations of {dtype} on {x.device}"
        return None

    def path(self, *inputs: Tensor, norm: nn.LayerNorm, masked: bool = False) -> str:
        """``"fused"`` or ``"reference"`` for a call with these inputs, and perhaps a mask of tokens.

        Raises:
            RuntimeError: ``"fused"`` was asked for by name and cannot run; the message says why.
        """
        dtype = compute_dtype(inputs[0])
        problem = Problem(inputs[0].device.type, dtype)
        name = None if self.backend == "auto" else self.backend
        if ops.choose_stack(problem, name) == "reference":
            return "reference"
        reason: str | None = _MASKED
        if not masked:
            reason = next(filter(None, self._reasons(inputs, norm, dtype)), None)
        if reason is None:
            return "fused"
        return ops.choose_stack(replace(problem, refusals=(reason,)), name)

    def explain(self, *inputs: Tensor, norm: nn.LayerNorm, masked: bool = False) -> list[Choice]:
        """Say how a call with such inputs is computed, and why not fused; nothing is computed.

        Args:
            inputs: as in :meth:`path`, or tensors of the same shapes, dtypes and devices.
            norm: the norm that follows the blocks.
            masked: whether a mask of tokens comes with them.

        Returns:
            The choice for the stack, ``transformer_stack``; where it is fused, those of the ops on flat rows too.

        Raises:
            RuntimeError: as :meth:`path`.
        """
        dtype = compute_dtype(inputs[0])
        problem = Problem(inputs[0].device.type, dtype)
        choice = explain_stack(problem, None if self.backend == "auto" else self.backend)
        if choice.backend == "reference":
            return [choice]
        reason: str | None = _MASKED
        if not masked:
            reason = next(filter(None, self._reasons(inputs, norm, dtype)), None)
        if reason is not None:
            return [Choice(choice.op, self.path(*inputs, norm=norm, masked=masked), {"fused": reason})]
        count = inputs[-1].shape[0] * inputs[0].shape[1]
        rows = inputs[0].new_empty((), dtype=dtype).expand(count, inputs[0].shape[2])
        hidden = self._each()[0].mlp.fc1.out_features
        return [choice, *(explain(*call) for call in row_problems(rows, hidden))]

    def _plan(self, x: Tensor, memory: Tensor, dtype: torch.dtype, saves: bool) -> Plan:
        first = self._each()[0].attn
        attention = self._attention(x, memory, dtype)
        sizes = memory.shape[0], x.shape[1], first.heads
        return Plan(*sizes, attention, self.recompute, saves, self.side_branch)

    def _weights(
        self, norm: nn.LayerNorm, dtype: torch.dtype, scales: list[tuple[Tensor | None, Tensor | None]]
    ) -> StackWeights:
        """Detached weights in the activations' dtype, with drop path's factors of each block's rows."""
        layers = [
            Layer(
                _norm(block.norm1),
                _projection(block.attn.q if block.attn.cross else block.attn.qkv, dtype),
                _linear(block.attn.proj, dtype),
                _norm(block.norm2),
                _linear(block.mlp.fc1, dtype),
                _linear(block.mlp.fc2, dtype),
                factors,
            )
            for block, factors in zip(self._each(), scales, strict=True)
        ]
        return StackWeights(layers, _norm(norm))

    def _parameters_in_order(self, norm: nn.LayerNorm) -> list[Tensor]:
        return [
            *(_parameter(block, path) for block in self for path in self._paths),
            norm.weight,
            norm.bias,
        ]


class TransformerStack(_Stack):
    """:class:`TransformerBlock` after :class:`TransformerBlock`, and the norm that follows them.

    The fused form computes the same and has the same parameters; ``fastamr.backend(transformer_stack="reference")``,
    or ``backend="reference"`` for one stack, runs block by block, as do tracing, hooks on modules inside, and whatever
    else the fused form lacks. Drop path drops the same branches either way: a stack draws once in a forward pass for
    all its blocks, see :func:`fastamr.nn.drop_path_seed`. Under autocast activations are in autocast's dtype, the
    residual stream included, and the norms' statistics in float32. Gradients are first derivatives.

    Args:
        blocks: the blocks, all of one width and head count.
        backend: ``"auto"``, ``"fused"`` or ``"reference"``; None is auto.
    """

    block = TransformerBlock
    names = SELF_NAMES

    def forward(self, x: Tensor, norm: nn.LayerNorm, known: Tensor | None = None) -> Tensor:
        """``norm(blocks(x))``: ``(S, K, D)`` to ``(S, K, D)``; see :meth:`with_stream`."""
        return self.with_stream(x, norm, known)[1]

    def with_stream(
        self, x: Tensor, norm: nn.LayerNorm, known: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """``blocks(x)`` and ``norm(blocks(x))``, both ``(S, K, D)``.

        Args:
            x: tokens.
            norm: the norm that follows.
            known: ``(S, K)`` bool, the tokens that are attended to; None = all. With a mask the blocks are computed one
                by one.

        Raises:
            RuntimeError: ``"fused"`` was asked for by name and cannot run; the message says why.
        """
        fused, scales = self.path(x, norm=norm, masked=known is not None) == "fused", self._draw_scales(x)
        if not fused:
            for index, block in enumerate(self):
                factors = None if scales is None else scales[2 * index : 2 * index + 2]
                given = (
                    ()
                    if factors is None and known is None
                    else (factors,)
                    if known is None
                    else (factors, known)
                )
                x = block(x, *given)
            return x, norm(x)
        dtype = compute_dtype(x)
        parameters = self._parameters_in_order(norm)
        saves = torch.is_grad_enabled() and any(each.requires_grad for each in (x, *parameters))
        plan, shape = self._plan(x, x, dtype, saves), x.shape
        with torch.autocast(x.device.type, enabled=False):
            weights = self._weights(norm, dtype, self._row_scales(scales, shape[1], dtype))
            rows = x.to(dtype).reshape(-1, shape[-1]).contiguous()
            if saves:
                total, normed = SelfStack.apply(plan, weights, rows, *parameters)
            else:
                last, _ = self_layers(plan, weights, rows)
                total, normed = last.total, last.normed
        return total.view(shape), normed.view(shape)

    def _draw_scales(self, x: Tensor) -> Tensor | None:
        """Drop path's factors ``(2*L, S)`` of all branches, two for each block; None where nothing can be dropped.

        Blocks of other kinds draw for themselves.
        """
        if any(type(block) is not TransformerBlock for block in self):
            return None
        paths = [block.drop_path for block in self._each()]
        if any(type(path) is not DropPath for path in paths) or not any(path.active for path in paths):
            return None
        rates = [path.rate if path.active else 0.0 for path in paths for _ in range(2)]
        return ops.drop_path_scales(draw_seed(x.device), rates, x.shape[0])

    def _row_scales(
        self, scales: Tensor | None, tokens: int, dtype: torch.dtype
    ) -> list[tuple[Tensor | None, Tensor | None]]:
        """The factors of each block's rows, None where a block drops nothing."""
        if scales is None:
            return [(None, None)] * len(self)
        rows = (
            scales[:, :, None].expand(-1, -1, tokens).flatten(1).contiguous()
        )  # of one sequence it is a view
        rows = rows.to(torch.promote_types(torch.float32, dtype))
        return [
            (rows[2 * index], rows[2 * index + 1]) if block.drop_path.active else (None, None)
            for index, block in enumerate(self._each())
        ]


class CrossAttentionStack(_Stack):
    """:class:`CrossAttentionBlock` after :class:`CrossAttentionBlock` over one memory, and the norm that follows.

    In the fused form (see :class:`TransformerStack`) the keys and values of all layers are one product, and queries
    that all sequences share pass the first layer's norm and projection once.

    Args:
        blocks: the blocks, all of one width and head count.
        backend: ``"auto"``, ``"fused"`` or ``"reference"``; None is auto.
    """

    block = CrossAttentionBlock
    names = CROSS_NAMES

    def forward(self, queries: Tensor, memory: Tensor, norm: nn.LayerNorm) -> Tensor:
        """``queries (S or 1, Q, D)`` over ``memory (S, K, D)`` to ``(S, Q, D)``."""
        if self.path(queries, memory, norm=norm) == "reference":
            for block in self:
                queries = block(queries, memory)
            return norm(queries)
        dtype = compute_dtype(queries)
        parameters = self._parameters_in_order(norm)
        inputs = (queries, memory, *parameters)
        saves = torch.is_grad_enabled() and any(each.requires_grad for each in inputs)
        plan = self._plan(queries, memory, dtype, saves)
        with torch.autocast(queries.device.type, enabled=False):
            weights = self._weights(norm, dtype, [(None, None)] * len(self))
            weights = self._with_keys_and_values(weights, dtype)
            rows, memory_rows = (each.to(dtype).flatten(0, 1).contiguous() for each in (queries, memory))
            if saves:
                _, normed = CrossStack.apply(plan, weights, rows, memory_rows, *parameters)
            else:
                normed = cross_layers(plan, weights, rows, memory_rows)[0].normed
        return normed.view(plan.sequences, *queries.shape[1:])

    def _with_keys_and_values(self, weights: StackWeights, dtype: torch.dtype) -> StackWeights:
        """Add the layers' key and value projections, as one."""
        matrices, biases = self.joined_parameters()
        parts = tuple(working_weight(each, dtype) for each in matrices)
        kv = Linear(joined_weights(matrices, dtype), joined_weights(biases, dtype))
        return weights._replace(kv=kv, kv_parts=parts)

    def joined_parameters(self) -> list[list[nn.Parameter]]:
        """Parameters that are used as one tensor, each list in its order: the projections' weights and their biases."""
        layers = [block.attn.kv for block in self._each()]
        return [[layer.weight for layer in layers], [layer.bias for layer in layers]]
