"""Random calls of the ops: each gives what the reference gives in float64, or is refused by a documented error.

A call draws its shapes (counts of zero too), dtypes, strides and options; one in three is made wrong on purpose: an
index out of range, another shape, dtype or stride, memory that is shared. What a wrong call does not do is end the
process, or give numbers that the reference does not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .. import native, ops
from ..ops.common.backends import backend

REFUSALS = (ValueError, TypeError, RuntimeError, IndexError)
_DTYPES = (torch.float32, torch.bfloat16, torch.float64)
# Share of the largest number by which a result may differ, by dtype.
_TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 6e-2, torch.float64: 1e-9, torch.float16: 2e-2}
_WRONG = 0.34
_FAR = (-1, 2**31 - 1, 2**32, 2**32 + 1, -(2**32), 2**63 - 1, -(2**63))


@dataclass
class Tally:
    """What came of the calls: by op, how many agreed with float64 and how many were refused."""

    agreed: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{name}: {self.agreed.get(name, 0)} right, {self.refused.get(name, 0)} refused"
            for name in sorted({*self.agreed, *self.refused})
        ]
        return "\n".join(lines)


class _Draw:
    """Random numbers, tensors and strides of one call."""

    def __init__(self, number: int) -> None:
        self.pick = random.Random(number)
        self.generator = torch.Generator().manual_seed(number)
        self.wrong = self.pick.random() < _WRONG
        self.dtype = self.pick.choice(_DTYPES)

    def count(self, most: int) -> int:
        return 0 if self.pick.random() < 0.08 else self.pick.randint(1, most)

    def chance(self, share: float = 0.5) -> bool:
        return self.pick.random() < share

    def numbers(self, *shape: int, dtype: torch.dtype | None = None, strided: bool = True) -> Tensor:
        """A tensor, in one of three with other strides than a fresh one."""
        values = torch.randn(shape, generator=self.generator, dtype=torch.float64).to(dtype or self.dtype)
        kind = self.pick.randrange(6) if strided and values.ndim > 1 else 0
        if kind == 1:
            return values.transpose(0, 1).contiguous().transpose(0, 1)
        if kind == 2:
            wide = values.new_zeros((*values.shape[:-1], values.shape[-1] + 3))
            wide[..., : values.shape[-1]] = values
            return wide[..., : values.shape[-1]]
        return values

    def ids(self, *shape: int, below: int) -> Tensor:
        dtype = self.pick.choice((torch.int32, torch.int64))
        values = torch.randint(0, max(below, 1), shape, generator=self.generator)
        if self.wrong and values.numel() and self.chance():
            values.view(-1)[self.pick.randrange(values.numel())] = self.pick.choice((below, *_FAR))
        return values.clamp(-(2**31), 2**31 - 1).to(dtype) if dtype == torch.int32 else values

    def spoilt(self, given: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        """Make one of the tensors wrong, where the call is to be."""
        present = [name for name in names if isinstance(given.get(name), Tensor)]
        if not self.wrong or not present or self.chance(0.3):
            return given
        name = self.pick.choice(present)
        value = given[name]
        ways: tuple[Callable[[], Tensor], ...] = (
            lambda: value[:-1] if value.ndim and len(value) else value.unsqueeze(0),
            lambda: value.unsqueeze(0),
            lambda: (
                value.double()
                if value.is_floating_point() and value.dtype != torch.float64
                else value.float()
            ),
            lambda: value.to(torch.int16),
            lambda: torch.cat([value, value], -1) if value.ndim else value.reshape(1),
            lambda: value.new_empty(0),
            lambda: value[:1].expand(value.shape) if value.ndim and len(value) else value,
            lambda: value.flip(-1).transpose(0, -1) if value.ndim > 1 else value,
        )
        return given | {name: self.pick.choice(ways)()}


@dataclass
class Call:
    """One call.

    Attributes:
        op: its name.
        run: carries it out with a back end, on tensors of the call's dtype or of float64.
    """

    op: str
    run: Callable[[str, bool], list[Tensor]]


def _as(value: Any, exact: bool) -> Any:
    if exact and isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().double()
    return value.detach().clone() if isinstance(value, Tensor) and value.is_contiguous() else value


def _attention(draw: _Draw) -> Call:
    sequences, heads, size = draw.count(4), draw.pick.randint(1, 3), draw.pick.choice((16, 32, 64))
    rows, form = draw.count(draw.pick.choice((6, 40, 130))), draw.pick.choice(("self", "cross", "ragged"))
    given: dict[str, Any] = {"scale": draw.pick.choice((None, 0.3))}
    keys = rows
    if form == "ragged":
        cuts = sorted(draw.pick.randint(0, rows) for _ in range(sequences))
        given |= {"q": draw.numbers(rows, 3, heads, size)}
        bounds = torch.tensor([0, *cuts, rows] if rows or sequences else [0])
        if draw.wrong and draw.chance():
            bounds[draw.pick.randrange(len(bounds))] = draw.pick.choice((rows + 1, *_FAR))
        given["cu_seqlens"] = bounds[: 0 if draw.wrong and draw.chance(0.1) else None]
    else:
        queries = draw.count(20)
        if form == "self":
            given["q"] = draw.numbers(sequences, rows, 3, heads, size)
        else:
            given["q"] = draw.numbers(sequences, queries, heads, size)
            given["kv"] = draw.numbers(sequences, rows, 2, heads, size)
        if draw.chance() and rows:
            keys = draw.count(rows)
            given["keep"] = draw.ids(sequences, keys, below=rows)
        if draw.chance(0.3):
            given["counts"] = draw.ids(sequences, below=keys + 2)
        if draw.chance(0.4):
            given["bias"] = _bias(draw, heads, sequences, keys if form == "self" else queries, keys, rows)
    if draw.chance(0.2):
        given |= {"dropout": draw.pick.choice((0.2, 0.9)), "seed": torch.tensor([draw.pick.randrange(99), 3])}
    given = draw.spoilt(given, ("q", "kv", "keep", "counts", "cu_seqlens", "seed"))

    def run(name: str, exact: bool) -> list[Tensor]:
        made = {key: _as(value, exact) for key, value in given.items()}
        bias = made.pop("bias", None)
        leaves = [made[key].detach().requires_grad_() for key in ("q", "kv") if key in made]
        made |= dict(zip(("q", "kv"), leaves, strict=False))
        if bias is not None:
            tables = [_as(table, exact).detach().requires_grad_() for table in bias[:2]]
            made["bias"] = ops.AttentionBias(*tables, *bias[2:])
            leaves += tables
        out = ops.visible_attention(**made, backend=name)
        upstream = torch.linspace(-1, 1, max(out.numel(), 1), dtype=torch.float64)[: out.numel()].view(
            out.shape
        )
        return [out.detach(), *torch.autograd.grad(out, leaves, upstream.to(out.dtype))]

    return Call("visible_attention", run)


def _bias(draw: _Draw, heads: int, sequences: int, queries: int, keys: int, rows: int) -> ops.AttentionBias:
    joints = draw.count(5)
    # Wide enough for all distances of time patches, unless the call is to be wrong.
    furthest = max(rows, queries, keys) // max(joints, 1) + 1 if not draw.wrong else draw.pick.randint(0, 3)
    dtype = torch.promote_types(torch.float32, draw.dtype)
    below = joints * (furthest + 1)
    return ops.AttentionBias(
        draw.numbers(heads, joints, joints, dtype=dtype, strided=False),
        draw.numbers(heads, 2 * furthest + 1, dtype=dtype, strided=False),
        draw.ids(sequences, queries, below=below) if draw.chance(0.3) else None,
        draw.ids(sequences, keys, below=below) if draw.chance(0.3) else None,
    )


def _backward_into(draw: _Draw) -> Call:
    sequences, rows, heads, size = (
        draw.count(3),
        draw.count(40),
        draw.pick.randint(1, 3),
        draw.pick.choice((16, 32)),
    )
    cross, queries = draw.chance(), draw.count(12)
    q = (
        draw.numbers(sequences, queries, heads, size)
        if cross
        else draw.numbers(sequences, rows, 3, heads, size)
    )
    kv = draw.numbers(sequences, rows, 2, heads, size) if cross else None
    out, lse = ops.visible_attention_forward(q, kv, backend="reference")
    buffer = torch.empty((*q.shape[:-2], 2, *q.shape[-2:]), dtype=q.dtype)
    compute = torch.promote_types(torch.float32, q.dtype)
    given = {
        "grad": draw.numbers(*out.shape),
        "out": out,
        "lse": lse,
        "q": q,
        "kv": kv,
        "dq": buffer[..., 1, :, :]
        if draw.chance()
        else torch.empty_like(q, memory_format=torch.contiguous_format),
        "dkv": None if kv is None else torch.empty(kv.shape, dtype=kv.dtype),
        "columns": torch.empty(3, heads, size, dtype=compute) if draw.chance() else None,
    }
    if draw.wrong and draw.chance(0.2):
        given["dq"] = q
    given = draw.spoilt(given, ("grad", "out", "lse", "dq", "dkv", "columns", "q", "kv"))

    def run(name: str, exact: bool) -> list[Tensor]:
        made: dict[str, Any] = {key: _as(value, True) for key, value in given.items()} if exact else given
        written = ("dq", "dkv", "columns")
        ops.visible_attention_backward_into(**made, backend=name)
        return [made[key].clone() for key in written if made[key] is not None]

    return Call("visible_attention_backward_into", run)


def _patches(draw: _Draw) -> Call:
    sequences, frames, joints = draw.count(3), 4 * draw.pick.randint(1, 4), draw.pick.randint(1, 6)
    tokens, width = frames // 4 * joints, draw.pick.randint(1, 20)
    given = {
        "clips": draw.numbers(sequences, frames, joints, 3),
        "keep": draw.ids(sequences, draw.count(tokens), below=tokens),
        "weight": draw.numbers(width, 12),
        "bias": draw.numbers(width),
        "position": draw.numbers(tokens, width),
    }
    given = draw.spoilt(given, tuple(given))

    def run(name: str, exact: bool) -> list[Tensor]:
        made = {key: _as(value, exact) for key, value in given.items()}
        leaves = [made[key].detach().requires_grad_() for key in ("weight", "bias", "position")]
        made |= dict(zip(("weight", "bias", "position"), leaves, strict=True))
        tokens = ops.masked_patch_gather(**made, patch_frames=4)
        patches = ops.patch_gather(made["clips"], made["keep"], patch_frames=4)
        return [patches, tokens.detach(), *torch.autograd.grad(tokens.sum(), leaves)]

    return Call("masked_patch_gather", run)


def _sampling(draw: _Draw) -> Call:
    bodies, joints, channels = draw.pick.randint(1, 5), draw.count(5), draw.pick.choice((2, 3))
    lengths = torch.tensor([draw.pick.randint(1, 30) for _ in range(bodies)])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    if draw.wrong and draw.chance():
        offsets[draw.pick.randrange(bodies + 1)] = draw.pick.choice((int(offsets[-1]) + 1, *_FAR))
    given = {
        "coords": draw.numbers(int(lengths.sum()), joints, channels),
        "offsets": offsets,
        "sequence_ids": draw.ids(draw.count(6), below=bodies).long(),
        "seed": torch.tensor([draw.pick.randrange(99), 1]),
    }
    given = draw.spoilt(given, tuple(given))
    frames, angle = draw.pick.randint(1, 20), draw.pick.choice((0.0, 0.3))

    def run(name: str, exact: bool) -> list[Tensor]:
        made = {key: _as(value, exact) for key, value in given.items()}
        return [ops.sample_clips(**made, frames=frames, min_frames=4, max_angle=angle)]

    return Call("sample_clips", run)


def _augmentation(draw: _Draw) -> Call:
    sequences, frames, joints = draw.count(5), draw.pick.randint(1, 9), draw.count(6)
    channels = draw.pick.choice((2, 3))
    given: dict[str, Any] = {
        "clips": draw.numbers(sequences, frames, joints, channels),
        "seed": torch.tensor([draw.pick.randrange(99), 1]),
        "partners": draw.ids(joints, below=joints).long(),
        "limbs": draw.ids(joints, below=9).long() - 1,
        "valid": torch.rand(sequences, frames, joints, generator=draw.generator) > 0.3,
        "group": torch.randint(3, (sequences,), generator=draw.generator),
        "numbers": torch.randint(9, (sequences,), generator=draw.generator),
    }
    for name in ("valid", "group", "numbers"):
        given[name] = given[name] if draw.chance() else None
    given = draw.spoilt(given, tuple(given))
    amounts: dict[str, Any] = {
        "mirror": draw.pick.choice((0.0, 0.5, 1.0)),
        "scale_jitter": draw.pick.choice((0.0, 0.3)),
        "drop_limbs": draw.pick.choice((0.0, 0.4, 1.0)),
        "noise": draw.pick.choice((0.0, 0.1)),
        "project": draw.pick.choice((0.0, 0.5)) if channels == 3 else 0.0,
        "patch_frames": draw.pick.randint(1, frames),
        "visible": draw.pick.randint(0, 9),
    }

    def run(name: str, exact: bool) -> list[Tensor]:
        made: dict[str, Any] = {key: _as(value, exact) for key, value in given.items()}
        found, seen = ops.augment_clips(**made, **amounts)
        return [found] if seen is None else [found, seen.to(found.dtype)]

    return Call("augment_clips", run)


def _rows(draw: _Draw) -> Call:
    rows, width, hidden = draw.count(70), draw.pick.randint(1, 70), draw.pick.randint(1, 70)
    strided = draw.wrong

    def flat(*shape: int) -> Tensor:
        return draw.numbers(*shape, strided=strided)

    statistics = torch.promote_types(torch.float32, draw.dtype)
    vectors = {name: flat(width) for name in ("gamma", "beta")}
    calls: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "row_linear": (
            ops.row_linear,
            {"x": flat(rows, width), "weight": flat(hidden, width), "bias": flat(hidden)},
        ),
        "row_linear_backward": (
            ops.row_linear_backward,
            {"upstream": flat(rows, hidden), "weight": flat(hidden, width)},
        ),
        "linear_gelu": (
            ops.linear_gelu,
            {"x": flat(rows, width), "weight": flat(hidden, width), "bias": flat(hidden)},
        ),
        "linear_gelu_backward": (
            ops.linear_gelu_backward,
            {"upstream": flat(rows, width), "weight": flat(width, hidden), "slope": flat(rows, hidden)},
        ),
        "row_norm": (ops.row_norm, {"x": flat(rows, width), **vectors}),
        "row_norm_backward": (
            ops.row_norm_backward,
            {
                "upstream": flat(rows, width),
                "x": flat(rows, width),
                "mean": draw.numbers(rows, dtype=statistics),
                "rstd": draw.numbers(rows, dtype=statistics),
                "gamma": vectors["gamma"],
                "skip": flat(rows, width) if draw.chance() else None,
            },
        ),
        "linear_residual_norm": (
            ops.linear_residual_norm,
            {
                "x": flat(rows, hidden),
                "weight": flat(width, hidden),
                "bias": flat(width),
                "residual": flat(rows, width),
                **vectors,
                "scale": draw.numbers(rows, dtype=statistics) if draw.chance() else None,
            },
        ),
        "linear_residual_norm_backward": (
            ops.linear_residual_norm_backward,
            {
                "upstream": flat(rows, hidden),
                "weight": flat(hidden, width),
                "total": flat(rows, width),
                "mean": draw.numbers(rows, dtype=statistics),
                "rstd": draw.numbers(rows, dtype=statistics),
                "gamma": vectors["gamma"],
                "scale": draw.numbers(rows, dtype=statistics) if draw.chance() else None,
            },
        ),
        "weight_gradient": (ops.weight_gradient, {"upstream": flat(rows, hidden), "x": flat(rows, width)}),
    }
    op = draw.pick.choice(sorted(calls))
    function, given = calls[op]
    given = draw.spoilt(given, tuple(given))

    def run(name: str, exact: bool) -> list[Tensor]:
        made = {key: _as(value, exact) for key, value in given.items()}
        # Plain products run in the extension only where the processor has a unit for them.
        plain = op.startswith("row_linear") or op == "weight_gradient"
        with backend("auto" if name == "cpp" and plain and not native.has_matrix_unit() else name):
            found = function(**made)
        return [each for each in (found if isinstance(found, tuple) else (found,)) if each is not None]

    return Call(op, run)


def _adamw(draw: _Draw) -> Call:
    shapes = [
        tuple(draw.count(9) for _ in range(draw.pick.randint(0, 3))) for _ in range(draw.pick.randint(1, 4))
    ]
    half = draw.dtype if draw.dtype == torch.bfloat16 else torch.float32

    def make(dtype: torch.dtype = torch.float32, positive: bool = False) -> list[Tensor]:
        made = [draw.numbers(*shape, dtype=dtype, strided=draw.wrong) for shape in shapes]
        return [each.abs() for each in made] if positive else made

    lists = {
        "parameters": make(),
        "gradients": make(half),
        "exp_avgs": make(),
        "exp_avg_sqs": make(positive=True),
        "steps": [torch.tensor(float(draw.pick.randrange(5))) for _ in shapes],
    }
    if draw.wrong:
        name, place = draw.pick.choice(sorted(lists)), draw.pick.randrange(len(shapes))
        lists[name][place] = draw.spoilt({"x": lists[name][place]}, ("x",))["x"]
        if draw.chance(0.3):
            lists[name] = lists[name][:-1]
        elif draw.chance(0.3):
            lists["exp_avgs"][place] = lists["parameters"][draw.pick.randrange(len(shapes))]
    max_norm = draw.pick.choice((None, 0.5))

    def run(name: str, exact: bool) -> list[Tensor]:
        seen: dict[int, Tensor] = {}  # a tensor that stands twice stays one
        given = {
            key: [seen.setdefault(id(each), each.detach().clone()) for each in values]
            for key, values in lists.items()
        }
        if exact:
            for key in ("parameters", "gradients", "exp_avgs", "exp_avg_sqs"):
                given[key] = [each.double() for each in given[key]]
        with backend(name):
            rest: dict[str, Any] = {"lr": torch.tensor(0.01), "max_norm": max_norm, "betas": (0.9, 0.95)}
            norm = ops.adamw_update(**(given | rest))
        written = [each for key in ("parameters", "exp_avgs", "exp_avg_sqs") for each in given[key]]
        return written + ([] if norm is None else [norm])

    return Call("adamw_update", run)


_KINDS = (
    _attention,
    _attention,
    _attention,
    _backward_into,
    _patches,
    _sampling,
    _augmentation,
    _rows,
    _rows,
    _rows,
    _adamw,
)


def draw_call(number: int) -> Call:
    """Return the call of a number: the same each time."""
    draw = _Draw(number)
    return draw.pick.choice(_KINDS)(draw)


def check_call(number: int, tally: Tally, name: str = "cpp") -> None:
    """Carry a call out, and compare it with the reference in float64.

    Args:
        number: which.
        tally: is added to.
        name: the back end.

    Raises:
        AssertionError: the results differ, or one is refused without being compared to the other.
    """
    call = draw_call(number)
    try:
        found = call.run(name, False)
    except REFUSALS:
        tally.refused[call.op] = tally.refused.get(call.op, 0) + 1
        return
    expected = call.run("reference", True)
    assert len(found) == len(expected), (
        f"call {number}, {call.op}: {len(found)} results, expected {len(expected)}"
    )
    for place, (value, truth) in enumerate(zip(found, expected, strict=True)):
        where = f"call {number}, {call.op}, result {place}"
        assert value.shape == truth.shape, (
            f"{where}: shape {tuple(value.shape)}, expected {tuple(truth.shape)}"
        )
        if value.numel() == 0:
            continue
        # NaN and infinity stand where they stand in the truth.
        assert torch.equal(value.isfinite(), truth.isfinite()), (
            f"{where}: not finite where the reference is, or finite"
        )
        value, truth = value.double(), truth.double()
        if call.op.endswith("_norm") and place == len(found) - 1:
            # 1 / deviation of a row of nearly equal values has no digits left: the deviation itself is compared.
            value, truth = 1 / value, 1 / truth
        error = (value - truth).abs()
        finite = truth.isfinite()
        scale = max(1.0, _largest(truth))
        if truth.ndim == 1 and call.op.endswith("_backward"):
            # A column's sum may cancel: its error is that of its terms, which are rounded as the first result is.
            scale = max(scale, _largest(expected[0]))
        worst = float(error[finite].max()) / scale if bool(finite.any()) else 0.0
        limit = max(_limit(call, number), *(_TOLERANCE[each.dtype] for each in found))
        assert worst <= limit, f"{where}: off by {worst:.3g} of the largest value, allowed {limit:.3g}"
    tally.agreed[call.op] = tally.agreed.get(call.op, 0) + 1


def _largest(values: Tensor) -> float:
    finite = values[values.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _limit(call: Call, number: int) -> float:
    dtype = _Draw(number).dtype
    # Its parameters and moments are float32 in each call.
    return _TOLERANCE[torch.float32 if call.op == "adamw_update" else dtype]
