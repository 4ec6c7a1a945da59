"""Batches of labelled clips on the device: all bodies of some clips, their labels, and whom to mix them with."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ...data.packed.ragged import ranges
from ...training.clips.augmentation import Augmentation
from ...training.clips.sampling import ClipSampler
from .recipe import FinetuneConfig

if TYPE_CHECKING:
    from ...features.clip_batches import ClipBatches


class LabelledBatch(NamedTuple):
    """What an update learns from; in several processes bodies are those of this one, and clips those of all.

    Attributes:
        clips: ``(S, T, V, C)`` float32, the bodies of some clips.
        valid: ``(S, T, V)`` bool, or None where the data has no mask.
        owner: ``(S,)`` int64, the clip in the batch of each body, 0 to B - 1; -1 where it only fills the batch up.
        labels: ``(B,)`` int64.
        counted: ``(B,)`` float32, 0 where a clip only fills the batch up; None = all count.
        partner: ``(B,)`` int64, the clip that each is mixed with; None without mix-up.
        share: what of itself each keeps, a scalar float32; None without mix-up.
        rows: place of the first body among those of all processes, and their number.
    """

    clips: Tensor
    valid: Tensor | None
    owner: Tensor
    labels: Tensor
    counted: Tensor | None
    partner: Tensor | None
    share: Tensor | None
    rows: tuple[int, int]


class LabelOrder:
    """The clips of every batch: each epoch holds each clip once, in batches of nearly one size.

    Everything follows from the seed and the number of the update.

    Args:
        clips: ``(N,)`` int64, the clips to train on.
        config: the recipe; its batch size is the largest there is.
        seed: fixes the order.

    Attributes:
        first: 0, see :class:`fastamr.training.clips.clip_streams.Order`.
        sizes: clips of each batch of an epoch.
    """

    first = 0

    def __init__(self, clips: Tensor, config: FinetuneConfig, seed: int) -> None:
        self.clips, self.seed = clips.cpu(), seed
        per_epoch = math.ceil(len(clips) / config.batch_size)
        # Batches of nearly one size instead of a small last one, which BatchNorm could not use.
        if config.hidden and len(clips) < 2 * per_epoch:
            per_epoch = len(clips) // 2
        self.sizes = torch.tensor([len(part) for part in torch.arange(len(clips)).tensor_split(per_epoch)])
        self._generator, self._made = torch.Generator().manual_seed(seed), -1
        self._order = self.clips

    @property
    def per_epoch(self) -> int:
        """Updates of an epoch."""
        return len(self.sizes)

    def epoch(self, number: int) -> Tensor:
        """Return the clips ``(N,)`` of an epoch, batch after batch."""
        if number < self._made:
            self._generator, self._made = torch.Generator().manual_seed(self.seed), -1
        while self._made < number:
            self._order = self.clips[torch.randperm(len(self.clips), generator=self._generator)]
            self._made += 1
        return self._order

    def batch(self, update: int) -> Tensor:
        """Return the clips of an update, counted from 0."""
        return self.epoch(update // self.per_epoch).split(self.sizes.tolist())[update % self.per_epoch]


class LabelledClips:
    """Draws the batches of a fine-tuning, see :class:`fastamr.training.clips.clip_streams.ClipStream`.

    The bodies, owners and labels of an epoch's batches lie on the device as a table that is uploaded when the epoch
    begins; an update looks its row up by its number.

    Args:
        batches: the data, on the device, and how many bodies a clip has at least.
        order: the clips of the batches.
        labels: ``(N,)`` int64, of all clips of the data.
        config: the recipe: length, augmentation, mix-up.
        static: give all batches one shape, as a recorded update needs: bodies and clips fill them up that count
            nowhere. Otherwise a batch has the clips and bodies that it has.
        rank: number of this process.
        processes: how many share each batch: each takes the bodies of a consecutive part of its clips.
        keep_flat: bodies without depth get none by rotation, for an encoder that tells them from others.
    """

    def __init__(
        self,
        batches: ClipBatches,
        order: LabelOrder,
        labels: Tensor,
        config: FinetuneConfig,
        *,
        static: bool,
        rank: int = 0,
        processes: int = 1,
        keep_flat: bool = False,
    ) -> None:
        self.order, self.config, self.static, self.rank, self.processes = (
            order,
            config,
            static,
            rank,
            processes,
        )
        data = batches.data
        self.labels, self._slots = labels.to(data.device), batches.slots
        self._bodies, self._counts, self._starts = (
            each.cpu() for each in (batches.order, batches.counts, batches.starts)
        )
        self._device = data.device
        self.sampler = ClipSampler(
            data,
            batches.frames,
            crop=config.crop,
            min_frames=config.min_frames,
            max_angle=config.max_angle,
            empty_bodies=static or self._slots > 0,
            augmentation=Augmentation(keep_flat=True) if keep_flat and data.coords.shape[2] == 3 else None,
        )
        sizes, self._sizes = order.sizes, order.sizes.tolist()
        self._batch_of = torch.arange(len(sizes)).repeat_interleave(sizes)
        self._place = torch.arange(len(self._batch_of)) - (sizes.cumsum(0) - sizes)[self._batch_of]
        # As tensor_split cuts: the first parts have one clip more.
        least, more = sizes // processes, sizes % processes
        big = (more * (least + 1))[self._batch_of]
        least, more = least[self._batch_of], more[self._batch_of]
        inside = self._place < big
        self._rank_of = torch.where(
            inside, self._place // (least + 1), more + (self._place - big) // least.clamp(min=1)
        )
        self._most = max(
            int(self._bodies_by_rank(self.order.epoch(number)).max()) for number in range(config.epochs)
        )
        self._table = self._empty_table()
        self._held = -1
        self.advance(0)

    def _bodies_by_rank(self, clips: Tensor) -> Tensor:
        """Return how many bodies each batch of an epoch has in each process ``(updates, processes)``."""
        cell = self._batch_of * self.processes + self._rank_of
        found = torch.zeros(self.order.per_epoch * self.processes, dtype=torch.int64)
        found.index_add_(0, cell, self._counts[clips].clamp(min=self._slots))
        return found.view(-1, self.processes)

    def _empty_table(self) -> dict[str, Tensor]:
        """Return where an epoch's batches lie on the device: bodies and owners, clips and what is done with them."""
        rows, most = self.order.per_epoch, int(self.order.sizes.max())
        shapes = {"bodies": self._most, "owner": self._most, "clips": most}
        table = {
            name: torch.zeros(rows, size, dtype=torch.int64, device=self._device)
            for name, size in shapes.items()
        }
        table["counted"] = torch.zeros(rows, most, device=self._device)
        if self.config.mixup:
            table["partner"] = torch.zeros(rows, most, dtype=torch.int64, device=self._device)
            table["share"] = torch.zeros(rows, 1, device=self._device)
        return table

    def advance(self, update: int) -> None:
        """Upload the table of the update's epoch where it is new, and note the sizes of its batch."""
        self.sampler.check_file()
        epoch, self._row = divmod(update, self.order.per_epoch)
        if epoch == self._held:
            return
        for name, rows in self._rows_of_epoch(epoch).items():
            rows = rows.pin_memory() if self._device.type == "cuda" else rows
            self._table[name].copy_(rows, non_blocking=True)
        self._held = epoch

    def _rows_of_epoch(self, epoch: int) -> dict[str, Tensor]:
        """Return the table of an epoch, on the host."""
        clips, sizes = self.order.epoch(epoch), self.order.sizes
        self._share = self._bodies_by_rank(clips).tolist()
        rows, most = self.order.per_epoch, int(sizes.max())
        owner = torch.full((rows, self._most), -1)
        bodies = torch.full((rows, self._most), -1)
        mine = self._rank_of == self.rank
        batch, place, counts = self._batch_of[mine], self._place[mine], self._counts[clips[mine]]
        missing = (self._slots - counts).clamp(min=0)
        # The bodies of all clips of a batch, then its empty ones.
        held = torch.cat([batch.repeat_interleave(counts), batch.repeat_interleave(missing)])
        sorting = held.argsort(stable=True)
        numbers = self._bodies[ranges(self._starts[clips[mine]], counts)]
        numbers = torch.cat([numbers, numbers.new_full((int(missing.sum()),), -1)])[sorting]
        owners = torch.cat([place.repeat_interleave(counts), place.repeat_interleave(missing)])[sorting]
        held = held[sorting]
        starts = torch.bincount(held, minlength=rows).cumsum(0) - torch.bincount(held, minlength=rows)
        column = torch.arange(len(held)) - starts[held]
        bodies[held, column], owner[held, column] = numbers, owners
        table = {"bodies": bodies, "owner": owner, "clips": torch.zeros(rows, most, dtype=torch.int64)}
        table["clips"][self._batch_of, self._place] = clips
        table["counted"] = (torch.arange(most) < sizes[:, None]).float()
        if self.config.mixup:
            table |= _mixing(epoch, self.order.seed, table["counted"], self.config.mixup)
        return table

    def draw(self, counter: Tensor, seed: Tensor) -> LabelledBatch:
        """Return the batch of the update that ``counter`` names: with ``static`` alone from what lies on the device."""
        if self.static:
            row = counter.remainder(self.order.per_epoch).view(1)
            found = {name: rows.index_select(0, row)[0] for name, rows in self._table.items()}
            place = self.rank * self._most, self.processes * self._most
        else:
            found = {name: rows[self._row] for name, rows in self._table.items()}
            share, size = self._share[self._row], self._sizes[self._row]
            own = share[self.rank]
            for name in found:
                end = own if name in ("bodies", "owner") else size
                found[name] = found[name][:end] if name != "share" else found[name]
            place = sum(share[: self.rank]), sum(share)
        clips, valid = self.sampler(found["bodies"], seed)
        return LabelledBatch(
            clips,
            valid,
            found["owner"],
            self.labels[found["clips"]],
            found["counted"] if self.static else None,
            found.get("partner"),
            found["share"][0] if "share" in found else None,
            place,
        )

    @property
    def count(self) -> int:
        """Body sequences of the epoch at hand, of all processes."""
        return sum(map(sum, self._share))

    def bodies(self, update: int) -> Tensor:
        """Return the body sequences of this process in an update of the epoch at hand; -1 for an empty slot."""
        row = update % self.order.per_epoch
        return self._table["bodies"][row, : self._share[row][self.rank]].cpu()

    def done(self, update: int) -> None:
        """Nothing to do."""


def _mixing(epoch: int, seed: int, counted: Tensor, alpha: float) -> dict[str, Tensor]:
    """Return for each batch of an epoch what each clip keeps of itself, and the clip that it is mixed with."""
    mixed = int.from_bytes(hashlib.sha256(f"mix-up {seed} {epoch}".encode()).digest()[:4], "little")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mixed)
        share = torch.distributions.Beta(alpha, alpha).sample((len(counted), 1))
        keys = torch.rand(counted.shape)
    # What only fills a batch up is sorted behind the others, and so mixed with its like.
    return {"share": share, "partner": torch.where(counted > 0, keys, 2.0).argsort(stable=True, dim=1)}
