"""SLiM's encoder: class token and registers beside the patches, rotated by time; and its teacher, a slow copy."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from ...nn import learned_embedding
from ...nn.self_distillation.rotary_block import RotaryBlock, rotation_table
from .slim_config import SLiMConfig


class JointPatchEmbed(nn.Module):
    """Embed patches of one joint; what a hidden token shows is replaced, its joint stays known.

    Args:
        config: the model's configuration.
    """

    no_decay = ("joint_embed", "mask_token")

    def __init__(self, config: SLiMConfig) -> None:
        super().__init__()
        self.patch_frames = config.patch_frames
        self.proj = nn.Linear(config.patch_frames * config.channels, config.width)
        self.joint_embed = learned_embedding(1, config.joints, config.width)
        self.mask_token = learned_embedding(1, 1, config.width)

    def forward(self, clips: Tensor, hidden: Tensor | None = None, joints: Tensor | None = None) -> Tensor:
        """``(S, T, V', C)`` to tokens ``(S, N', D)``, with the mask token where ``hidden (S, N')`` is true.

        The clips hold the listed ``joints (V',)`` int64; None = all.
        """
        patches = clips.unflatten(1, (-1, self.patch_frames)).transpose(2, 3).flatten(3)
        tokens = self.proj(patches.to(self.proj.weight.dtype))
        if hidden is not None:
            shape = tokens.shape[:-1]
            tokens = torch.where(hidden.view(*shape, 1), self.mask_token.to(tokens.dtype), tokens)
        embed = self.joint_embed if joints is None else self.joint_embed.index_select(1, joints)
        return (tokens + embed).flatten(1, 2)


class RegisterEncoder(nn.Module):
    """Class token, registers and patches through rotary blocks with SwiGLU, and a final LayerNorm.

    Args:
        config: the model's configuration.
    """

    no_decay = ("class_token", "registers")
    rotation: Tensor

    def __init__(self, config: SLiMConfig) -> None:
        super().__init__()
        self.joints = config.joints
        self.embed = JointPatchEmbed(config)
        self.class_token = learned_embedding(1, 1, config.width)
        self.registers = learned_embedding(1, config.registers, config.width)
        self.blocks = nn.ModuleList(
            RotaryBlock(config.width, config.heads, mlp_ratio=config.mlp_ratio, backend=config.attention)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width)
        by_time = rotation_table(config.times, config.width // config.heads, base=config.rope_base)
        # Class token and registers have no time: they are turned by nothing.
        still = torch.stack([torch.ones_like(by_time[0, :1]), torch.zeros_like(by_time[0, :1])])
        first = still.expand(-1, 1 + config.registers, -1)
        table = torch.cat([first, by_time.repeat_interleave(config.joints, dim=1)], dim=1)
        self.register_buffer("rotation", table, persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        """Tokens ``(S, N, D)`` of whole clips or of shorter ones ``(S, T, V, C)``."""
        return self.with_class(clips)[1]

    def with_class(
        self,
        clips: Tensor,
        hidden: Tensor | None = None,
        *,
        joints: Tensor | None = None,
        known: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Class token ``(S, D)`` and patches ``(S, N', D)``.

        Args:
            clips: ``(S, T, V', C)``, of whole clips or of shorter ones.
            hidden: ``(S, N')`` bool, tokens that are not seen, of which only joint and time are known.
            joints: ``(V',)`` int64, the joints of the clips, ascending; None = all of the layout.
            known: ``(S, N')`` bool, the tokens that there are: the others are attended to by none, and what becomes of
                them has no meaning. None = all.
        """
        patches = self.embed(clips, hidden, joints)
        first = torch.cat([self.class_token, self.registers], dim=1).expand(patches.shape[0], -1, -1)
        x = torch.cat([first, patches], dim=1)
        rotation = self._turns(first.shape[1], clips.shape[1] // self.embed.patch_frames, clips.shape[2])
        if known is not None:
            known = torch.cat([known.new_ones(first.shape[:2]), known], dim=1)
        for block in self.blocks:
            x = block(x, rotation, known)
        x = self.norm(x)
        return x[:, 0], x[:, first.shape[1] :]

    def _turns(self, first: int, times: int, joints: int) -> Tensor:
        """The rotation ``(2, first + times * joints, E/2)`` of class token, registers and patches of some joints."""
        if joints == self.joints:
            return self.rotation[:, : first + times * joints]
        by_time = self.rotation[:, first :: self.joints][:, :times]
        return torch.cat([self.rotation[:, :first], by_time.repeat_interleave(joints, dim=1)], dim=1)


class Teacher(nn.Module):
    """A slow copy of modules, whose weights are buffers: saved and skipped with the others, trained by nobody.

    Args:
        modules: what is copied, by name.
    """

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            copied = copy.deepcopy(module)
            for part in copied.modules():
                for leaf, parameter in list(part.named_parameters(recurse=False)):
                    delattr(part, leaf)
                    part.register_buffer(leaf, parameter.detach().clone())
            self.add_module(name, copied)

    @torch.no_grad()
    def follow(self, momentum: float, **modules: nn.Module) -> None:
        """Move towards the students: ``teacher + (1 - momentum) * (student - teacher)``, in place.

        Args:
            momentum: share of the teacher that stays.
            modules: the students, by the names of the copies.
        """
        own, others = [], []
        for name, module in modules.items():
            copied = cast(nn.Module, getattr(self, name))
            for path, parameter in module.named_parameters():
                own.append(copied.get_buffer(path))
                others.append(parameter.detach())
        torch._foreach_lerp_(own, others, 1 - momentum)
