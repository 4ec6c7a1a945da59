"""AdamW (Loshchilov and Hutter 2019, algorithm 2) over many tensors, with clipping by the global norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def global_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all gradients as one vector, a scalar of the first gradient's dtype."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(each) for each in gradients]))


@torch.no_grad()
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
    """One update in place; see :func:`fastamr.ops.adamw_update`. Computes in the parameters' dtype.

    Lists have one entry per parameter; ``working`` may be empty.

    Returns:
        The norm of the unscaled gradients before clipping, float32; None without ``max_norm``.
    """
    gradients = [each.to(p.dtype) for each, p in zip(gradients, parameters, strict=True)]
    if grad_scale is not None:
        gradients = [each / grad_scale.reshape(()) for each in gradients]
    norm = None
    if max_norm is not None:
        norm = global_norm(gradients)
        # As torch.nn.utils.clip_grad_norm_: a norm that is not finite makes the factor 0 or NaN.
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        gradients = [each * factor for each in gradients]
    skip = None if found_inf is None else found_inf.reshape(()) != 0

    def write(target: Tensor, value: Tensor) -> None:
        target.copy_(value if skip is None else torch.where(skip, target, value))

    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        write(steps[i], steps[i] + 1)
        write(exp_avgs[i], torch.lerp(exp_avgs[i], gradient, 1 - beta1))
        write(exp_avg_sqs[i], beta2 * exp_avg_sqs[i] + (1 - beta2) * gradient * gradient)
        step, lr = (each[i].double().reshape(()) for each in (steps, lrs))
        size, root = lr / (1 - beta1**step), (1 - beta2**step).sqrt()
        decayed = parameter * (1 - lr * weight_decays[i]).to(parameter.dtype)
        denominator = exp_avg_sqs[i].sqrt() / root.to(parameter.dtype) + eps
        write(parameter, decayed - size.to(parameter.dtype) * (exp_avgs[i] / denominator))
        if working:
            write(working[i], parameter.to(working[i].dtype))
    return None if norm is None else norm.float()
