"""Checkpoints of MAMP's public code, against an independent statement of that model."""

from __future__ import annotations

import argparse
import math
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from fastamr import MAMPModel, SkeletonLayout, SkeletonMAEModel
from fastamr.testing import random_clips

FRAMES, JOINTS, WIDTH, HEADS, PATCH = 24, 5, 16, 4, 4
CHAIN = SkeletonLayout("chain", ("a", "b", "c", "d", "e"), (-1, 0, 1, 2, 3))


def released_state(
    depth: int = 2, decoder_depth: int = 3, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Random weights under the public code's names and in its shapes."""
    times = FRAMES // PATCH
    shapes: dict[str, tuple[int, ...]] = {
        "joints_embed.proj.weight": (WIDTH, 3, PATCH, 1),
        "joints_embed.proj.bias": (WIDTH,),
        "temp_embed": (1, times, 1, WIDTH),
        "pos_embed": (1, 1, JOINTS, WIDTH),
        "mask_token": (1, 1, WIDTH),
        "decoder_temp_embed": (1, times, 1, WIDTH),
        "decoder_pos_embed": (1, 1, JOINTS, WIDTH),
        "decoder_embed.weight": (WIDTH, WIDTH),
        "decoder_embed.bias": (WIDTH,),
        "decoder_pred.weight": (PATCH * 3, WIDTH),
        "decoder_pred.bias": (PATCH * 3,),
    }
    for norm in ("norm", "decoder_norm"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for prefix, count in (("blocks", depth), ("decoder_blocks", decoder_depth)):
        for index in range(count):
            for layer, (rows, columns) in {
                "attn.qkv": (3 * WIDTH, WIDTH),
                "attn.proj": (WIDTH, WIDTH),
                "mlp.fc1": (4 * WIDTH, WIDTH),
                "mlp.fc2": (WIDTH, 4 * WIDTH),
            }.items():
                shapes[f"{prefix}.{index}.{layer}.weight"] = (rows, columns)
                shapes[f"{prefix}.{index}.{layer}.bias"] = (rows,)
            for norm in ("norm1", "norm2"):
                shapes |= {f"{prefix}.{index}.{norm}.{part}": (WIDTH,) for part in ("weight", "bias")}
    return {name: torch.randn(shape, dtype=dtype) * 0.3 for name, shape in shapes.items()}


def transformer(state: dict[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    """Pre-norm blocks, one sequence ``(N, D)``, head by head."""
    size, index = WIDTH // HEADS, 0
    while f"{prefix}.{index}.norm1.weight" in state:

        def part(name: str, index: int = index) -> tuple[Tensor, Tensor]:
            return state[f"{prefix}.{index}.{name}.weight"], state[f"{prefix}.{index}.{name}.bias"]

        weight, bias = part("attn.qkv")
        packed = layer_norm(x, (WIDTH,), *part("norm1")) @ weight.T + bias
        heads = []
        for head in range(HEADS):
            q, k, v = (packed[:, i * WIDTH + head * size : i * WIDTH + (head + 1) * size] for i in range(3))
            heads.append(torch.softmax(q @ k.T / math.sqrt(size), dim=1) @ v)
        weight, bias = part("attn.proj")
        x = x + torch.cat(heads, dim=1) @ weight.T + bias
        weight, bias = part("mlp.fc1")
        inner = gelu(layer_norm(x, (WIDTH,), *part("norm2")) @ weight.T + bias)
        weight, bias = part("mlp.fc2")
        x = x + inner @ weight.T + bias
        index += 1
    return x


def restated_loss(state: dict[str, Tensor], clips: Tensor, keep: Tensor, *, motion: bool) -> Tensor:
    """The public model's loss for given visible tokens, one sequence after the other, patch by patch."""
    errors, count = torch.zeros((), dtype=clips.dtype), 0
    places = [(time, joint) for time in range(FRAMES // PATCH) for joint in range(JOINTS)]
    for clip, visible in zip(clips, keep.tolist(), strict=True):
        kernel = state["joints_embed.proj.weight"][..., 0]
        tokens = [
            (kernel * clip[PATCH * t : PATCH * (t + 1), j].T).sum((1, 2)) + state["joints_embed.proj.bias"]
            + state["temp_embed"][0, t, 0] + state["pos_embed"][0, 0, j]
            for t, j in (places[n] for n in visible)
        ]  # fmt: skip
        x = transformer(state, "blocks", torch.stack(tokens))
        x = layer_norm(x, (WIDTH,), state["norm.weight"], state["norm.bias"])
        x = x @ state["decoder_embed.weight"].T + state["decoder_embed.bias"]
        rows = []
        for n, (t, j) in enumerate(places):
            row = x[visible.index(n)] if n in visible else state["mask_token"][0, 0]
            rows.append(row + state["decoder_temp_embed"][0, t, 0] + state["decoder_pos_embed"][0, 0, j])
        x = transformer(state, "decoder_blocks", torch.stack(rows))
        x = layer_norm(x, (WIDTH,), state["decoder_norm.weight"], state["decoder_norm.bias"])
        prediction = x @ state["decoder_pred.weight"].T + state["decoder_pred.bias"]
        values = clip
        if motion:
            values = torch.cat([clip[1:] - clip[:-1], torch.zeros_like(clip[:1])])
        for n, (t, j) in enumerate(places):
            if n not in visible:
                target = values[PATCH * t : PATCH * (t + 1), j].reshape(-1)
                target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
                errors, count = errors + (prediction[n] - target).square().mean(), count + 1
    return errors / count


def namespace(model: str = "model_mamp.transformer.Transformer", **changes: object) -> argparse.Namespace:
    sizes = {"dim_feat": WIDTH, "num_heads": HEADS, "norm_skes_loss": True, "qk_scale": "None"}
    values = {
        "model": model,
        "model_args": sizes,
        "mask_ratio": 0.8,
        "motion_stride": 1,
        "motion_aware_tau": 0.7,
    }
    return argparse.Namespace(**(values | {"lr": 1e-3, "output_dir": "out", "resume": None} | changes))


def save(path: Path, state: dict[str, Tensor], args: argparse.Namespace | None = None) -> Path:
    torch.save({"model": state, "epoch": 399, "optimizer": {"state": {}}, "args": args or namespace()}, path)
    return path


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("cls", [MAMPModel, SkeletonMAEModel])
def test_loss_equals_the_public_models(tmp_path: Path, cls: type, dtype: torch.dtype) -> None:
    state, clips = released_state(), random_clips(3, FRAMES, JOINTS, dtype=torch.float64)
    module = "model_mamp" if cls is MAMPModel else "model_mae"
    path = save(tmp_path / "c.pth", state, namespace(f"{module}.transformer.Transformer"))
    model = cls.from_released(path, layout=CHAIN).to(dtype)
    if dtype == torch.float64:
        # Loading rounds to the float32 of a model; this test is of the arithmetic.
        state = {name: value.float().double() for name, value in state.items()}
    out = model(clips.to(dtype), generator=torch.Generator().manual_seed(1), return_details=True)
    assert out.keep.shape == (3, int(30 * (1 - 0.8)))
    expected = restated_loss(state, clips, out.keep, motion=cls is MAMPModel)
    tolerance = {"rtol": 1e-10, "atol": 0} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 0}
    torch.testing.assert_close(out.loss.double(), expected, **tolerance)


@pytest.mark.parametrize("decoder_depth", [3, 5])
def test_eight_blocks_with_three_or_five_and_the_settings_load(tmp_path: Path, decoder_depth: int) -> None:
    path = save(tmp_path / "c.pth", released_state(8, decoder_depth, torch.float32))
    config = MAMPModel.from_released(path, layout=CHAIN).config
    assert (config.depth, config.decoder_depth, config.width, config.decoder_width) == (
        8,
        decoder_depth,
        16,
        16,
    )
    assert (config.frames, config.patch_frames, config.channels, config.mlp_ratio) == (24, 4, 3, 4.0)
    assert (config.heads, config.decoder_heads, config.mask_ratio, config.mask_tau) == (4, 4, 0.8, 0.7)
    assert (config.target, config.masking, config.normalize) == ("motion", "motion", "patch")


def test_a_bare_state_dict_keeps_the_defaults_and_options_win(tmp_path: Path) -> None:
    torch.save(released_state(dtype=torch.float32), tmp_path / "bare.pth")
    config = MAMPModel.from_released(tmp_path / "bare.pth", layout=CHAIN, mask_tau=0.75).config
    assert (config.heads, config.mask_ratio, config.mask_tau) == (8, 0.9, 0.75)
    assert config.visible == int(30 * (1 - 0.9)) == 2
    random = save(tmp_path / "c.pth", released_state(), namespace(motion_aware_tau=0))
    assert MAMPModel.from_released(random, layout=CHAIN).config.masking == "random"
    plain = namespace()
    plain.model_args["norm_skes_loss"] = False
    path = save(tmp_path / "d.pth", released_state(), plain)
    assert MAMPModel.from_released(path, layout=CHAIN).config.normalize == "none"


def test_as_released_74_of_750_tokens_stay_visible() -> None:
    assert MAMPModel().config.visible == 74
    assert SkeletonMAEModel().config.visible == 75
    assert SkeletonMAEModel(visible_rounding="down").config.visible == 74


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    state, path = released_state(), tmp_path / "c.pth"

    def load(changed: dict[str, Tensor], **options: object) -> MAMPModel:
        return MAMPModel.from_released(save(path, changed), **{"layout": CHAIN, **options})

    lacking = {name: value for name, value in state.items() if name != "blocks.1.mlp.fc2.bias"}
    with pytest.raises(ValueError, match=r"lacks 'blocks\.1\.mlp\.fc2\.bias': expected a pre-training"):
        load(lacking)
    with pytest.raises(ValueError, match=r"holds the unexpected 'head\.bias', 'head\.weight'"):
        load({**state, "head.weight": torch.zeros(60, 16), "head.bias": torch.zeros(60)})
    encoder = {name: value for name, value in state.items() if "decoder" not in name}
    with pytest.raises(ValueError, match=r"lacks 'decoder_temp_embed', .* and \d+ more"):
        load(encoder)
    with pytest.raises(ValueError, match=r"lacks 'joints_embed\.proj\.weight'"):
        load({"fc.weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"'pos_embed' has shape \(1, 1, 5, 16\).*pass its layout"):
        load(state, layout="ntu25")
    with pytest.raises(ValueError, match="its tokens span 5 joints"):
        load({**state, "joints_embed.proj.weight": torch.zeros(16, 3, 4, 5)})
    with pytest.raises(ValueError, match="has 3 dimensions, expected 4"):
        load({**state, "temp_embed": torch.zeros(6, 1, 16)})
    with pytest.raises(
        ValueError, match=r"written by 'model_mamp\.transformer\.Transformer', which is not a SkeletonMAE"
    ):
        SkeletonMAEModel.from_released(path, layout=CHAIN)


class Evil:
    """Runs when it is unpickled by a loader that lets it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('ran')",)


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        MAMPModel.from_released(path)
    torch.save({"model": released_state(), "args": Evil()}, path)
    with pytest.raises(ValueError, match="nothing else is loaded"):
        MAMPModel.from_released(path)
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(ValueError, match=r"nothing else is loaded|truncated or damaged"):
        MAMPModel.from_released(path)
    save(path, released_state())
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="truncated or damaged"):
        MAMPModel.from_released(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="truncated or damaged"):
        MAMPModel.from_released(path)
    for content in ([1, 2], {"epoch": 3}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="holds no weights"):
            MAMPModel.from_released(path)


def test_a_released_model_is_saved_and_loaded_like_any_other(tmp_path: Path) -> None:
    model = MAMPModel.from_released(save(tmp_path / "c.pth", released_state()), layout=CHAIN)
    model.save_pretrained(tmp_path / "run")
    clips, seed = random_clips(2, FRAMES, JOINTS), torch.tensor([1, 0])
    assert torch.equal(MAMPModel.from_pretrained(tmp_path / "run")(clips, seed=seed), model(clips, seed=seed))
