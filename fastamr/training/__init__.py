"""Pre-training: configuration, the update, the loop around it, checkpoints.

A run consists of :mod:`.run`, :mod:`.loop` makes its updates, :mod:`.keeper` saves it and :mod:`.report` tells how it
goes; :mod:`.pretrain` puts them together. What an update does lives in :mod:`.update`, which clips it sees in
:mod:`.clips`, what is written of it in :mod:`.metrics`. The fields of a configuration and the names in a checkpoint
are part of the file format.
"""

from .clips.sampling import ClipSampler
from .config import PretrainConfig
from .pretrain import pretrain
from .update.adamw import AdamW
from .update.step import PretrainStep

__all__ = ["AdamW", "ClipSampler", "PretrainConfig", "PretrainStep", "pretrain"]
