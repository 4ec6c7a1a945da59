"""Pre-training: configuration, loop, checkpoints."""

from .config import PretrainConfig
from .pretrain import pretrain

__all__ = ["PretrainConfig", "pretrain"]
