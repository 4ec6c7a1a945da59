"""The recipe of fine-tuning."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ...models.classifier import check_classifier

WARMUP_EPOCHS = 5


@dataclass(frozen=True)
class FinetuneConfig:
    """The recipe of fine-tuning; the defaults are those of MAMP's public code for NTU-60.

    AdamW with betas (0.9, 0.999). Pre-processing and augmentation are those of the pre-training.

    Attributes:
        epochs: passes over the training clips (paper: 100).
        batch_size: clips in an update, each with all its bodies (public code: 48).
        lr: highest learning rate of the head (public code: 5e-4; its NTU-60 scripts pass 3e-4).
        min_lr: learning rate of the head at the end (public scripts: 1e-5).
        warmup_epochs: epochs of linear warm-up; null = 5 (public code), or a fifth of the epochs where that is less.
        weight_decay: of AdamW, none on biases, norms and embeddings (public code: 0.05).
        layer_decay: learning rate of a layer over that of the next one (public code: 0.8).
        drop_path: of the last block, growing linearly from 0 (public code: 0.3).
        dropout: of the tokens (public code: 0.3).
        label_smoothing: of the cross-entropy (public code: 0.1).
        mixup: alpha of mix-up, 0 = off (public code). Choice: it mixes the pooled features of clips, because two
            clips may have different numbers of bodies.
        pooling: joints (public code) puts the joints' means over time side by side, mean averages all tokens;
            regions (means of trunk, arms and legs), regions+time (the same for each third of the time), mean+max.
        bodies: mean (public code) averages the bodies of a clip, ordered puts the two that move most side by side, the
            most active first.
        hidden: width of the head's hidden layer with BatchNorm, 0 = one linear layer (public code: 2048).
        crop: smallest and largest share of the frames that is kept (public code: 0.5 to 1).
        min_frames: frames that a crop keeps at least (public code: 64; lower for short clips).
        max_angle: bound of each Euler angle, in radians (public code: 0.3).
    """

    epochs: int = 100
    batch_size: int = 48
    lr: float = 5e-4
    min_lr: float = 1e-5
    warmup_epochs: float | None = None
    weight_decay: float = 0.05
    layer_decay: float = 0.8
    drop_path: float = 0.3
    dropout: float = 0.3
    label_smoothing: float = 0.1
    mixup: float = 0.0
    pooling: str = "joints"
    bodies: str = "mean"
    hidden: int = 2048
    crop: tuple[float, float] = (0.5, 1.0)
    min_frames: int = 64
    max_angle: float = 0.3

    def __post_init__(self) -> None:
        object.__setattr__(self, "crop", tuple(self.crop))
        check_classifier(
            2, self.pooling, self.bodies, self.hidden, self.dropout, self.drop_path, self.label_smoothing
        )
        for name in ("epochs", "batch_size", "lr", "min_frames"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        for name in ("weight_decay", "mixup", "max_angle"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be zero or more")
        if not 0 <= self.min_lr <= self.lr:
            raise ValueError(f"min_lr={self.min_lr} must be a number from 0 to lr={self.lr:g}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay={self.layer_decay} must be above 0 and at most 1, for example 0.8")
        if self.warmup_epochs is not None and not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"warmup_epochs={self.warmup_epochs} must be at least 0 and below epochs={self.epochs}: "
                "omit it for a fifth at most"
            )
        if len(self.crop) != 2 or not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ValueError(f"crop={self.crop} must be two shares with 0 < smallest <= largest <= 1")

    def head(self) -> dict[str, Any]:
        """The options of :class:`fastamr.models.ActionClassifier`."""
        names = ("pooling", "bodies", "hidden", "dropout", "drop_path", "label_smoothing")
        return {name: getattr(self, name) for name in names}

    def decisive(self) -> dict[str, Any]:
        """Return all settings as a plan compares them, without a default ``bodies``, which earlier runs lack."""
        settings = dataclasses.asdict(self)
        return {name: value for name, value in settings.items() if (name, value) != ("bodies", "mean")}

    @property
    def warmup(self) -> float:
        """Epochs of the warm-up."""
        return min(WARMUP_EPOCHS, self.epochs / 5) if self.warmup_epochs is None else self.warmup_epochs
