"""Pre-training: configuration, step, optimizer, loop, checkpoints."""

from .adamw import AdamW
from .config import PretrainConfig
from .pretrain import pretrain
from .sampling import ClipSampler
from .step import PretrainStep

__all__ = ["AdamW", "ClipSampler", "PretrainConfig", "PretrainStep", "pretrain"]
