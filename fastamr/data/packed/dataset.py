"""PackedSkeletons, the one data format: ragged body sequences with labels, splits and a skeleton layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...skeleton import SkeletonLayout, get_layout
from .checks import HALF_LIMIT, check_coordinates, check_reach, check_structure, known_rates
from .file import fingerprint, read_packed, write_packed
from .mapped import mapped_file
from .packing import Packing, pack_clips, text_codes
from .ragged import ranges
from .split import Split, split_name, unknown_split
from .structure import PackedFields
from .summary import Summary, summarise

__all__ = ["HALF_LIMIT", "PackedSkeletons", "Split", "Summary"]


@dataclass(eq=False, repr=False)
class PackedSkeletons(PackedFields):
    """Clips of moving bodies, packed without padding.

    The frames of all bodies lie one after another in ``coords``; body ``b`` owns the rows
    ``offsets[b]:offsets[b + 1]``. The bodies of a clip are neighbours, and every clip has at least one. A loaded
    file is memory-mapped on the CPU; :meth:`to` makes it resident on a GPU.

    Args:
        coords: ``(F, V, C)`` float32 or float16, metres; C is 2 or 3. A frame of zeros is one without the body.
        offsets: ``(B+1,)`` int64, where each body's frames start; the last entry is ``F``.
        body_clip: ``(B,)`` int64, the clip of each body, not decreasing.
        body_start: ``(B,)`` int64, the body's first frame within its clip.
        labels: ``(N,)`` int64, ``-1`` = unknown.
        fps: ``(N,)`` float32, frames per second, NaN = unknown.
        layout: the skeleton.
        names: ``N`` clip names.
        columns: ``(N,)`` tensors by name (subject, view, ...); ``-1`` = unknown.
        splits: ways to part the clips, by name; ``official`` is the data set's own.
        valid: ``(F, V)`` bool, False = the joint was not seen; None = all were.
        label_names: the classes; may be empty.
        column_names: for a column of codes, what the codes stand for.
        steps: the pre-processing that was applied, in order.
        dropped: name and reason of clips that were left out.
        frame_labels: ``(F,)`` int16, the class of each row of ``coords`` in an untrimmed stream; ``-1`` = no action,
            ``-2`` = unknown. None = not labelled by frame.
        body_names: ``B`` names, who each body is within its clip: a track's number, a person's name. Empty = not
            known.

    Raises:
        ValueError: shapes, types, ranges or order do not fit together. The coordinates themselves are read by
            :meth:`check` only, so that a large file opens without delay.
        TypeError: a field is not a tensor.
    """

    def __post_init__(self) -> None:
        self.layout = get_layout(self.layout)
        check_structure(self)

    @classmethod
    def from_clips(
        cls,
        clips: Sequence[Any],
        *,
        layout: str | SkeletonLayout,
        labels: Sequence[int] | np.ndarray | Tensor | None = None,
        label_names: Sequence[str] = (),
        fps: float | Sequence[float] | np.ndarray | Tensor | None = None,
        names: Sequence[str] | None = None,
        columns: Mapping[str, Any] | None = None,
        column_names: Mapping[str, Sequence[str]] | None = None,
        splits: Mapping[str, Split] | None = None,
        valid: Sequence[Any] | None = None,
        drop_empty_bodies: bool = True,
        frame_labels: Sequence[Any] | None = None,
    ) -> PackedSkeletons:
        """Pack clips that are arrays in memory.

        Args:
            clips: ``N`` arrays ``(T, M, V, C)`` of real numbers, metres; T and M may differ from clip to clip. A
                clip without frames or without a body is dropped and listed in ``dropped``.
            layout: the skeleton, or its name.
            labels: ``(N,)`` class indices, ``-1`` = unknown; None = all unknown.
            label_names: the classes.
            fps: frames per second, one for all or one a clip; None, NaN or 0 = unknown.
            names: ``N`` names; None = ``clip0``, ``clip1``, ...
            columns: ``(N,)`` values by name; strings become codes whose names are kept.
            column_names: what the codes of a column stand for.
            splits: splits over the ``N`` clips.
            valid: ``N`` bool arrays ``(T, M, V)``; invalid joints are set to 0 and may be NaN before.
            drop_empty_bodies: leave out bodies whose coordinates are all 0.
            frame_labels: ``N`` arrays ``(T,)`` of class indices, for untrimmed streams; ``-1`` = no action, ``-2`` =
                unknown.

        Raises:
            ValueError: no clip, a wrong shape, a coordinate that is not finite (which clip, frame, body and
                joint), or another number of values than clips.
            TypeError: coordinates that are not real numbers.
        """
        layout, count = get_layout(layout), len(clips)
        if count == 0:
            raise ValueError("clips is empty, expected at least one array (frames, bodies, joints, channels)")
        if names is None:
            names = [f"clip{place}" for place in range(count)]
        known = np.full(count, -1) if labels is None else np.asarray(labels)
        with np.errstate(over="ignore"):
            rates = np.asarray(np.nan if fps is None else fps, dtype=np.float32)
        rates = np.full(count, rates) if rates.ndim == 0 else rates
        given = {"names": names, "labels": known, "fps": rates, "valid": valid, **(columns or {})}
        given["frame_labels"] = frame_labels
        for what, values in given.items():
            if values is not None and len(values) != count:
                raise ValueError(f"{what} has {len(values)} entries for {count} clips, expected one each")
        for key, split in (splits or {}).items():
            if len(split.train) != count or len(split.test) != count:
                raise ValueError(
                    f"splits[{key!r}] has masks of {len(split.train)} and {len(split.test)} for {count} clips"
                )
        packing = pack_clips(clips, names, layout, valid, drop_empty_bodies)
        kept = torch.from_numpy(packing.kept)
        values, texts = _columns(columns or {}, kept)
        return cls(
            coords=packing.coords,
            offsets=packing.offsets,
            body_clip=packing.body_clip,
            body_start=torch.zeros_like(packing.body_clip),
            labels=torch.from_numpy(known.astype(np.int64))[kept],
            fps=known_rates(torch.from_numpy(rates)[kept]),
            layout=layout,
            names=[str(names[place]) for place in packing.kept],
            columns=values,
            splits={key: split.take(kept) for key, split in (splits or {}).items()},
            valid=packing.valid,
            label_names=tuple(map(str, label_names)),
            column_names=texts | {key: tuple(map(str, text)) for key, text in (column_names or {}).items()},
            dropped=packing.dropped,
            frame_labels=None if frame_labels is None else _frame_labels(frame_labels, clips, packing),
        )

    def __repr__(self) -> str:
        kind = str(self.coords.dtype).removeprefix("torch.")
        return (
            f"PackedSkeletons({self.layout.name}: {self.num_clips} clips, {self.num_bodies} bodies, "
            f"{self.num_frames} frames of {tuple(self.coords.shape[1:])}, {kind} on {self.device})"
        )

    def split(self, name: str) -> Split:
        """Return a split by name.

        Args:
            name: its name; a name that differs in case alone is as good.

        Raises:
            ValueError: there is no such split (with the nearest name, or how to make one).
        """
        known = split_name(name, self.splits)
        if known is None:
            raise unknown_split(name, self.splits)
        return self.splits[known]

    def summary(self) -> Summary:
        """Return counts (clips, single-frame clips, dropped clips, splits, ...); prints as one line each."""
        return summarise(self)

    def check(self) -> None:
        """Read all coordinates and raise unless they are sound. :meth:`save` does so, loading does not.

        Raises:
            ValueError: a coordinate is not finite, or is float16 and beyond 2 m (which clip, which frame).
        """
        check_coordinates(self)

    def verify(self) -> None:
        """Compare a mapped file with its checksums, by reading it once (about 4 GB a second where the disk gives that).

        A file of up to 64 MiB was compared when it was loaded; files of earlier versions have no checksums.

        Raises:
            ValueError: it is damaged; the message names the tensor.
        """
        if (file := mapped_file(self.coords)) is not None:
            file.verify()

    def fingerprint(self) -> str:
        """Return a hash of the whole content: 32 hexadecimal digits, the same on every device."""
        return fingerprint(self)

    def describe(self) -> dict[str, Any]:
        """Return what identifies the data set in reports."""
        return {
            "fingerprint": self.fingerprint(),
            "clips": self.num_clips,
            "bodies": self.num_bodies,
            "frames": self.num_frames,
            "layout": self.layout.name,
            "steps": list(self.steps),
        }

    def to(self, device: torch.device | str) -> PackedSkeletons:
        """Return the data set with all tensors on a device."""
        moved: dict[str, Any] = {
            item.name: value.to(device)
            for item in dataclasses.fields(self)
            if isinstance(value := getattr(self, item.name), Tensor)
        }
        columns = {name: column.to(device) for name, column in self.columns.items()}
        splits = {name: split.to(device) for name, split in self.splits.items()}
        return dataclasses.replace(self, **moved, columns=columns, splits=splits)

    def half(self) -> PackedSkeletons:
        """Return the data set with float16 coordinates: half the memory.

        Raises:
            ValueError: a coordinate lies beyond 2 m, where float16 is coarser than 1 mm (which clip and frame).
        """
        check_reach(self)
        return dataclasses.replace(self, coords=self.coords.to(torch.float16))

    def select(self, clips: Tensor | np.ndarray | Sequence[int] | Sequence[bool]) -> PackedSkeletons:
        """Return some of the clips, in the order asked for, with copies of their frames.

        Args:
            clips: ``(N,)`` bool mask, or indices.

        Raises:
            ValueError: the mask has another length, nothing is selected, or an index is out of range.
        """
        chosen = self._clip_indices(clips)
        first = torch.searchsorted(self.body_clip, chosen)
        counts = torch.searchsorted(self.body_clip, chosen, right=True) - first
        bodies = ranges(first, counts)
        lengths = self.offsets.diff()[bodies]
        rows = ranges(self.offsets[bodies], lengths)
        return dataclasses.replace(
            self,
            coords=self.coords[rows],
            offsets=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
            body_clip=torch.repeat_interleave(torch.arange(chosen.numel(), device=self.device), counts),
            body_start=self.body_start[bodies],
            labels=self.labels[chosen],
            fps=self.fps[chosen],
            names=[self.names[place] for place in chosen.tolist()],
            columns={name: column[chosen] for name, column in self.columns.items()},
            splits={name: split.take(chosen) for name, split in self.splits.items()},
            valid=None if self.valid is None else self.valid[rows],
            frame_labels=None if self.frame_labels is None else self.frame_labels[rows],
            body_names=[self.body_names[place] for place in bodies.tolist()] if self.body_names else [],
        )

    def _clip_indices(self, clips: Any) -> Tensor:
        chosen = torch.as_tensor(clips, device=self.device)
        if chosen.dtype == torch.bool:
            if chosen.shape != (self.num_clips,):
                raise ValueError(
                    f"clips is a mask of shape {tuple(chosen.shape)}, expected ({self.num_clips},) or indices"
                )
            chosen = chosen.nonzero().squeeze(1)
        if chosen.numel() == 0 or chosen.ndim != 1:
            raise ValueError(
                f"clips has shape {tuple(chosen.shape)}, expected a mask or indices of at least one clip"
            )
        if chosen.is_floating_point():
            raise ValueError(f"clips has dtype {chosen.dtype}, expected bool (a mask) or integers (indices)")
        low, high = int(chosen.min()), int(chosen.max())
        if low < 0 or high >= self.num_clips:
            raise ValueError(
                f"clips names clip {low if low < 0 else high}, expected 0 to {self.num_clips - 1}"
            )
        return chosen.to(torch.int64)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; what was at ``path`` before survives a failure.

        Raises:
            ValueError: the coordinates are not sound, see :meth:`check`.
            FileNotFoundError: the folder does not exist.
            OSError: the file cannot be written.
        """
        self.check()
        write_packed(self, path)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> PackedSkeletons:
        """Open a file written by :meth:`save`; on the CPU one above 64 MiB is memory-mapped, which takes milliseconds.

        What is read at once is compared with the file's checksums; see :meth:`verify` for what is mapped.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is truncated, damaged, foreign, of another version, or its parts do not fit together.
        """
        fields = read_packed(path)
        try:
            data = cls(**fields)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {error}; import the source again") from None
        return data if torch.device(device).type == "cpu" else data.to(device)


def _frame_labels(given: Sequence[Any], clips: Sequence[Any], packing: Packing) -> Tensor:
    """Return the class of every packed row: the bodies of a clip have those of its frames."""
    arrays = [np.asarray(labels) for labels in given]
    for place, (labels, clip) in enumerate(zip(arrays, clips, strict=True)):
        if labels.dtype.kind not in "iu" or labels.shape != (len(clip),):
            raise ValueError(
                f"frame_labels of clip {place} is {labels.dtype} of shape {labels.shape}, "
                f"expected whole numbers of shape ({len(clip)},)"
            )
    rows = [arrays[packing.kept[clip]] for clip in packing.body_clip.tolist()]
    return torch.from_numpy(np.concatenate(rows).astype(np.int16))


def _columns(given: Mapping[str, Any], kept: Tensor) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """Return the columns of the kept clips as tensors, and what the codes of text columns stand for."""
    columns, texts = {}, {}
    for name, values in given.items():
        array = np.asarray(values)
        if array.dtype.kind in "US":
            columns[name], texts[name] = text_codes(array)
        elif array.dtype.kind in "biu":
            columns[name] = torch.from_numpy(array.astype(np.int64))
        elif array.dtype.kind == "f":
            columns[name] = torch.from_numpy(array.astype(np.float32))
        else:
            raise TypeError(f"columns[{name!r}] has dtype {array.dtype}, expected numbers or strings")
        columns[name] = columns[name][kept]
    return columns, texts
