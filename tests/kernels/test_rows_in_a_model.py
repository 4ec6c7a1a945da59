"""A model whose stacks run on the kernels has the loss and the gradients of the model of plain blocks."""

from __future__ import annotations

import pytest
import torch

import fastamr
from fastamr.testing import random_clips, relative_error

PRODUCTS = ("linear_gelu", "linear_residual_norm", "weight_gradient")


def loss_and_gradient(
    device: torch.device, dtype: torch.dtype, **backends: str
) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    sizes = {"depth": 2, "heads": 3, "decoder_depth": 2, "decoder_heads": 3}
    model = fastamr.AMRModel(frames=24, width=48, decoder_width=48, **sizes).to(device)
    clips, seed = random_clips(2, 24, device=device), torch.tensor([1, 0], device=device)
    with fastamr.backend("reference", **backends):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = model(clips, seed=seed)
        loss.backward()
    return loss.detach(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("products", ["triton", "torch"])
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 3e-6), (torch.bfloat16, 2e-2)])
def test_a_step_of_amr(dtype: torch.dtype, allowed: float, products: str, device: torch.device) -> None:
    """With the products inside the kernels, and with PyTorch's products and the kernels that pass over them."""
    truth = loss_and_gradient(device, torch.float32)
    backends = {**dict.fromkeys(PRODUCTS, products), "row_norm": "triton", "row_linear": "torch"}
    found = loss_and_gradient(device, dtype, transformer_stack="fused", **backends)
    for value, exact in zip(found, truth, strict=True):
        assert relative_error(value, exact) < allowed
