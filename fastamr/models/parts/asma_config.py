"""The configuration of ASMa, which its model and its encoders share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...errors import check_name
from ...nn.st_gcn import PARTITIONS, STRIDE
from ...skeleton import SkeletonLayout, get_layout
from .config import ModelConfig

BACKBONE_NAMES = ("stgcn", "transformer")

# Lambda times width of the projector.
_PAPER_BALANCE = 2e-4 * 6144


@dataclass(frozen=True)
class ASMaConfig(ModelConfig):
    """Options of :class:`fastamr.models.ASMaModel` beside those of :class:`fastamr.models.ModelConfig`.

    There is neither decoder nor reconstruction: ``mask_ratio``, ``masking``, ``mask_tau``, ``decoder_*``, ``target``,
    ``stride``, ``normalize`` and ``loss_eps`` have no effect. ``depth`` is of the transformer only, ``heads`` and
    ``mlp_ratio`` are of the transformer and of the alignment.

    Attributes:
        frames: T (paper: 50; choice: 52, which the graph network turns into 13 time steps as it does 50).
        backbone: ``"stgcn"`` (paper) or ``"transformer"``, the encoder of the other methods.
        partition: of a joint's neighbours in the graph, ``"uniform"``, ``"distance"`` or ``"spatial"`` (choice).
        hidden: channels of the graph network's first blocks (choice: 16, after PSTL).
        masked_joints: share of the joints of a body that the spatial streams miss (choice: 8 of 25).
        masked_times: share of frames, or with the transformer of time patches, that the temporal streams miss (choice:
            10 of 50).
        projector: width of the projector's layers (paper: 6144).
        redundancy_weight: lambda of the Barlow Twins loss (paper: 2e-4); None for ``2e-4 * 6144 / projector``, the
            paper's at its width and the same balance of both sums at others (choice): a narrow projector with the
            paper's lets the features collapse.
        align_depth: cross-attention blocks in each direction between the two encoders (choice: 1); 0 for none.
    """

    masks_tokens: ClassVar[bool] = False

    frames: int = 52
    backbone: str = "stgcn"
    partition: str = "spatial"
    hidden: int = 16
    masked_joints: float = 0.32
    masked_times: float = 0.2
    projector: int = 6144
    redundancy_weight: float | None = None
    align_depth: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name("backbone", self.backbone, BACKBONE_NAMES)
        check_name("partition", self.partition, PARTITIONS)
        if self.backbone == "stgcn" and self.patch_frames != STRIDE:
            raise ValueError(
                f"patch_frames={self.patch_frames} must be {STRIDE} with backbone='stgcn', which halves the time "
                "twice; backbone='transformer' takes others"
            )
        if self.flat_embedding and self.backbone == "stgcn":
            raise ValueError(
                "flat_embedding needs backbone='transformer', got 'stgcn', which embeds no patches: leave it False"
            )
        for name, least in (("hidden", 1), ("projector", 1), ("align_depth", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        for name, units in (("masked_joints", len(self.present_joints)), ("masked_times", self.times)):
            share = getattr(self, name)
            if not 0 < share < 1:
                raise ValueError(f"{name}={share} must be a share above 0 and below 1, for example 0.2")
            if units < 2:
                raise ValueError(f"{name}={share} cannot hide a part of {units}: use more frames or joints")
        if self.balance < 0:
            raise ValueError(f"redundancy_weight={self.redundancy_weight} must be zero or more")

    def block_weights(self) -> int:
        """Return about how many weights the encoder's blocks have; those of the graph network are few."""
        return super().block_weights() if self.backbone == "transformer" else 0

    @property
    def balance(self) -> float:
        """Lambda of the Barlow Twins loss, whether given or not."""
        return _PAPER_BALANCE / self.projector if self.redundancy_weight is None else self.redundancy_weight

    @property
    def skeleton(self) -> SkeletonLayout:
        """The layout itself."""
        return get_layout(self.layout)

    @property
    def time_unit(self) -> int:
        """Frames that the temporal mask hides together: 1, or a patch of the transformer."""
        return 1 if self.backbone == "stgcn" else self.patch_frames

    @property
    def times(self) -> int:
        """Units of time in a clip."""
        return self.frames // self.time_unit

    @property
    def kept_joints(self) -> int:
        """Joints that a spatial stream sees of a body with all that are present: not all, and not none."""
        return _kept(len(self.present_joints), self.masked_joints)

    @property
    def kept_times(self) -> int:
        """Units of time that a temporal stream sees; at least one is seen and one hidden."""
        return _kept(self.times, self.masked_times)


def _kept(units: int, share: float) -> int:
    return units - min(max(1, round(units * share)), units - 1)
