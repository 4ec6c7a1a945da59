"""A single ``.skeleton`` file of NTU RGB+D, whatever it is called, as a data set of one clip."""

from __future__ import annotations

from ...packed.dataset import PackedSkeletons
from ..common.reader import Reader, Reading, Source
from ..common.sources import DamagedFile
from .bodies import RECIPE, body_arrays, choose_bodies
from .ntu import JOINTS, NtuReader, parse


def read(source: Source) -> Reading:
    """Read one file, with the recipe of the field for choosing its people; the label is unknown.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is damaged (in which line), or shows nobody.
    """
    path = source.path
    try:
        frames, tracks = parse(path.read_bytes())
    except DamagedFile as error:
        raise ValueError(f"{path}: {error}") from None
    coords, _ = body_arrays(choose_bodies(tracks, RECIPE), frames, JOINTS, 3)
    return Reading(
        PackedSkeletons.from_clips([coords], layout=NtuReader.layout, fps=NtuReader.fps, names=[path.stem])
    )


READER = Reader("ntu-clip", NtuReader.suffixes, read, title="a clip of NTU RGB+D")
