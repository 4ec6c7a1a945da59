"""A single ``.skeleton`` file of NTU RGB+D, whatever it is called, as a data set of one clip."""

from __future__ import annotations

from pathlib import Path

from ..packed.dataset import PackedSkeletons
from .common.bodies import RECIPE, body_arrays, choose_bodies
from .common.sources import DamagedFile
from .ntu import JOINTS, NtuReader, parse


def read_clip(path: str | Path) -> PackedSkeletons:
    """Read one file, with the recipe of the field for choosing its people; the label is unknown.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged (in which line), or shows nobody.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        frames, tracks = parse(path.read_bytes())
    except DamagedFile as error:
        raise ValueError(f"{path}: {error}") from None
    coords, _ = body_arrays(choose_bodies(tracks, RECIPE), frames, JOINTS, 3)
    return PackedSkeletons.from_clips([coords], layout=NtuReader.layout, fps=NtuReader.fps, names=[path.stem])
