"""What SLiM draws for each sequence: hidden tubes, tokens of the loss, short crops, mirrored bodies, other bones."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import ops
from ...ops.common.precision import exact
from ...reference.philox import STREAM_VIEWS, philox_words
from .masking import token_validity
from .presence import ancestors, nearest_above, over_times
from .slim_config import SLiMConfig

# Bones change by whole parts of the bound, so that a draw is a whole number.
_STEPS = 1 << 15


class Draws(NamedTuple):
    """The draws of S sequences; A views, of which the first G are global, L local. V joints and N tokens are present.

    Attributes:
        tubes: ``(S, G, U)``, 1 where a tube is hidden.
        targets: ``(S, G, Q)``, tokens of the loss among those that are present, ascending.
        starts: ``(S, L)``, first frames of the local crops.
        mirrored: ``(S, A)``, 1 where left and right are exchanged.
        bones: ``(S, A, V)``, change of the bone that ends in a joint, in steps of ``bone_scale / 32768``.
    """

    tubes: Tensor
    targets: Tensor
    starts: Tensor
    mirrored: Tensor
    bones: Tensor


class Views(NamedTuple):
    """The views of a batch, sequence by sequence.

    Attributes:
        whole: ``(S*G, T, V, C)``.
        local: ``(S*L, T', V, C)``, or None where L is 0.
        hidden: ``(S*G, N)`` bool, what the student does not see of the global views.
        known: ``(S*G, N)`` bool, valid tokens of the global views, or None for all.
        known_local: ``(S*L, N')`` bool, those of the local ones.
        there: ``(S*G, N)`` bool, tokens that there are: of the joints that the sequence has, exchanged with those of
            the other side where the view is mirrored. None for all.
        there_local: ``(S*L, N')`` bool, those of the local ones.
    """

    whole: Tensor
    local: Tensor | None
    hidden: Tensor
    known: Tensor | None
    known_local: Tensor | None
    there: Tensor | None = None
    there_local: Tensor | None = None


class ViewMaker(nn.Module):
    """Draws views and makes them, of the joints that are present. Its tables lie on the model's device, unsaved.

    A bone goes from a joint to the nearest joint above it in the layout's tree that is present, and that the sequence
    has where sequences of the layout ``body`` differ: a joint that is not there has no coordinates.

    Args:
        config: the model's configuration.
    """

    tube_of_token: Tensor
    has_region: Tensor
    mirror_of: Tensor
    parent_of: Tensor
    with_parent: Tensor
    path: Tensor
    depth: Tensor
    sides: Tensor

    def __init__(self, config: SLiMConfig) -> None:
        super().__init__()
        self.config = config
        layout, joints = config.skeleton, config.present_joints
        place = {joint: number for number, joint in enumerate(joints)}
        pairs = [pair for pair in layout.pairs if pair[0] in place or pair[1] in place]
        whole = all(left in place and right in place for left, right in pairs)
        mirror = list(range(len(joints)))
        for left, right in pairs if whole else ():
            mirror[place[left]], mirror[place[right]] = place[right], place[left]
        self.mirror = config.mirror if pairs and whole else 0.0
        path = ancestors(layout, joints)
        parents, with_parent = nearest_above(path, path.sum(1), None)
        tables = {
            "tube_of_token": torch.tensor(config.tube_of_token),
            "has_region": functional.one_hot(torch.tensor(config.region_of_joint)).float(),
            "mirror_of": torch.tensor(mirror),
            "parent_of": parents,
            "with_parent": with_parent,
            "path": path,
            "depth": path.sum(1),
            "sides": torch.tensor([-1.0, *[1.0] * (config.channels - 1)]),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of :class:`Draws` without S, in order."""
        config = self.config
        return (
            (config.global_views, config.tubes),
            (config.global_views, config.loss_tokens),
            (config.local_crops,),
            (config.views,),
            (config.views, len(config.present_joints)),
        )

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Smallest and largest value of each of :class:`Draws`."""
        config = self.config
        return (
            (0, 1),
            (0, config.present_tokens - 1),
            (0, config.frames - config.crop_frames),
            (0, 1),
            (-_STEPS, _STEPS),
        )

    def draw(self, seed: Tensor, sequences: int, valid: Tensor | None, seen: Tensor | None = None) -> Tensor:
        """Draw the views.

        Args:
            seed: ``(2,)`` int64, or ``(3,)`` with the number of the first sequence.
            sequences: S.
            valid: ``(S, T, V)`` bool; tokens that are not valid enter the loss only where no other hidden one is left,
                and count nothing there.
            seen: ``(S, V)`` bool, the joints that each sequence has: tubes are drawn among those in which there are
                any. None for all.

        Returns:
            ``(S, K)`` int32: :class:`Draws` side by side.
        """
        config = self.config
        shares, (low, high) = self._uniform(seed, sequences), config.tube_ratio
        order, ratio, start, mirrored, bones = (
            part.unflatten(1, size) if size else part
            for part, size in zip(
                shares.split(self._columns, dim=1), ((config.global_views, -1), (), (), (), (config.views, -1)),
                strict=True,
            )
        )  # fmt: skip
        mirror = (mirrored < self.mirror).long()
        there = self._tubes_there(seen, mirror[:, : config.global_views])
        total = config.tubes if there is None else there.sum(-1)
        order = order if there is None else torch.where(there, order, 2.0)
        count = ((low + (high - low) * ratio) * total).round()
        if isinstance(total, Tensor):
            count = count.minimum(total - 1).clamp(min=1)
        else:
            count = count.clamp(min=1, max=max(1, total - 1))
        tubes = (order.argsort(-1).argsort(-1) < count[..., None]).long()
        most = config.frames - config.crop_frames
        starts = (start * (most + 1)).long().clamp(max=most)
        steps = ((bones * 2 - 1) * _STEPS).round().long()
        draws = Draws(tubes, self._targets(seed, tubes, mirror, valid), starts, mirror, steps)
        return torch.cat([part.flatten(1) for part in draws], dim=1).int()

    @property
    def _columns(self) -> list[int]:
        config = self.config
        views = config.global_views
        bones = config.views * len(config.present_joints)
        return [views * config.tubes, views, config.local_crops, config.views, bones]

    def _tubes_there(self, seen: Tensor | None, mirrored: Tensor) -> Tensor | None:
        """Which tubes ``(S, G, U)`` bool there are in global views of sequences that have the joints ``(S, V)``."""
        if seen is None:
            return None
        own = self._exchanged(seen[:, None].expand(-1, mirrored.shape[1], -1), mirrored.bool()[..., None])
        regions = own.to(self.has_region.dtype) @ self.has_region > 0
        return regions.repeat(1, 1, self.config.tubes // regions.shape[-1])

    def _exchanged(self, joints: Tensor, swap: Tensor) -> Tensor:
        """Something of each joint ``(..., V)``, of the other side where ``swap (..., 1)``."""
        return torch.where(swap, joints[..., self.mirror_of], joints)

    def _uniform(self, seed: Tensor, sequences: int) -> Tensor:
        """Numbers in 0 to 1, without 1, ``(S, columns)`` float64."""
        rows = torch.arange(sequences, device=seed.device)
        if len(seed) == 3:
            rows = rows + seed[2]
        return philox_words(seed, rows, sum(self._columns), STREAM_VIEWS).double() / 2.0**32

    def _targets(self, seed: Tensor, tubes: Tensor, mirrored: Tensor, valid: Tensor | None) -> Tensor:
        config, views = self.config, self.config.global_views
        wanted = tubes[..., self.tube_of_token].bool().flatten(0, 1)
        if valid is not None:
            whole = valid.repeat_interleave(views, dim=0)
            swapped = mirrored[:, :views].flatten().bool()
            whole = self._exchanged(whole, swapped[:, None, None])
            wanted = wanted & token_validity(whole, config.patch_frames)
        if len(seed) == 3:  # of a sequence there are as many rows as views
            seed = torch.cat([seed[:2], seed[2:] * views])
        chosen = ops.select_visible(
            ops.derive_seed(seed, 1), len(wanted), config.present_tokens, config.loss_tokens, valid=wanted
        )
        return chosen.long().view(-1, views, config.loss_tokens)

    def split(self, keep: Tensor) -> Draws:
        """What :meth:`draw` returned, apart again, as int64."""
        lengths = [torch.Size(size).numel() for size in self.sizes]
        parts = keep.long().split(lengths, dim=1)
        return Draws(*(part.unflatten(1, size) for part, size in zip(parts, self.sizes, strict=True)))

    def forward(self, clips: Tensor, valid: Tensor | None, draws: Draws, seen: Tensor | None = None) -> Views:
        """Make the views of ``clips (S, T, V, C)``; what is not valid stays 0.

        The sequences have the joints ``seen (S, V)`` bool; None = all.
        """
        config, views = self.config, self.config.global_views
        whole, valid_whole, there = self._changed(
            clips.repeat_interleave(views, dim=0),
            None if valid is None else valid.repeat_interleave(views, dim=0),
            None if seen is None else seen.repeat_interleave(views, dim=0),
            draws.mirrored[:, :views].flatten(),
            draws.bones[:, :views].flatten(0, 1),
        )
        local, valid_local, there_local = None, None, None
        if config.local_crops:
            frames = draws.starts[..., None] + torch.arange(config.crop_frames, device=clips.device)
            rows = torch.arange(clips.shape[0], device=clips.device)[:, None, None]
            local, valid_local, there_local = self._changed(
                clips[rows, frames].flatten(0, 1),
                None if valid is None else valid[rows, frames].flatten(0, 1),
                None if seen is None else seen.repeat_interleave(config.local_crops, dim=0),
                draws.mirrored[:, views:].flatten(),
                draws.bones[:, views:].flatten(0, 1),
            )
        hidden = draws.tubes[..., self.tube_of_token].bool().flatten(0, 1)
        known, known_local = (
            None if part is None else token_validity(part, config.patch_frames)
            for part in (valid_whole, valid_local)
        )
        crop = config.crop_frames // config.patch_frames
        return Views(
            whole,
            local,
            hidden,
            known,
            known_local,
            None if there is None else over_times(there, config.times),
            None if there_local is None else over_times(there_local, crop),
        )

    def _changed(
        self, clips: Tensor, valid: Tensor | None, seen: Tensor | None, mirrored: Tensor, steps: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Scale the bones of ``clips (R, T, V, C)`` and mirror some of them at x = 0.

        The bodies have the joints ``seen (R, V)``, whose exchanged ones are returned last. A bone and its mirror image
        change alike (choice). A joint moves by the changes of all bones between it and its root; bones from or to a
        joint that is not valid do not change.
        """
        swap = mirrored.bool()[:, None, None]
        if self.config.bone_scale:
            # The smaller of both joints' numbers stands for the pair.
            own = torch.minimum(self.mirror_of, torch.arange(len(self.mirror_of), device=clips.device))
            parents, with_parent = self.parent_of, self.with_parent
            if seen is not None:
                parents, with_parent = nearest_above(self.path, self.depth, seen)
            change = (steps[:, own] * (self.config.bone_scale / _STEPS)).to(clips.dtype) * with_parent
            bones = (clips - _at(clips, parents)) * change[:, None, :, None]
            if valid is not None:
                bones = bones * (valid & _at(valid, parents))[..., None]
            with exact(clips):
                clips = clips + (bones.transpose(2, 3) @ self.path.T).transpose(2, 3)
            if valid is not None:
                clips = clips * valid[..., None]
        clips = torch.where(swap[..., None], clips[:, :, self.mirror_of] * self.sides, clips)
        return (
            clips,
            None if valid is None else self._exchanged(valid, swap),
            None if seen is None else self._exchanged(seen, swap[..., 0]),
        )


def _at(values: Tensor, joints: Tensor) -> Tensor:
    """Values ``(R, T, V, ...)`` of the listed joints ``(V,)``, or of those of each row ``(R, V)``."""
    if joints.ndim == 1:
        return values[:, :, joints]
    index = joints.view(len(joints), 1, -1, *[1] * (values.ndim - 3))
    return values.gather(2, index.expand(values.shape))
