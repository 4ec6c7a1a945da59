"""Where an encoder looks: attention over the joints and the time of a clip.

The fused attention does not keep its weights, so they are computed again from the queries and keys of each block.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import SkeletonModel
from ..nn.self_distillation.rotary_block import RotaryAttention
from .clip import Overlay
from .figures import figure_text, new_figure, save_figure
from .overlays import ModelClip, tokens_there
from .skeleton_drawing import Stage

_PANELS = 6


def attention_weights(
    model: SkeletonModel,
    clips: Tensor,
    valid: Tensor | None = None,
    joints: Sequence[int] | None = None,
) -> Tensor:
    """Return the attention of an encoder, all tokens visible, averaged over blocks and heads.

    Args:
        model: its encoder has ``blocks`` with self-attention ``attn.qkv``.
        clips: ``(M, T, V, C)``.
        valid: ``(M, T, V)`` bool or None.
        joints: the joints that every sequence has, see :meth:`fastamr.models.SkeletonModel.encode`.

    Returns:
        ``(M, N, N)``: row by row, how a token spreads its attention over all tokens; each row adds up to 1. With the
        layout ``body`` NaN in the rows and columns of tokens that there are not.

    Raises:
        ValueError: a model without such blocks.
    """
    blocks = getattr(getattr(model, "encoder", None), "blocks", None)
    if not blocks or not all(hasattr(getattr(block, "attn", None), "qkv") for block in blocks):
        raise ValueError(
            f"the attention of a {type(model).__name__} cannot be read: it has no self-attention blocks"
        )
    if any(isinstance(block.attn, RotaryAttention) for block in blocks):
        raise ValueError(
            f"the attention of a {type(model).__name__} cannot be read: its queries and keys turn with time behind "
            "their projection; --embedding and --confusion show the model"
        )
    total: list[Tensor] = []

    def read(module: Any, _: Any, output: Tensor) -> None:
        attention = owners[module]
        query, key, _value = output.unflatten(-1, (3, attention.heads, attention.size)).unbind(-3)
        q, k = query[0].float(), key[0].float()
        total.append((q.transpose(0, 1) @ k.permute(1, 2, 0) / attention.size**0.5).softmax(-1).mean(0))
        if len(total) > 1:
            total[0] += total.pop()

    owners = {block.attn.qkv: block.attn for block in blocks}
    hooks = [layer.register_forward_hook(read) for layer in owners]
    training = model.training
    there = tokens_there(model, valid, len(clips), joints)
    settings: dict[str, Any] = {} if joints is None else {"joints": joints}
    maps = []
    try:
        model.eval()
        # One body at a time: 750 tokens have 8 maps of 562,500 weights, and each has tokens of its own.
        for body in range(len(clips)):
            one = slice(body, body + 1)
            with torch.inference_mode():
                model.encode(clips[one], valid=None if valid is None else valid[one], **settings)
            found = total.pop() / len(blocks)
            maps.append(found if there is None else _over_all(found, there[body]))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return torch.stack(maps)


def _over_all(weights: Tensor, there: Tensor) -> Tensor:
    """Return weights of the tokens that there are ``(N', N')`` among all N, NaN for the others."""
    places = there.nonzero()[:, 0]
    whole = weights.new_full((len(there), len(there)), torch.nan)
    whole[places[:, None], places] = weights
    return whole


def received(weights: Tensor, joints: int) -> NDArray[np.float32]:
    """Return ``(M, T/l, V)``: the attention that each token receives, a multiple of its even share; NaN: no token."""
    count = (~weights.isnan()).any(2).sum(1, keepdim=True)
    share = weights.nanmean(1) * count
    return share.unflatten(1, (-1, joints)).numpy().astype(np.float32)


def draw_attention(
    path: str | Path,
    model: SkeletonModel,
    given: ModelClip,
    *,
    unit: str | None = None,
    joints: Sequence[int] | None = None,
    **view: Any,
) -> None:
    """Draw how much attention each joint receives: on the skeleton over time, and as a map of joints and time.

    Args:
        path: the picture.
        model: the model.
        given: the clip.
        unit: of the coordinates; None = the clip's.
        joints: see :func:`attention_weights`.
        view: options of :class:`~fastamr.visualization.skeleton_drawing.Stage`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: a model whose attention cannot be read.
    """
    clips, valid = model.prepare(given.clips, given.valid)
    maps = received(attention_weights(model, clips, valid, joints), model.config.joints)
    length = model.config.patch_frames
    low, high = float(np.nanmin(maps)), float(np.nanmax(maps))
    rows = np.flatnonzero(~np.isnan(maps).all((0, 1)))
    text = (
        f"attention received in the encoder of {type(model).__name__}, mean over {len(model.encoder.blocks)} blocks "
        f"and {model.config.heads} heads, all tokens visible; 1 = an even share"
    )
    overlay = Overlay(
        "values", maps.repeat(length, axis=1).transpose(1, 0, 2), text, "attention / even share", (low, high)
    )
    stage = Stage(given.shown, overlay, **view)
    bodies = len(maps)
    height = max(2.6, 0.14 * len(rows) + 0.8)
    figure = new_figure(12.5, 3.4 + height)
    parts: Any = figure.subfigures(2, 1, height_ratios=[3.4, height])
    upper, lower = parts
    columns = min(_PANELS, maps.shape[1])
    grid = upper.add_gridspec(1, columns)
    for place, patch in enumerate(np.linspace(0, maps.shape[1] - 1, columns).round().astype(int).tolist()):
        axes = stage.add_axes(upper, grid[0, place])
        stage.draw(axes, patch * length + length // 2, size=0.75)
        axes.set_title(f"frame {patch * length + length // 2}", fontsize=8)
        if place:
            stage.bare(axes)
        else:
            stage.label_axes(axes, stage.clip.unit if unit is None else unit, ticks=2)
    upper.suptitle(f"{figure_text(stage.clip.title)}\n{text}", fontsize=10)
    handles = stage.legend()
    upper.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    for body, axes in enumerate(np.atleast_1d(lower.subplots(1, bodies, sharey=True))):
        image = axes.imshow(
            maps[body].T[rows], aspect="auto", cmap="viridis", vmin=low, vmax=high, interpolation="nearest",
            extent=(0, maps.shape[1] * length, len(rows) - 0.5, -0.5),
        )  # fmt: skip
        axes.set_xlabel("frame of the model's clip")
        axes.set_title(f"body {body + 1}: every token (a joint over {length} frames)", fontsize=8)
        if body == 0:
            names = [figure_text(model.layout.joints[row]) for row in rows]
            axes.set_yticks(range(len(rows)), names, fontsize=6)
            axes.set_ylabel("joint")
    lower.colorbar(image, ax=lower.axes, pad=0.01).set_label("attention / even share", fontsize=8)
    save_figure(figure, path)
