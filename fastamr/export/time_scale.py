"""How long a window has to be, so that it shows as much of an action as the clips of the training did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# A clip so many times as long as those of the training is one stretch of several actions (choice).
_MUCH_LONGER = 4


@dataclass(frozen=True)
class TimeScale:
    """The lengths of a classifier's training clips.

    Attributes:
        seconds: of the median clip; None = unknown.
        frames: of the median clip; None = unknown.
        model_frames: what the model resizes clips to, used where nothing is known.
    """

    seconds: float | None
    frames: int | None
    model_frames: int

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> TimeScale:
        """Return the time scale that a classifier's description tells; older ones tell none."""
        known = description.get("training_data") or {}
        return cls(known.get("median_seconds"), known.get("median_frames"), description["frames"])

    def window(self, rate: float | None) -> tuple[int, str | None]:
        """Return the frames of a window for data of a rate, and what a person should know of it, or None.

        Args:
            rate: frames a second of the data; None (or NaN) = unknown.
        """
        known = rate if rate is not None and rate > 0 else None
        if self.seconds is not None and known is not None:
            return max(1, round(self.seconds * known)), None
        if self.frames is None:
            return self.model_frames, (
                f"windows are {self.model_frames} frames, those of the model: the classifier does not say how long its "
                "training clips were; --window FRAMES sets the length"
            )
        whose, remedy = (
            ("the training data", "--window FRAMES sets another length")
            if self.seconds is None
            else ("the input", "--fps RATE makes windows span the same time")
        )
        return self.frames, (
            f"windows are {self.frames} frames, the training clips' median: the frame rate of {whose} is unknown; "
            f"{remedy}"
        )

    def much_longer(self, frames: int, rate: float | None) -> str | None:
        """Return what to say of a clip that is taken as a whole and is far longer than the training's; else None."""
        if self.seconds is not None and rate is not None and rate > 0:
            if frames / rate > _MUCH_LONGER * self.seconds:
                return f"{frames / rate:.1f} s, the training clips {self.seconds:.1f} s"
        elif self.frames is not None and frames > _MUCH_LONGER * self.frames:
            return f"{frames} frames, the training clips {self.frames}"
        return None
