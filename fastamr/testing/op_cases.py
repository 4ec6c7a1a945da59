"""The table of the ops: every kind of call, once.

Tests take their calls from it (schemas, opcheck, every back end against float64, compilation, one name in every room),
and ``tools/check_kernels.py`` compiles the kernels at the sizes in :attr:`Case.compiled`. A case says how its arguments
are made for given :class:`Sizes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch

from .. import ops
from .op_sizes import BODY, EXACT, LONG, PAPER, UNEVEN, WIDE, Sizes

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One kind of call.

    Attributes:
        op: the op's name, that of its files.
        variant: what is special about the call; empty for the plain one.
        arguments: makes the arguments without the back end, by name.
        compiled: sizes at which the op's Triton kernels are compiled ahead of time.
        function: name of the registered op, or in :mod:`fastamr.ops` of what is not registered; empty for ``op``.
        revision: of the registered op: above 1 it is part of its name, see CONTRIBUTING.md.
        public: turns the arguments of the registered op into those of the function in :mod:`fastamr.ops`; None takes
            them as they are.
    """

    op: str
    variant: str
    arguments: Callable[[Sizes], Arguments]
    compiled: tuple[Sizes, ...] = ()
    function: str = ""
    revision: int = 1
    public: Callable[[Arguments], Arguments] | None = None

    @property
    def name(self) -> str:
        """Name of the function."""
        return self.function or self.op

    @property
    def registered_name(self) -> str:
        """Name of the op of the dispatcher, if there is one."""
        return self.name if self.revision == 1 else f"{self.name}_v{self.revision}"

    @property
    def label(self) -> str:
        """Name in a report."""
        return f"{self.name} {self.variant}".strip()

    @property
    def registered(self) -> Any:
        """The op of the dispatcher; None if the function is not registered."""
        packet = getattr(torch.ops.fastamr, self.registered_name, None)
        return None if packet is None else packet.default

    def bind(self, arguments: Arguments) -> Callable[[], Any]:
        """A call of the function in :mod:`fastamr.ops`, on the back end that is chosen there."""
        given = arguments if self.public is None else self.public(arguments)
        return partial(getattr(ops, self.name), **given)

    def launch(self, arguments: Arguments) -> Any:
        """Call the launchers of the Triton kernels, whatever the device."""
        if self.registered is not None:
            return self.registered(**arguments, backend="triton")
        return getattr(import_module(f"fastamr.kernels.{self.op}"), self.name)(**arguments)


def _adamw(
    s: Sizes,
    dtypes: Sequence[torch.dtype] = (torch.float32,),
    max_norm: float | None = None,
    copies: bool = False,
    scaled: bool = False,
) -> Arguments:
    """Parameters whose gradients take the dtypes in turn."""
    shapes = s.parameters
    rate = torch.full((), 0.125, device=s.device)
    return {
        "parameters": [s.normal(*shape) for shape in shapes],
        "gradients": [s.normal(*shape, dtype=dtypes[i % len(dtypes)]) for i, shape in enumerate(shapes)],
        "exp_avgs": [s.normal(*shape) for shape in shapes],
        "exp_avg_sqs": [s.normal(*shape).square() for shape in shapes],
        "steps": [torch.zeros((), device=s.device) for _ in shapes],
        "lrs": [rate] * len(shapes),
        "weight_decays": [(0.1, 0.0, 0.05)[i % 3] for i in range(len(shapes))],
        "working": [s.normal(*shape, dtype=torch.bfloat16) for shape in shapes if copies],
        "beta1": 0.9,
        "beta2": 0.95,
        "eps": 1e-8,
        "max_norm": max_norm,
        "grad_scale": torch.ones((), device=s.device) if scaled else None,
        "found_inf": torch.zeros((), device=s.device) if scaled else None,
    }


def _public_adamw(given: Arguments) -> Arguments:
    renamed = {"lr": given["lrs"], "weight_decay": given["weight_decays"]}
    rest = {
        name: value for name, value in given.items() if name not in ("lrs", "weight_decays", "beta1", "beta2")
    }
    return rest | renamed | {"betas": (given["beta1"], given["beta2"])}


def _select(s: Sizes, scored: bool = False, masked: bool = False, more: bool = False) -> Arguments:
    return {
        "seed": s.whole(3, 1),
        "sequences": s.sequences,
        "tokens": s.tokens,
        "visible": s.visible,
        "scores": s.normal(s.sequences, s.tokens) if scored else None,
        "largest": scored and masked,
        "valid": s.flags(s.sequences, s.tokens) if masked else None,
        "return_masked": more,
        "return_inverse": more,
    }


def _drop_path(s: Sizes, shifted: bool = False) -> Arguments:
    seed = s.whole(3, 1, 64) if shifted else s.whole(3, 1)
    return {"seed": seed, "rates": [0.0, 0.1, 0.5], "sequences": s.sequences}


def _gather(s: Sizes) -> Arguments:
    return {"clips": s.clips(), "keep": s.keep(), "patch_frames": 4}


def _embed(s: Sizes) -> Arguments:
    return {
        **_gather(s),
        "weight": s.leaf(s.width, 12),
        "bias": s.leaf(s.width),
        "position": s.leaf(s.tokens, s.width),
        "out_dtype": s.low,
    }


def _embed_backward(s: Sizes) -> Arguments:
    grad = s.leaf(s.sequences, s.visible, s.width, dtype=s.low)
    return {**_gather(s), "grad": grad, "tokens": s.tokens, "dtype": torch.float32}


def _entropy(s: Sizes, valid: bool = False) -> Arguments:
    return {"clips": s.clips(), "window": s.windows[-2], "valid": s.valid() if valid else None, "eps": 1e-8}


def _guidance(s: Sizes, kind: str = "entropy", valid: bool = False) -> Arguments:
    rest = {"k": 0.01, "eps": 1e-8, "kind": kind, "bins": 8, "valid": s.valid() if valid else None}
    return {"clips": s.clips(), "windows": list(s.windows), **rest}


def _loss(
    s: Sizes,
    frames: int | None = None,
    target: str = "motion",
    normalize: str = "sequence",
    guided: bool = False,
    masked: bool = False,
    valid: bool = False,
    sequences: bool = False,
) -> Arguments:
    target_frames = frames or s.target_frames
    queries = s.frames // target_frames * s.joints
    return {
        "prediction": s.leaf(s.sequences, queries, 3 * target_frames, dtype=s.low),
        "clips": s.clips(),
        "guidance": s.normal(s.sequences, s.frames, s.joints).sigmoid() if guided else None,
        "token_mask": s.flags(s.sequences, queries) if masked else None,
        "valid": s.valid() if valid else None,
        "target_frames": target_frames,
        "target_joints": 1,
        "target": target,
        "stride": 1,
        "normalize": normalize,
        "eps": 1e-6,
        "return_sequences": sequences,
    }


def _sample(s: Sizes, random: bool = True, groups: bool = False) -> Arguments:
    order = torch.arange(s.sequences, device=s.device)
    return {
        "coords": s.normal(3 * s.frames, s.joints, 3, dtype=s.stored),
        "offsets": s.whole(0, s.frames // 2, 3 * s.frames),
        "sequence_ids": order % 2,
        "frames": s.frames,
        "seed": s.whole(3, 1) if random else None,
        "crop": [0.5, 1.0] if random else [0.95],
        "min_frames": 4,
        "max_angle": 0.3 if random else 0.0,
        "group": order // 2 if groups else None,
    }


def _augment(s: Sizes, limbs: bool = True, masked: bool = True, flat: bool = False) -> Arguments:
    """The last joint is of the trunk, the others are of limbs in turn; joints mirror one another from end to end."""
    order = torch.arange(s.sequences, device=s.device)
    joints = torch.arange(s.joints, device=s.device)
    return {
        "clips": s.clips(),
        "valid": s.valid() if masked else None,
        "seed": s.whole(3, 1),
        "mirror": 0.5,
        "partners": s.joints - 1 - joints,
        "scale_jitter": 0.2,
        "drop_limbs": 0.5 if limbs else 0.0,
        "limbs": torch.where(joints == s.joints - 1, -1, joints % 5) if limbs else None,
        "patch_frames": 4,
        "visible": 0,
        "noise": 0.0 if flat else 0.01,
        "project": 0.5 if flat else 0.0,
        "flat": order % 2 == 0 if flat else None,
        "group": order // 2,
        "numbers": order,
    }


def _attention(s: Sizes, **given: Any) -> Arguments:
    """Self-attention, or cross-attention of other counts, unless q and kv are given; what is not given is off."""
    off = dict.fromkeys(
        ("kv", "keep", "counts", "cu_seqlens", "joint_bias", "time_bias", "query_ids", "key_ids")
    )
    if "q" not in given and s.queries == s.keys:
        given["q"] = s.leaf(s.sequences, s.keys, 3, s.heads, s.size, dtype=s.low)
    elif "q" not in given:
        given["q"] = s.leaf(s.sequences, s.queries, s.heads, s.size, dtype=s.low)
        given["kv"] = s.leaf(s.sequences, s.keys, 2, s.heads, s.size, dtype=s.low)
    return {**off, "seed": None, "scale": 0.3, "dropout": 0.0, **given}


def _cross_attention(s: Sizes) -> Arguments:
    return _attention(
        s,
        q=s.leaf(2, 4, 2, 16),
        kv=s.leaf(2, 6, 2, 2, 16),
        keep=torch.stack([s.whole(0, 2, 5), s.whole(1, 2, 4)]),
        counts=s.whole(3, 1),
        joint_bias=s.leaf(2, 3, 3),
        time_bias=s.leaf(2, 3),
        seed=s.whole(3, 1),
        dropout=0.2,
    )


def _ragged_attention(s: Sizes) -> Arguments:
    return _attention(s, q=s.leaf(6, 3, 2, 16), cu_seqlens=s.whole(0, 2, 6))


def _attention_backward(s: Sizes, into: bool = False) -> Arguments:
    given = _attention(s)
    out, lse = torch.ops.fastamr.visible_attention(**given, backend="reference")
    grad = s.normal(s.sequences, s.queries, s.heads * s.size, dtype=s.low)
    saved = {"grad": grad, "out": out.detach(), "lse": lse.detach()}
    given |= {name: given[name].detach() for name in ("q", "kv") if given[name] is not None}
    written = {
        f"d{name}": None if given[name] is None else torch.empty_like(given[name]) for name in ("q", "kv")
    }
    columns = s.normal(3, s.heads, s.size, dtype=torch.promote_types(torch.float32, s.low))
    return saved | given | (written | {"columns": columns} if into else {})


def _public_attention(given: Arguments) -> Arguments:
    tables = ("joint_bias", "time_bias", "query_ids", "key_ids")
    bias = None if given["joint_bias"] is None else ops.AttentionBias(*(given[name] for name in tables))
    return {name: value for name, value in given.items() if name not in tables} | {"bias": bias}


def _linear(s: Sizes, **rest: Any) -> Arguments:
    return {
        "x": s.lows(s.rows, s.width),
        "weight": s.lows(s.hidden, s.width),
        "bias": s.normal(s.hidden),
        **rest,
    }


def _linear_backward(s: Sizes) -> Arguments:
    return {"upstream": s.lows(s.rows, s.hidden), "weight": s.lows(s.hidden, s.width)}


def _gelu_backward(s: Sizes) -> Arguments:
    upstream, weight = s.lows(s.rows, s.width), s.lows(s.width, s.hidden)
    return {"upstream": upstream, "weight": weight, "slope": s.lows(s.rows, s.hidden)}


def _norm(s: Sizes) -> Arguments:
    """What every layer norm takes beside its rows."""
    return {"gamma": s.normal(s.width), "beta": s.normal(s.width), "eps": 1e-5}


def _norm_backward(s: Sizes, values: str, skip: bool = True) -> Arguments:
    """What its backward takes; ``values`` names the rows before the norm."""
    return {
        values: s.lows(s.rows, s.width),
        "mean": s.normal(s.rows),
        "rstd": s.normal(s.rows),
        "gamma": s.normal(s.width),
        "skip": s.lows(s.rows, s.width) if skip else None,
    }


def _row_norm(s: Sizes) -> Arguments:
    return {"x": s.lows(s.rows, s.width), **_norm(s)}


def _row_norm_backward(s: Sizes) -> Arguments:
    return {"upstream": s.lows(s.rows, s.width), **_norm_backward(s, "x")}


def _residual_norm(s: Sizes, scaled: bool = False) -> Arguments:
    x, weight, residual = s.lows(s.rows, s.hidden), s.lows(s.width, s.hidden), s.lows(s.rows, s.width)
    given = {"x": x, "weight": weight, "bias": s.normal(s.width), "residual": residual, **_norm(s)}
    return given | ({"scale": s.normal(s.rows)} if scaled else {})


def _residual_norm_backward(s: Sizes, skip: bool = True, scaled: bool = False) -> Arguments:
    given = {**_linear_backward(s), **_norm_backward(s, "total", skip)}
    return given | ({"scale": s.normal(s.rows)} if scaled else {})


def _weight_pair(s: Sizes) -> Arguments:
    return {"upstream": s.lows(s.rows, s.hidden), "x": s.lows(s.rows, s.width), "out": None}


def _weight_pairs(s: Sizes, projected: int = 3) -> Arguments:
    """The four weights of a block, as its backward meets them; of cross-attention one projects the queries alone."""
    narrow, wide, last = (s.lows(s.rows, width) for width in (s.width, s.hidden, projected * s.width))
    return {"pairs": [(narrow, wide), (wide, narrow), (narrow, narrow), (last, narrow)]}


def _cases() -> Iterator[Case]:
    """Op, variant, how the arguments are made, where the kernels are compiled, function, public form."""
    one, rows = (PAPER,), (PAPER, WIDE, EXACT, UNEVEN)
    half, bfloat = torch.float16, torch.bfloat16

    adamw = partial(Case, "adamw_update", public=_public_adamw, compiled=one)
    yield adamw("", _adamw)
    yield adamw("bf16 clip", partial(_adamw, dtypes=(bfloat,), max_norm=1.0, copies=True))
    yield adamw("fp16 scaled", partial(_adamw, dtypes=(half,), max_norm=1.0, copies=True, scaled=True))
    yield adamw("scaled", partial(_adamw, max_norm=1.0, copies=True, scaled=True))
    mixed = (torch.float32, bfloat, half)
    yield adamw("mixed", partial(_adamw, dtypes=mixed, max_norm=1.0, copies=True, scaled=True))

    yield Case("drop_path_scales", "", _drop_path, one)
    yield Case("drop_path_scales", "later sequences", partial(_drop_path, shifted=True))
    yield Case("select_visible", "", _select, (PAPER, BODY))
    yield Case("select_visible", "all outputs", partial(_select, masked=True, more=True), one)
    yield Case("select_visible", "scores", partial(_select, scored=True), one)
    yield Case("select_visible", "largest scores", partial(_select, scored=True, masked=True, more=True), one)

    yield Case("patch_gather", "", _gather, one)
    yield Case("masked_patch_gather", "", _embed, one)
    yield Case("masked_patch_gather", "", _embed_backward, one, "masked_patch_gather_backward")

    yield Case("motion_entropy", "", _entropy, one)
    yield Case("motion_entropy", "valid", partial(_entropy, valid=True), (BODY,))
    yield Case("motion_guidance", "", _guidance, (PAPER, BODY))
    yield Case("motion_guidance", "valid", partial(_guidance, valid=True), one)
    yield Case("motion_guidance", "histogram", partial(_guidance, kind="histogram"), one)
    yield Case("motion_guidance", "histogram valid", partial(_guidance, kind="histogram", valid=True))

    loss = partial(Case, "weighted_reconstruction_loss", revision=3)
    yield loss("amr", partial(_loss, guided=True), (PAPER, LONG))
    yield loss("amr valid", partial(_loss, guided=True, valid=True), one)
    yield loss("amr sequences", partial(_loss, guided=True, sequences=True))
    patches = partial(_loss, frames=4, masked=True)
    yield loss("mae", partial(patches, target="joints", normalize="none"), one)
    yield loss("mamp", partial(patches, normalize="patch"), one)
    yield loss(
        "all", partial(patches, target="joints", normalize="patch", guided=True, valid=True, sequences=True)
    )

    yield Case("sample_clips", "", _sample, one)
    yield Case("sample_clips", "groups", partial(_sample, groups=True), one)
    yield Case("sample_clips", "central", partial(_sample, random=False))

    yield Case("augment_clips", "", _augment, one)
    yield Case("augment_clips", "no mask", partial(_augment, masked=False), one)
    yield Case("augment_clips", "flat", partial(_augment, flat=True), one)
    yield Case("augment_clips", "flat no limbs", partial(_augment, limbs=False, masked=False, flat=True), one)
    yield Case("augment_clips", "no limbs", partial(_augment, limbs=False, masked=False), one)

    attention = partial(Case, "visible_attention", public=_public_attention)
    yield attention("", _attention)
    yield attention("cross", _cross_attention)
    yield attention("ragged", _ragged_attention)
    yield attention("", _attention_backward, function="visible_attention_backward")
    into = partial(_attention_backward, into=True)
    yield attention("", into, function="visible_attention_backward_into")

    yield Case("linear_gelu", "", partial(_linear, slope=True), rows)
    yield Case("linear_gelu", "no slope", partial(_linear, slope=False), rows)
    yield Case("linear_gelu", "", _gelu_backward, rows, "linear_gelu_backward")
    yield Case("linear_residual_norm", "", _residual_norm, rows)
    yield Case("linear_residual_norm", "scale", partial(_residual_norm, scaled=True), rows)
    backward = partial(Case, "linear_residual_norm", compiled=rows, function="linear_residual_norm_backward")
    yield backward("", _residual_norm_backward)
    yield backward("no skip", partial(_residual_norm_backward, skip=False))
    yield backward("scale", partial(_residual_norm_backward, scaled=True))
    yield Case("row_linear", "", _linear)
    yield Case("row_linear", "", _linear_backward, function="row_linear_backward")
    yield Case("row_norm", "", _row_norm, rows)
    yield Case("row_norm", "", _row_norm_backward, rows, "row_norm_backward")
    yield Case("weight_gradient", "", _weight_pair, rows)
    yield Case("weight_gradient", "", _weight_pairs, rows, "weight_gradients")
    queries = partial(_weight_pairs, projected=1)
    yield Case("weight_gradient", "queries", queries, function="weight_gradients")


CASES = tuple(_cases())


def _product(s: Sizes, width: int, **rest: object) -> Arguments:
    return {"product": s.lows(s.rows, width), **rest}


def _gelu_pass(s: Sizes) -> Arguments:
    return _product(s, s.hidden, bias=s.normal(s.hidden), slope=True)


def _gelu_backward_pass(s: Sizes) -> Arguments:
    return _product(s, s.hidden, slope=s.lows(s.rows, s.hidden))


def _norm_pass(s: Sizes) -> Arguments:
    rest = {"bias": s.normal(s.width), "residual": s.lows(s.rows, s.width), "scale": s.normal(s.rows)}
    return _product(s, s.width, **rest, **_norm(s))


def _norm_backward_pass(s: Sizes) -> Arguments:
    return _product(s, s.width, **_norm_backward(s, "total"), scale=s.normal(s.rows))


def _packed(s: Sizes) -> Arguments:
    """Gradients of a self-attention with heads of at most 32 values, as flash attention leaves them."""
    size = min(s.width, 32)
    heads = s.width // size
    found = [s.lows(s.sequences, s.visible, heads, size).transpose(1, 2) for _ in range(3)]
    return {"found": found, "target": s.lows(s.sequences, s.visible, 3, heads, size)}


# Kernels that pass over what a library made: a product, for the back end ``torch`` of these ops, or gradients.
PASSES = tuple(
    Case(op, "", arguments, (PAPER, WIDE, EXACT, UNEVEN), name)
    for op, name, arguments in (
        ("linear_gelu", "gelu_rows", _gelu_pass),
        ("linear_gelu", "gelu_backward_rows", _gelu_backward_pass),
        ("row_norm", "residual_norm_rows", _norm_pass),
        ("row_norm", "residual_norm_backward_rows", _norm_backward_pass),
        ("packed_gradients", "packed_gradients", _packed),
    )
)
