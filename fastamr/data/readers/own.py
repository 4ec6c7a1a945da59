"""What is data already: packed files under any name, and the word that stands for generated motion."""

from __future__ import annotations

from ..packed.dataset import PackedSkeletons
from .common.reader import Reader, Reading, Source

SYNTHETIC = "synthetic"
"""The word that stands for generated motion instead of a file."""


def _is_packed(source: Source) -> bool:
    # Eight bytes of length, then JSON, with the metadata first.
    return source.ending == ".safetensors" or source.head()[8:].startswith(b'{"__metadata__"')


def _read_packed(source: Source) -> Reading:
    return Reading(PackedSkeletons.load(source.path))


def _is_synthetic(source: Source) -> bool:
    return str(source.path) == SYNTHETIC


def _generate(source: Source) -> Reading:
    from ..synthetic.dataset import synthetic_actions

    return Reading(synthetic_actions())


READERS = (
    Reader("packed", (), _read_packed, _is_packed, holds=("packed data, under any name",)),
    Reader(SYNTHETIC, (), _generate, _is_synthetic, holds=(f"the word {SYNTHETIC}, for generated motion",)),
)
