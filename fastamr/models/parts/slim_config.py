"""The configuration of SLiM, which its model, its encoder and its views share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...errors import check_name
from ...layouts.body import regions_of
from ...skeleton import SkeletonLayout, get_layout
from .config import ModelConfig

SUMMARIES = ("class", "mean")


@dataclass(frozen=True)
class SLiMConfig(ModelConfig):
    """Options of :class:`fastamr.models.SLiMModel` beside those of :class:`fastamr.models.ModelConfig`.

    There is no decoder and no target in coordinates: ``mask_ratio``, ``visible_rounding``, ``masking``, ``mask_tau``,
    ``decoder_*``, ``target``, ``stride``, ``normalize`` and ``loss_eps`` have no effect. ``mlp_ratio`` is that of the
    plain MLP whose weights the SwiGLU has, two thirds of it wide (choice, after DINOv2). What has no source beside it
    is of the paper; where the paper leaves it open, a choice is marked.

    Attributes:
        frames: T (paper: 64).
        patch_frames: l (paper: 8).
        registers: tokens beside the class token that no loss reads (paper: 4).
        rope_base: of the rotation by time (choice: 100, as DINOv3).
        prototypes: P (paper: 65,536). Scores of all counted tokens lie in memory: a CPU needs far fewer.
        head_hidden: inner width of the head (choice: 2048, as DINO).
        bottleneck: Z, features that meet the prototypes (choice: 256, as DINO).
        teacher_momentum: share of the teacher that stays in each training pass (choice: 0.996, where DINO's rises from
            0.996 to 1; runs of a few thousand updates need less, such as 0.99).
        teacher_temperature: of the Sinkhorn targets (choice: 0.07, as DINOv2 after its warm-up).
        student_temperature: choice: 0.1, as DINO.
        sinkhorn_rounds: paper: 3.
        summary: what stands for a view in the losses between views, its ``"class"`` token, or the ``"mean"`` of its
            visible tokens, which are also the frozen features (choice).
        class_weight: of the loss between views (choice: 1).
        patch_weight: of the loss of hidden tokens (choice: 1).
        koleo_weight: of the KoLeo loss of the student's class tokens (paper: 0.1).
        tube_ratio: smallest and largest share of the tubes that a view hides, drawn for each view (paper: 0.5 to 0.9).
        tube_frames: frames of a tube, one of five regions of the body (choice: half the clip); None = that half.
        patch_targets: hidden tokens of each global view that enter the loss, drawn among them (choice: 16; of a clip of
            fewer tokens all). The number of hidden tokens differs, this one does not: shapes stay static, and P scores
            a token fit into memory.
        global_views: views of the whole clip, which the teacher sees unmasked (choice: 2, as DINO).
        local_crops: short views that the student alone sees (paper: 8).
        local_frames: frames of a short view (paper: 16); None = a quarter of the clip in whole patches.
        mirror: share of views whose left and right are exchanged (choice: 0.5); none in a layout without pairs, or
            where of a pair only one joint is present.
        bone_scale: bound of the relative change of a bone's length (choice: 0.1).
    """

    masks_tokens: ClassVar[bool] = False

    frames: int = 64
    patch_frames: int = 8
    registers: int = 4
    rope_base: float = 100.0
    prototypes: int = 65536
    head_hidden: int = 2048
    bottleneck: int = 256
    teacher_momentum: float = 0.996
    teacher_temperature: float = 0.07
    student_temperature: float = 0.1
    sinkhorn_rounds: int = 3
    summary: str = "class"
    class_weight: float = 1.0
    patch_weight: float = 1.0
    koleo_weight: float = 0.1
    tube_ratio: tuple[float, float] = (0.5, 0.9)
    tube_frames: int | None = None
    patch_targets: int = 16
    global_views: int = 2
    local_crops: int = 8
    local_frames: int | None = None
    mirror: float = 0.5
    bone_scale: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (
            ("registers", 0),
            ("prototypes", 2),
            ("head_hidden", 1),
            ("bottleneck", 1),
            ("sinkhorn_rounds", 1),
            ("patch_targets", 1),
            ("global_views", 1),
            ("local_crops", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        for name in ("rope_base", "teacher_temperature", "student_temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        for name in ("class_weight", "patch_weight", "koleo_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must be zero or more")
        for name, value, most in (
            ("teacher_momentum", self.teacher_momentum, 1.0),
            ("mirror", self.mirror, 1.0),
            ("bone_scale", self.bone_scale, 0.9),
        ):
            if not 0 <= value <= most:
                raise ValueError(f"{name}={value} must lie in 0 to {most:g}")
        check_name("summary", self.summary, SUMMARIES)
        self._check_views()
        if (self.width // self.heads) % 2:
            raise ValueError(
                f"width={self.width} in heads={self.heads} leaves {self.width // self.heads} features a head, expected "
                "an even number: the rotation by time turns pairs of them"
            )
        if self.flat_embedding:
            raise ValueError(
                "flat_embedding is of the models with learned times, SLiM's has none: leave it False"
            )
        if self.blocks == "fused":
            raise ValueError(
                "blocks='fused' is for plain blocks, and SLiM's have SwiGLU and RoPE: use 'auto'"
            )

    def _check_views(self) -> None:
        if len(self.tube_ratio) != 2 or not 0 < self.tube_ratio[0] <= self.tube_ratio[1] < 1:
            raise ValueError(
                f"tube_ratio={self.tube_ratio} must be two shares with 0 < smallest <= largest < 1, for example "
                "(0.5, 0.9)"
            )
        for name in ("tube_frames", "local_frames"):
            frames = getattr(self, name)
            if frames is not None and not (0 < frames <= self.frames and frames % self.patch_frames == 0):
                raise ValueError(
                    f"{name}={frames} must be whole patches of {self.patch_frames} frames and at most "
                    f"frames={self.frames}"
                )
        if self.global_views == 1 and not self.local_crops:
            raise ValueError(
                "global_views=1 without local_crops leaves no second view to compare: raise one of them"
            )

    @property
    def skeleton(self) -> SkeletonLayout:
        """The layout itself."""
        return get_layout(self.layout)

    @property
    def times(self) -> int:
        """Time patches of a clip."""
        return self.frames // self.patch_frames

    @property
    def visible(self) -> int:
        """Tokens that a global view shows on average; hidden ones pass the encoder too, as mask tokens."""
        return max(1, round(self.typical_tokens * (1 - sum(self.tube_ratio) / 2)))

    @property
    def crop_frames(self) -> int:
        """Frames of a local crop, whether given or not."""
        if self.local_frames is not None:
            return self.local_frames
        return max(1, round(self.frames / 4 / self.patch_frames)) * self.patch_frames

    @property
    def loss_tokens(self) -> int:
        """Tokens of a global view that enter the loss, Q."""
        return min(self.patch_targets, self.present_tokens)

    @property
    def crop_tokens(self) -> int:
        """Tokens of a local crop, without class token and registers."""
        return self.crop_frames // self.patch_frames * len(self.present_joints)

    @property
    def views(self) -> int:
        """Views of the student: global ones, then local ones."""
        return self.global_views + self.local_crops

    @property
    def region_of_joint(self) -> tuple[int, ...]:
        """The region of the body of each joint that is present; trunk and head are one.

        A joint of no region counts to the trunk (choice). Regions are numbered as they come.
        """
        regions = regions_of(self.skeleton)
        names = [
            "trunk" if regions[joint] in (None, "head") else regions[joint] for joint in self.present_joints
        ]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return tuple(numbers[name] for name in names)

    @property
    def tube_of_token(self) -> tuple[int, ...]:
        """The tube of each token that is present: a region of the body over ``tube_frames`` frames."""
        regions = self.region_of_joint
        span = max(1, (self.tube_frames or self.frames // 2) // self.patch_frames)
        return tuple(
            time // span * (max(regions) + 1) + region for time in range(self.times) for region in regions
        )

    @property
    def tubes(self) -> int:
        """Tubes of a clip; 10 at the defaults."""
        return max(self.tube_of_token) + 1
