from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastamr import ops
from fastamr.testing import assert_as_good_as, random_clips


def make(
    sequences: int,
    frames: int,
    joints: int,
    channels: int,
    patch: int,
    visible: int,
    width: int,
    dtype: torch.dtype,
) -> tuple:
    clips = random_clips(sequences, frames, joints, channels, dtype=dtype)
    tokens = frames // patch * joints
    keep = ops.select_visible(ops.make_seed(), sequences, tokens, visible)
    parameters = [torch.randn(width, patch * channels), torch.randn(width), torch.randn(tokens, width)]
    return clips, keep, *[p.to(dtype).requires_grad_() for p in parameters]


def embed_all_then_gather(clips, keep, weight, bias, position, patch: int) -> torch.Tensor:
    """What the op replaces: embed every token, add positions, gather."""
    sequences, frames, _, channels = clips.shape
    patches = clips.unflatten(1, (frames // patch, patch)).permute(0, 1, 3, 2, 4)
    tokens = F.linear(patches.reshape(sequences, -1, patch * channels), weight, bias) + position
    return tokens.gather(1, keep.long()[..., None].expand(-1, -1, weight.shape[0]))


SHAPES = [(2, 8, 3, 3, 4, 2, 5), (3, 12, 7, 2, 3, 28, 16), (1, 120, 25, 3, 4, 75, 32), (2, 4, 1, 3, 4, 1, 8)]


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_embedding_everything(shape: tuple[int, ...]) -> None:
    arguments = make(*shape, dtype=torch.float64)
    found = ops.masked_patch_gather(*arguments, patch_frames=shape[4])
    expected = embed_all_then_gather(*arguments, shape[4])
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    gradients = torch.autograd.grad(found, arguments[2:], upstream)
    for mine, theirs in zip(gradients, torch.autograd.grad(expected, arguments[2:], upstream), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_as_exact_as_pytorch(dtype: torch.dtype) -> None:
    clips, keep, *parameters = make(2, 24, 5, 3, 4, 9, 16, dtype)
    found = ops.masked_patch_gather(clips, keep, *parameters, patch_frames=4)
    truth = embed_all_then_gather(clips.double(), keep, *[p.double() for p in parameters], 4)
    peer = embed_all_then_gather(clips, keep, *parameters, 4)
    assert found.dtype == torch.float32
    assert_as_good_as(found, truth, peer)


def test_gradcheck_first_and_second_order() -> None:
    clips, keep, *parameters = make(2, 8, 3, 2, 4, 4, 5, torch.float64)

    def function(*p: torch.Tensor) -> torch.Tensor:
        return ops.masked_patch_gather(clips, keep, *p, patch_frames=4)

    assert torch.autograd.gradcheck(function, parameters)
    assert torch.autograd.gradgradcheck(function, parameters)


def test_repeated_tokens_add_their_gradients() -> None:
    clips, _, weight, bias, position = make(1, 8, 3, 3, 4, 2, 4, torch.float64)
    keep = torch.tensor([[2, 2, 5]])
    found = ops.masked_patch_gather(clips, keep, weight, bias, position, patch_frames=4)
    (gradient,) = torch.autograd.grad(found.sum(), position)
    assert gradient.sum(1).tolist() == [0, 0, 8, 0, 0, 4]


def test_autocast_casts_only_the_tokens() -> None:
    """Under bfloat16 autocast the product stays float32: coordinates at 3 m would be off by 16 mm otherwise."""
    clips, keep, *parameters = make(2, 8, 3, 3, 4, 3, 16, torch.float32)
    exact = ops.masked_patch_gather(clips, keep, *parameters, patch_frames=4)
    with torch.autocast("cpu", torch.bfloat16):
        cast = ops.masked_patch_gather(clips, keep, *parameters, patch_frames=4)
        kept = ops.masked_patch_gather(clips, keep, *parameters, patch_frames=4, out_dtype=torch.float32)
    assert cast.dtype == torch.bfloat16
    assert torch.equal(cast, exact.bfloat16())
    assert torch.equal(kept, exact)


def test_inputs_of_other_layouts() -> None:
    clips, keep, weight, bias, position = make(2, 8, 3, 3, 4, 3, 16, torch.float64)
    expected = ops.masked_patch_gather(clips, keep, weight, bias, position, patch_frames=4)
    strided = clips.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    found = ops.masked_patch_gather(
        strided, keep.long(), weight.T.contiguous().T, bias, position, patch_frames=4
    )
    torch.testing.assert_close(found, expected)
    # .sum() sends a stride-0 gradient into the backward.
    (gradient,) = torch.autograd.grad(found.sum(), bias)
    torch.testing.assert_close(gradient, torch.full_like(bias, 6.0))
    empty = ops.masked_patch_gather(clips[:0], keep[:0], weight, bias, position, patch_frames=4)
    assert empty.shape == (0, 3, 16)
    assert torch.autograd.grad(empty.sum(), weight)[0].abs().sum() == 0


def test_errors() -> None:
    clips, keep, weight, bias, position = make(2, 8, 3, 3, 4, 3, 16, torch.float32)
    with pytest.raises(ValueError, match="weight must have shape"):
        ops.masked_patch_gather(clips, keep, weight[:, :5], bias, position, patch_frames=4)
    with pytest.raises(ValueError, match="bias must have shape"):
        ops.masked_patch_gather(clips, keep, weight, bias[:3], position, patch_frames=4)
    with pytest.raises(ValueError, match="position must have shape"):
        ops.masked_patch_gather(clips, keep, weight, bias, position[:3], patch_frames=4)
    with pytest.raises(TypeError, match="position is"):
        ops.masked_patch_gather(clips, keep, weight, bias, position.double(), patch_frames=4)
    with pytest.raises(ValueError, match="patch_frames=3"):
        ops.masked_patch_gather(clips, keep, weight, bias, position, patch_frames=3)
