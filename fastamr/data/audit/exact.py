"""Exact duplicates: clips whose coordinates are the same values, whatever their packing."""

from __future__ import annotations

import hashlib

import numpy as np

from ..packed.dataset import PackedSkeletons
from .blocks import Block, Index, body_blocks


def exact_groups(data: PackedSkeletons) -> Index:
    """Return ``(N,)``: for each clip the first clip that holds the same coordinates, itself if none does.

    Compared are the float32 coordinates of all bodies. The order of the bodies, empty frames before and after
    them, the sign of a zero, float16 or float32 and all that is not a coordinate (name, label, validity) make
    no difference. A clip without any body present equals no other one.
    """
    owners = data.body_clip.cpu().numpy()
    starts = data.body_start.cpu().numpy()
    bodies: list[list[tuple[int, bytes]]] = [[] for _ in range(data.num_clips)]
    for block in body_blocks(data):
        for body, rows in block.bodies():
            found = _digest(block, rows)
            if found is not None:
                bodies[owners[body]].append((int(starts[body]) + found[0], found[1]))
    first: dict[bytes, int] = {}
    groups = np.arange(data.num_clips)
    for clip, entries in enumerate(bodies):
        if entries:
            groups[clip] = first.setdefault(_key(entries), clip)
    return groups


def _digest(block: Block, rows: slice) -> tuple[int, bytes] | None:
    """Return a body's first present frame and a hash from there to its last one; None where it is never there."""
    present = np.flatnonzero(block.present[rows])
    if len(present) == 0:
        return None
    # Adding 0 turns -0.0 into 0.0, which is the same number with other bits.
    values = block.coords[rows][present[0] : present[-1] + 1] + np.float32(0)
    return int(present[0]), hashlib.blake2b(values.tobytes(), digest_size=16).digest()


def _key(entries: list[tuple[int, bytes]]) -> bytes:
    """Return what two clips with the same bodies share: their hashes, and when each appears after the first."""
    begin = min(start for start, _ in entries)
    return b"".join(
        sorted(digest + (start - begin).to_bytes(8, "little", signed=True) for start, digest in entries)
    )
