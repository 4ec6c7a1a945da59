"""AdamW over all parameters in one launch, after a small one that clips and counts.

The kernels find their tensors through a table of addresses in device memory. Outside a CUDA graph's capture the table
of a set of addresses is kept; inside, where gradients have addresses of their own, the table is sent once when the
capture has ended (:func:`tables_sent_afterwards`), else copied from pinned memory by a node of the graph.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from .launch import Config, launch

# Elements of one program; the order of the sums of squares depends on it.
CHUNK = 8192
# Columns of the table, int64: addresses of parameter, gradient, exp_avg, exp_avg_sq, working copy, step and lr; number
# of elements; dtype of the gradient times 2, plus 1 if the first five addresses are divisible by 16.
COLUMNS = 9
_ADDRESSES = 5
_NUMEL, _FORM = tl.constexpr(7), tl.constexpr(8)
_WIDTH = tl.constexpr(COLUMNS)
# Dtypes of gradients and working copies by number; MIXED reads each gradient's number from the table.
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_MIXED = 3

_CHUNKWISE = Config({"BLOCK": 1024}, num_warps=4)
_COUNTING = Config({"BLOCK": 1024}, num_warps=8)


@triton.jit
def _load(address, offsets, mask, KIND: tl.constexpr, ALIGNED: tl.constexpr):
    """Values of the dtype with this number at an address (int64), as float32.

    Where it is aligned a thread takes four values at a time, 8 or 16 bytes, so that all tensors share one layout.
    """
    hint: tl.constexpr = (16 if KIND == 0 else 8) if ALIGNED else 1
    if KIND == 0:
        source = address.to(tl.pointer_type(tl.float32))
    elif KIND == 1:
        source = address.to(tl.pointer_type(tl.bfloat16))
    else:
        source = address.to(tl.pointer_type(tl.float16))
    return tl.load(tl.multiple_of(source, hint) + offsets, mask=mask).to(tl.float32)


@triton.jit
def _load_gradient(address, form, offsets, mask, KIND: tl.constexpr, ALIGNED: tl.constexpr):
    """As ``_load``; where ``KIND`` is MIXED the tensor's form tells the dtype."""
    if KIND != 3:
        values = _load(address, offsets, mask, KIND, ALIGNED)
    elif form < 2:
        values = _load(address, offsets, mask, 0, ALIGNED)
    elif form < 4:
        values = _load(address, offsets, mask, 1, ALIGNED)
    else:
        values = _load(address, offsets, mask, 2, ALIGNED)
    return values


@triton.jit
def _store(address, offsets, values, mask, KIND: tl.constexpr, ALIGNED: tl.constexpr):
    """Write float32 values at an address (int64) in the dtype of this number."""
    hint: tl.constexpr = (16 if KIND == 0 else 8) if ALIGNED else 1
    if KIND == 0:
        target = address.to(tl.pointer_type(tl.float32))
    elif KIND == 1:
        target = address.to(tl.pointer_type(tl.bfloat16))
    else:
        target = address.to(tl.pointer_type(tl.float16))
    tl.store(tl.multiple_of(target, hint) + offsets, values.to(target.dtype.element_ty), mask=mask)


@triton.jit
def _place(table, chunks, CHUNK: tl.constexpr):
    """Row of this program's tensor, its first element, the elements from there on, and the tensor's form."""
    chunk = tl.load(chunks + tl.program_id(0))
    row = table + (chunk & 0xFFFFFFFF) * _WIDTH
    first = (chunk >> 32) * CHUNK
    return row, first, tl.load(row + _NUMEL) - first, tl.load(row + _FORM)


@triton.jit
def _squares_of(address, form, first, left, CHUNK: tl.constexpr, BLOCK: tl.constexpr, KIND: tl.constexpr,
                FULL: tl.constexpr):  # fmt: skip
    sums = tl.zeros([BLOCK], tl.float32)
    count = tl.minimum(left, CHUNK).to(tl.int32)
    for start in range(0, count, BLOCK):
        place = start + tl.arange(0, BLOCK)
        mask = None if FULL else place < left
        values = _load_gradient(address, form, first + place, mask, KIND, FULL)
        if not FULL:
            values = tl.where(mask, values, 0.0)
        sums += values * values
    return tl.sum(sums)


@triton.jit
def _sum_squares(table, chunks, partials, CHUNK: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr):
    # table (P, 9) and chunks (N,) int64, see _Plan; partials (N,) float32. One program per chunk.
    row, first, left, form = _place(table, chunks, CHUNK)
    gradient = tl.load(row + 1)
    if ((form & 1) == 1) & (left >= CHUNK):
        total = _squares_of(gradient, form, first, left, CHUNK, BLOCK, KIND, True)
    else:
        total = _squares_of(gradient, form, first, left, CHUNK, BLOCK, KIND, False)
    tl.store(partials + tl.program_id(0), total)


@triton.jit
def _count(table, decays, partials, grad_scale, found_inf, factors, multiplier, norm,
           tensors, chunks, max_norm, log_beta1, log_beta2, BLOCK: tl.constexpr):  # fmt: skip
    # table (P, 9) int64; decays (P,) float64; partials (N,), norm () float32 or both None; grad_scale, found_inf ()
    # float32 or None; factors (P, 3) and multiplier () float32. One program: it multiplies what the gradients count
    # with, advances the steps, and leaves what follows: the decay's factor, the step size, 1 / sqrt(1 - b2^t).
    scale = 1.0
    if grad_scale is not None:
        scale = 1.0 / tl.load(grad_scale)
    if partials is not None:
        sums = tl.zeros([BLOCK], tl.float64)
        for start in range(0, chunks, BLOCK):
            place = start + tl.arange(0, BLOCK)
            sums += tl.load(partials + place, mask=place < chunks, other=0.0).to(tl.float64)
        length = tl.sqrt(tl.sum(sums)).to(tl.float32) * scale
        tl.store(norm, length)
        factor = max_norm / (length + 1e-6)
        # NaN stays NaN.
        scale = scale * tl.where(factor > 1.0, 1.0, factor)
    tl.store(multiplier, scale)
    more = 1.0
    if found_inf is not None:
        more = tl.where(tl.load(found_inf) == 0.0, 1.0, 0.0)
    for start in range(0, tensors, BLOCK):
        place = start + tl.arange(0, BLOCK)
        mask = place < tensors
        row = table + place.to(tl.int64) * _WIDTH
        counter = tl.load(row + 5, mask=mask, other=0).to(tl.pointer_type(tl.float32))
        step = tl.load(counter, mask=mask, other=0.0) + more
        tl.store(counter, step, mask=mask)
        rate = tl.load(row + 6, mask=mask, other=0).to(tl.pointer_type(tl.float32))
        lr = tl.load(rate, mask=mask, other=0.0).to(tl.float64)
        decay = tl.load(decays + place, mask=mask, other=0.0)
        t = tl.where(mask & (step > 0), step, 1.0).to(tl.float64)
        target = factors + place * 3
        tl.store(target, (1.0 - lr * decay).to(tl.float32), mask=mask)
        tl.store(target + 1, (lr / (1.0 - tl.exp(t * log_beta1))).to(tl.float32), mask=mask)
        root = tl.sqrt(1.0 - tl.exp(t * log_beta2))
        tl.store(target + 2, (1.0 / root).to(tl.float32), mask=mask)


@triton.jit
def _update_chunk(row, factors, multiplier, form, first, left, beta2, rest1, rest2, eps, CHUNK: tl.constexpr,
                  BLOCK: tl.constexpr, KIND: tl.constexpr, COPY: tl.constexpr, FULL: tl.constexpr):  # fmt: skip
    keep, size, root = tl.load(factors), tl.load(factors + 1), tl.load(factors + 2)
    parameter, gradient, exp_avg, exp_avg_sq = (
        tl.load(row),
        tl.load(row + 1),
        tl.load(row + 2),
        tl.load(row + 3),
    )
    copy = tl.load(row + 4)
    count = tl.minimum(left, CHUNK).to(tl.int32)
    for start in range(0, count, BLOCK):
        place = start + tl.arange(0, BLOCK)
        mask = None if FULL else place < left
        offsets = first + place
        g = _load_gradient(gradient, form, offsets, mask, KIND, FULL)
        if multiplier is not None:
            g = g * tl.load(multiplier)
        m = _load(exp_avg, offsets, mask, 0, FULL)
        v = _load(exp_avg_sq, offsets, mask, 0, FULL)
        p = _load(parameter, offsets, mask, 0, FULL)
        m += rest1 * (g - m)
        v = beta2 * v + rest2 * g * g
        p = keep * p - size * (m / (tl.sqrt(v) * root + eps))
        _store(exp_avg, offsets, m, mask, 0, FULL)
        _store(exp_avg_sq, offsets, v, mask, 0, FULL)
        _store(parameter, offsets, p, mask, 0, FULL)
        if COPY != 0:
            _store(copy, offsets, p, mask, COPY, FULL)


@triton.jit
def _update(table, chunks, factors, multiplier, found_inf, beta2, rest1, rest2, eps, CHUNK: tl.constexpr,
            KIND: tl.constexpr, COPY: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    # table (P, 9) and chunks (N,) int64, see _Plan; factors (P, 3) float32 as _count leaves them; multiplier and
    # found_inf () float32 or None. One program per chunk; a whole, aligned chunk goes by 16 bytes at a time.
    if found_inf is not None:  # noqa: SIM102 -- decided when compiling, unlike the next
        if tl.load(found_inf) != 0.0:
            return
    row, first, left, form = _place(table, chunks, CHUNK)
    mine = factors + (tl.load(chunks + tl.program_id(0)) & 0xFFFFFFFF) * 3
    if ((form & 1) == 1) & (left >= CHUNK):
        _update_chunk(row, mine, multiplier, form, first, left, beta2, rest1, rest2, eps,
                      CHUNK, BLOCK, KIND, COPY, True)  # fmt: skip
    else:
        _update_chunk(row, mine, multiplier, form, first, left, beta2, rest1, rest2, eps,
                      CHUNK, BLOCK, KIND, COPY, False)  # fmt: skip


class _Plan(NamedTuple):
    """Where the tensors of a call are, int64 in one piece on the device.

    Attributes:
        table: ``(P, 9)``, see COLUMNS.
        decays: ``(P,)`` float64.
        chunks: ``(N,)``, the row of a chunk's tensor in the lower half, its number within the tensor in the upper.
    """

    table: Tensor
    decays: Tensor
    chunks: Tensor


_LARGEST_CACHE = 8
_plans: OrderedDict[tuple[object, ...], _Plan] = OrderedDict()
# Buffers, pinned and on the device, for the next capture of each optimizer, named by its GPU and its first parameter's
# address; and those that captured graphs read.
_Owner = tuple[torch.device, int]
_Buffers = tuple[Tensor, Tensor]
_reserved: OrderedDict[_Owner, _Buffers] = OrderedDict()
_in_graphs: list[_Buffers] = []
# Tables to send when the capture has ended: buffer on the device, what it is to hold. None: a copy in every replay.
_unsent: list[tuple[Tensor, Tensor]] | None = None


@contextmanager
def tables_sent_afterwards() -> Iterator[None]:
    """Send the tables of a graph that is captured in the block once, when the block ends, on the stream current then.

    A capture outside of such a block makes the copy a node of the graph, which every replay runs. Replays must come
    after the block in the order of the stream.
    """
    global _unsent
    before, _unsent = _unsent, []
    try:
        yield
        for target, source in _unsent:
            target.copy_(source, non_blocking=True)
    finally:
        _unsent = before


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _reserve(owner: _Owner, numbers: int) -> None:
    """Have buffers ready: none can be pinned during a capture, and memory from its pool would go with the graph."""
    if owner[0].type == "cuda" and (owner not in _reserved or _reserved[owner][0].numel() < numbers):
        pinned = torch.empty(2 * numbers, dtype=torch.int64, pin_memory=True)
        _reserved[owner] = pinned, torch.empty_like(pinned, device=owner[0])
        while len(_reserved) > _LARGEST_CACHE:
            _reserved.popitem(last=False)


def _to_device(host: Tensor, owner: _Owner) -> Tensor:
    """Copy without waiting; during a capture the copy is put off, or becomes a node of the graph."""
    device = owner[0]
    if device.type == "cpu":
        return host
    if not _capturing(device):
        return host.pin_memory().to(device, non_blocking=True)
    buffers = _reserved.pop(owner, None)
    if buffers is None or buffers[0].numel() < host.numel():
        raise RuntimeError(
            "adamw_update has no pinned memory for this capture: call it once with the same tensors outside of one, "
            "before each capture"
        )
    pinned, target = (each[: host.numel()] for each in buffers)
    pinned.copy_(host)
    _in_graphs.append(buffers)
    if _unsent is None:
        target.copy_(pinned, non_blocking=True)
    else:
        _unsent.append((target, pinned))
    return target


def _make_plan(
    addresses: Sequence[Sequence[int]], gradients: Sequence[Tensor], decays: Sequence[float]
) -> _Plan:
    """Lay out the table and the chunks, and send them to the gradients' device.

    This is the host's own work, which a mode that watches the device's must not see.
    """
    rows, chunks = [], []
    for row, (columns, gradient) in enumerate(zip(zip(*addresses, strict=True), gradients, strict=True)):
        aligned = all(address % 16 == 0 for address in columns[:_ADDRESSES])
        rows.append([*columns, gradient.numel(), _DTYPES.index(gradient.dtype) * 2 + aligned])
        chunks += [row | number << 32 for number in range(triton.cdiv(gradient.numel(), CHUNK))]
    table, count = torch.tensor(rows).flatten(), len(rows)
    bits = torch.tensor(decays, dtype=torch.float64).view(torch.int64)
    packed = _to_device(
        torch.cat([table, bits, torch.tensor(chunks, dtype=torch.int64)]),
        (gradients[0].device, addresses[0][0]),
    )
    table, decay, rest = packed.split([count * COLUMNS, count, len(chunks)])
    return _Plan(table.view(count, COLUMNS), decay.view(torch.float64), rest)


def _plan_for(lists: Sequence[Sequence[Tensor]], decays: Sequence[float]) -> _Plan:
    """The plan of these tensors, kept from an earlier call where that is safe."""
    gradients, device = lists[1], lists[1][0].device
    addresses = [[each.data_ptr() for each in tensors] or [0] * len(gradients) for tensors in lists]
    # A graph reads its table at every replay: it never gets one that the cache may let go.
    if _capturing(device):
        return _make_plan(addresses, gradients, decays)
    forms = tuple((each.numel(), each.dtype) for each in gradients)
    # A table is complete, and may be let go, in the order of the stream that it was sent on.
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    key = (device, stream, *map(tuple, addresses), forms, tuple(decays))
    if key not in _plans:
        with _disable_current_modes():
            _plans[key] = _make_plan(addresses, gradients, decays)
        while len(_plans) > _LARGEST_CACHE:
            _plans.popitem(last=False)
    _plans.move_to_end(key)
    plan = _plans[key]
    _reserve((device, addresses[0][0]), sum(each.numel() for each in plan))
    return plan


def adamw_update(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    steps: Sequence[Tensor],
    lrs: Sequence[Tensor],
    weight_decays: Sequence[float],
    working: Sequence[Tensor],
    *,
    beta1: float,
    beta2: float,
    eps: float,
    max_norm: float | None,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> Tensor | None:
    """Launch the update: two launches, three with ``max_norm``; the arguments are those of the op's reference.

    Parameters and states are float32, and the tensors of one parameter share their layout in memory, without holes.

    Returns:
        The norm before clipping, a float32 scalar; None without ``max_norm``.
    """
    device = gradients[0].device
    plan = _plan_for((parameters, gradients, exp_avgs, exp_avg_sqs, working, steps, lrs), weight_decays)
    kinds = {_DTYPES.index(each.dtype) for each in gradients}
    tensors, chunks = len(gradients), len(plan.chunks)
    constants = {"CHUNK": CHUNK, "KIND": kinds.pop() if len(kinds) == 1 else _MIXED}
    numbers = gradients[0].new_empty(3 * tensors + 1, dtype=torch.float32)
    factors, multiplier = numbers[:-1], numbers[-1]
    partials = norm = None
    if max_norm is not None:
        partials, norm = (numbers.new_empty(shape) for shape in ((chunks,), ()))
        launch(
            _sum_squares,
            (chunks,),
            device,
            _CHUNKWISE,
            table=plan.table,
            chunks=plan.chunks,
            partials=partials,
            **constants,
        )
    launch(
        _count,
        (1,),
        device,
        _COUNTING,
        table=plan.table,
        decays=plan.decays,
        partials=partials,
        grad_scale=grad_scale,
        found_inf=found_inf,
        factors=factors,
        multiplier=multiplier,
        norm=norm,
        tensors=tensors,
        chunks=chunks,
        max_norm=max_norm,
        log_beta1=math.log(beta1) if beta1 > 0 else -math.inf,
        log_beta2=math.log(beta2) if beta2 > 0 else -math.inf,
    )
    launch(
        _update,
        (chunks,),
        device,
        _CHUNKWISE,
        table=plan.table,
        chunks=plan.chunks,
        factors=factors,
        multiplier=None if max_norm is None and grad_scale is None else multiplier,
        found_inf=found_inf,
        beta2=beta2,
        rest1=1 - beta1,
        rest2=1 - beta2,
        eps=eps,
        COPY=_DTYPES.index(working[0].dtype) if working else 0,
        **constants,
    )
    return norm
