"""AdamW over all parameters at once, with clipping by the global norm and low-precision copies in the same pass."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from math import inf

import torch
from torch import Tensor

from .. import native, reference
from .common.backends import Backend, Problem, can_always, choose, declare
from .common.checks import check_device
from .common.overlap import check_many_apart
from .common.registration import fake_of
from .common.triton_support import TRITON, triton_why_not

_MASTERS = (torch.float32, torch.float64)
_GRADIENTS = (torch.float32, torch.bfloat16, torch.float16)
_COPIES = (torch.bfloat16, torch.float16)


def _on_cpp(problem: Problem) -> str | None:
    if problem.device_type != "cpu":
        return f"it runs on cpu tensors, these are on {problem.device_type}"
    if problem.dtype != torch.float32:
        return f"it covers float32 parameters, not {str(problem.dtype).removeprefix('torch.')}"
    if problem.features or problem.refusals:
        return f"it does not cover {' and '.join((*problem.features, *problem.refusals))}"
    return native.why_not("cpu")


def tables_sent_afterwards() -> AbstractContextManager[None]:
    """Block around a CUDA graph's capture of the op: its tables are sent once when the block ends, not in every replay.

    The copy is issued on the stream that is current then, before which no replay may run. Without the block a capture
    is right too; the copy is a node of the graph.
    """
    if triton_why_not(Problem("cuda", torch.float32)) is not None:
        return nullcontext()
    from ..kernels.adamw_update import tables_sent_afterwards as block

    return block()


declare(
    "adamw_update",
    TRITON,
    Backend("cpp", _on_cpp, automatic_on=("cpu",)),
    Backend("reference", can_always),
)


@torch.library.custom_op(
    "fastamr::adamw_update", mutates_args=("parameters", "exp_avgs", "exp_avg_sqs", "steps", "working")
)
def _op(
    parameters: list[Tensor],
    gradients: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[Tensor],
    lrs: list[Tensor],
    weight_decays: list[float],
    working: list[Tensor],
    beta1: float,
    beta2: float,
    eps: float,
    max_norm: float | None,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    backend: str,
) -> Tensor:
    written = {"parameters": parameters, "exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs, "working": working}
    check_many_apart([*written.items(), ("steps", steps)], [("gradients", gradients), ("lrs", lrs)])
    tensors = (parameters, gradients, exp_avgs, exp_avg_sqs, steps, lrs)
    if backend == "cpp":
        norm = parameters[0].new_empty((), dtype=torch.float32)
        decays = torch.tensor(weight_decays, dtype=torch.float64)
        rest = (beta1, beta2, eps, max_norm, grad_scale, found_inf, norm)
        torch.ops.fastamr_native.adamw_update_cpu.default(*tensors, decays, working, *rest)
    else:
        if backend == "triton":
            from ..kernels.adamw_update import adamw_update as run
        else:
            run = reference.adamw_update
        norm = run(
            *tensors,
            weight_decays,
            working,
            beta1=beta1,
            beta2=beta2,
            eps=eps,
            max_norm=max_norm,
            grad_scale=grad_scale,
            found_inf=found_inf,
        )
    if max_norm is None or norm is None:
        return parameters[0].new_empty(0, dtype=torch.float32)
    return norm


@fake_of(_op)
def _(parameters: list[Tensor], max_norm: float | None) -> Tensor:
    return parameters[0].new_empty((0,) if max_norm is None else (), dtype=torch.float32)


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def _check_scalar(name: str, value: Tensor, device: torch.device) -> None:
    if value.numel() != 1 or value.dtype != torch.float32:
        raise ValueError(
            f"{name} must be a tensor of one float32 value, got {value.dtype} {tuple(value.shape)}"
        )
    check_device(name, value, device, "the first parameter")


def _check_list(
    name: str, values: Sequence[Tensor], parameters: Sequence[Tensor], dtypes: Sequence[torch.dtype]
) -> None:
    """Raise unless each tensor fits its parameter."""
    if len(values) != len(parameters):
        raise ValueError(
            f"{name} has {len(values)} tensors for {len(parameters)} parameters: pass one for each"
        )
    device = parameters[0].device
    for i, (value, parameter) in enumerate(zip(values, parameters, strict=True)):
        if value.layout != torch.strided:
            raise ValueError(
                f"{name}[{i}] is {value.layout}: only dense tensors are updated; call to_dense()"
            )
        if value.shape != parameter.shape or value.device != device:
            raise ValueError(
                f"{name}[{i}] is {tuple(value.shape)} on {value.device}, expected {tuple(parameter.shape)} on "
                f"{device}, as its parameter and the first one"
            )
        if value.dtype not in dtypes:
            raise TypeError(f"{name}[{i}] must be of dtype {_names(dtypes)}, got {value.dtype}")


def _check(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: tuple[Sequence[Tensor], Sequence[Tensor]],
    steps: Sequence[Tensor],
    lrs: Sequence[Tensor],
    decays: Sequence[float],
    working: Sequence[Tensor],
) -> None:
    """Shapes, dtypes and devices; nothing waits for the device."""
    dtype, device = parameters[0].dtype, parameters[0].device
    if dtype not in _MASTERS:
        raise TypeError(
            f"parameters[0] is {dtype}: masters must be {_names(_MASTERS)}; keep low precision in working copies"
        )
    _check_list("parameters", parameters, parameters, (dtype,))
    _check_list("gradients", gradients, parameters, (*_GRADIENTS, dtype))
    for name, each in zip(("exp_avgs", "exp_avg_sqs"), states, strict=True):
        _check_list(name, each, parameters, (dtype,))
    for name, scalars in (("steps", steps), ("lrs", lrs), ("weight_decays", decays)):
        if len(scalars) != len(parameters):
            raise ValueError(
                f"{name} has {len(scalars)} entries for {len(parameters)} parameters: pass one for each"
            )
    if len({id(step) for step in steps}) < len(steps):
        raise ValueError("steps names one tensor twice: each parameter counts its own updates")
    for step in steps:
        _check_scalar("steps", step, device)
    for lr in {id(lr): lr for lr in lrs}.values():
        _check_scalar("lrs", lr, device)
    if working:
        _check_list("working", working, parameters, (working[0].dtype,))
        if working[0].dtype not in _COPIES:
            raise TypeError(f"working copies must be of dtype {_names(_COPIES)}, got {working[0].dtype}")


def adamw_problem(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: tuple[Sequence[Tensor], Sequence[Tensor]],
    working: Sequence[Tensor],
    clips: bool = False,
) -> Problem:
    """The call as the back ends see it: float16 is a feature, what is laid out unlike its parameter a refusal.

    Args:
        parameters: as in :func:`adamw_update`, like the other lists.
        gradients: likewise.
        states: both moments.
        working: likewise.
        clips: whether there is a ``max_norm``.
    """
    half = any(each.dtype == torch.float16 for each in (*gradients, *working[:1]))
    refusals: tuple[str, ...] = ()
    companions = (gradients, *states, working)
    for i, parameter in enumerate(parameters):
        rest = [each[i] for each in companions if each]
        if parameter.is_contiguous() and all(each.is_contiguous() for each in rest):
            continue
        # The elements of all tensors lie in one order in memory without holes.
        order = parameter.stride()
        dense = torch.empty_like(parameter, device="meta").stride() == order
        if not dense or any(each.stride() != order for each in rest):
            refusals = ("tensors with holes, or laid out unlike their parameter",)
            break
    device, dtype = parameters[0].device.type, parameters[0].dtype
    sizes = {"tensors": len(parameters), "values": sum(map(Tensor.numel, parameters)), "clips": int(clips)}
    return Problem(device, dtype, ("float16",) if half else (), sizes, refusals)


def _check_values(
    betas: tuple[float, float], eps: float, max_norm: float | None, decays: Sequence[float]
) -> None:
    for i, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise ValueError(f"betas[{i}]={beta} must be at least 0 and below 1")
    if not 0 <= eps < inf:
        raise ValueError(f"eps={eps} must be at least 0")
    if max_norm is not None and not max_norm > 0:
        raise ValueError(f"max_norm={max_norm} must be above 0, or None for no clipping")
    for decay in decays:
        if not 0 <= decay < inf:
            raise ValueError(f"weight_decay={decay} must be at least 0")


def adamw_update(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    steps: Sequence[Tensor],
    *,
    lr: Tensor | Sequence[Tensor],
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float | Sequence[float] = 0.01,
    working: Sequence[Tensor] = (),
    max_norm: float | None = None,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
) -> Tensor | None:
    """Update all parameters in place by AdamW (Loshchilov and Hutter 2019), in one pass over their memory.

    The arithmetic is that of ``torch.optim.AdamW``: with the step ``t`` already increased,
    ``p -= lr * weight_decay * p``, ``m += (1 - b1) * (g - m)``, ``v = b2 * v + (1 - b2) * g^2``,
    ``p -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps)``. Nothing is read back by the host, so a call can be
    recorded in a CUDA graph; outside one, at least one call must have been made before. Gradients are left as they are.

    Args:
        parameters: P tensors of any shapes, float32 (float64 takes the reference).
        gradients: P tensors; float32, bfloat16 or float16, not necessarily all the same.
        exp_avgs: P tensors m of the parameters' dtype.
        exp_avg_sqs: P tensors v of the parameters' dtype.
        steps: P different tensors of one float32 value, the updates done so far.
        lr: a tensor of one float32 value on the device, or P of them.
        betas: b1 and b2.
        eps: added to the denominator.
        weight_decay: one value, or P of them.
        working: empty, or P tensors, all bfloat16 or all float16, that receive the rounded new parameters.
        max_norm: gradients count scaled by ``min(1, max_norm / (norm + 1e-6))`` with the norm over all of them, as
            after ``torch.nn.utils.clip_grad_norm_``, also where the norm is not finite; None does not clip.
        grad_scale: a tensor of one float32 value that the gradients were multiplied with; they count divided by it.
        found_inf: a tensor of one float32 value; unless it is 0 nothing is written, neither steps nor copies.

    Returns:
        The norm before clipping of the gradients divided by ``grad_scale``, a float32 scalar; None without
        ``max_norm``.

    Raises:
        ValueError: lists of different lengths, shapes or devices, or a value out of its range.
        TypeError: a dtype that is not updated.
        RuntimeError: inside a CUDA graph's capture without a call before it.
    """
    if len(parameters) == 0:
        raise ValueError("parameters is empty: pass at least one parameter, with its gradient and state")
    count = len(parameters)
    lrs = [lr] * count if isinstance(lr, Tensor) else list(lr)
    decays = [float(weight_decay)] * count if isinstance(weight_decay, (int, float)) else list(weight_decay)
    _check_values(betas, eps, max_norm, decays)
    _check(parameters, gradients, (exp_avgs, exp_avg_sqs), steps, lrs, decays, working)
    for name, scalar in (("grad_scale", grad_scale), ("found_inf", found_inf)):
        if scalar is not None:
            _check_scalar(name, scalar, parameters[0].device)
    problem = adamw_problem(parameters, gradients, (exp_avgs, exp_avg_sqs), working, max_norm is not None)
    name = choose("adamw_update", problem)
    with torch.no_grad():
        norm = _op(
            list(parameters),
            list(gradients),
            list(exp_avgs),
            list(exp_avg_sqs),
            list(steps),
            lrs,
            decays,
            list(working),
            betas[0],
            betas[1],
            eps,
            max_norm,
            grad_scale,
            found_inf,
            name,
        )
    return None if max_norm is None else norm
