"""The configuration that all models share: one dataclass is the constructor, the YAML file and the command line."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from ...errors import check_name, shortened, unknown_name
from ...nn.stacks.transformer_stack import BACKENDS as BLOCKS
from ...ops.common.backends import NAMES
from ...ops.common.checks import check_divides
from ...ops.weighted_reconstruction_loss import check_reconstruction
from ...skeleton import SkeletonLayout, get_layout, is_body
from .masking import STRATEGIES

ROUNDINGS = ("nearest", "down")

LARGEST = {
    "frames": 65_536,
    "patch_frames": 65_536,
    "width": 16_384,
    "depth": 512,
    "heads": 1_024,
    "decoder_width": 16_384,
    "decoder_depth": 512,
    "decoder_heads": 1_024,
    "hidden": 65_536,
    "projector": 65_536,
    "registers": 1_024,
    "prototypes": 1 << 20,
    "head_hidden": 65_536,
    "bottleneck": 65_536,
    "patch_targets": 65_536,
    "global_views": 64,
    "local_crops": 64,
    "sinkhorn_rounds": 1_000,
    "align_depth": 512,
    "target_width": 65_536,
    "target_hidden": 65_536,
    "global_hidden": 65_536,
    "classes": 32_768,
}
"""Upper bounds (choice, far above any model): a damaged configuration must not build one that fills the memory."""

MAX_TOKENS = 1 << 22
MAX_WEIGHTS = 1 << 35

Config = TypeVar("Config", bound="ModelConfig")


@dataclass(frozen=True)
class ModelConfig:
    """Encoder, masking and target of a masked model.

    Attributes:
        layout: joints of the skeleton, by name or as a :class:`fastamr.SkeletonLayout`; ``body`` for any skeleton.
        frames: T, frames of a clip (paper: 120).
        channels: C, 2 or 3 coordinates per joint.
        patch_frames: l, frames of a patch (paper: 4).
        width: D, encoder width (paper: 256).
        depth: encoder blocks (paper: 8).
        heads: H, attention heads (paper: 8).
        mlp_ratio: inner width of the MLP over D (paper: 4).
        mask_ratio: share of tokens hidden; ``K = N * (1 - mask_ratio)`` stay visible, at least 1 (paper: 0.9).
        visible_rounding: K is rounded to the ``"nearest"`` integer (75 of 750; choice) or ``"down"``, which gives the
            74 of MAMP's public code, because ``1 - 0.9`` is a little less than a tenth.
        masking: ``"random"`` (paper), ``"frame"``, ``"joint"``, ``"frame+joint"`` or ``"motion"`` (MAMP).
        mask_tau: temperature of ``"motion"``: the smaller, the more the moving tokens are hidden (MAMP: 0.8 for
            NTU-60, 0.75 for NTU-120).
        attention: back end of the attention: ``"auto"``, ``"sdpa"``, ``"materialised"`` or ``"reference"``.
        blocks: how stacks of transformer blocks are computed: ``"auto"``, ``"fused"`` as one function, or
            ``"reference"``, block by block.
        decoder_width: width of the decoder (paper: 256).
        decoder_depth: decoder blocks (paper: 5).
        decoder_heads: heads of the decoder (paper: 8).
        target: ``"motion"`` or ``"joints"``.
        stride: frames between the two ends of a motion.
        normalize: ``"sequence"``, ``"patch"`` or ``"none"``.
        loss_eps: added to the target's variance.
        present: names of the joints that the training data has; the layout's other ones are no tokens, and their
            embeddings are not trained. () = all. Pre-training on layout ``body`` fills it in.
        typical_joints: joints of a typical training sequence, of whose tokens K is a share. 0 = each sequence has all
            that are present. Pre-training on sets of different skeletons fills in the rounded mean.
        flat_embedding: add a learned vector to the tokens of sequences whose third channel is 0 throughout, so that one
            encoder serves 3-D data, and 2-D data or projections (choice).
        masks_tokens: whether ``masking`` draws K visible tokens of each sequence, of the class.
    """

    masks_tokens: ClassVar[bool] = True

    layout: str | SkeletonLayout = "ntu25"
    frames: int = 120
    channels: int = 3
    patch_frames: int = 4
    width: int = 256
    depth: int = 8
    heads: int = 8
    mlp_ratio: float = 4.0
    mask_ratio: float = 0.9
    visible_rounding: str = "nearest"
    masking: str = "random"
    mask_tau: float = 0.8
    attention: str = "auto"
    blocks: str = "auto"
    decoder_width: int = 256
    decoder_depth: int = 5
    decoder_heads: int = 8
    target: str = "motion"
    stride: int = 1
    normalize: str = "sequence"
    loss_eps: float = 1e-6
    present: tuple[str, ...] = ()
    typical_joints: int = 0
    flat_embedding: bool = False

    def __post_init__(self) -> None:
        if get_layout(self.layout).name != self.layout:  # the path of a file: its layout goes with the model
            object.__setattr__(self, "layout", get_layout(self.layout))
        if self.channels not in (2, 3):
            raise ValueError(f"channels={self.channels} must be 2 or 3 coordinates")
        if self.flat_embedding and self.channels != 3:
            raise ValueError(f"flat_embedding needs channels=3, got channels={self.channels}: leave it False")
        for name in ("frames", "width", "depth", "heads", "decoder_width", "decoder_depth", "decoder_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        check_largest(self)
        self._check_joints()
        check_divides("patch_frames", self.patch_frames, "frames", self.frames)
        check_divides("heads", self.heads, "width", self.width)
        check_divides("decoder_heads", self.decoder_heads, "decoder_width", self.decoder_width)
        self._check_products()
        if not 0 <= self.mask_ratio < 1:
            raise ValueError(
                f"mask_ratio={self.mask_ratio} leaves no visible token: expected 0 <= mask_ratio < 1, for example 0.9"
            )
        check_name("visible_rounding", self.visible_rounding, ROUNDINGS)
        check_name("masking", self.masking, STRATEGIES)
        if self.mask_tau <= 0:
            raise ValueError(f"mask_tau={self.mask_tau} must be positive, for example 0.8")
        check_name("attention", self.attention, NAMES)
        check_name("blocks", self.blocks, BLOCKS)
        check_reconstruction(self.target, self.normalize, self.stride, self.loss_eps)

    def _check_joints(self) -> None:
        names = get_layout(self.layout).joints
        for name in self.present:
            if name not in names:
                raise unknown_name(
                    f"joint of layout {get_layout(self.layout).name!r} in present", name, names
                )
        if len(set(self.present)) < len(self.present):
            raise ValueError(f"present={shortened(self.present)} names a joint twice: name each once")
        most = len(self.present_joints)
        if not 0 <= self.typical_joints <= most:
            raise ValueError(
                f"typical_joints={self.typical_joints}: expected 1 to {most}, the joints that are present, or 0 for all"
            )

    def _check_products(self) -> None:
        if self.tokens > MAX_TOKENS:
            raise ValueError(
                f"frames={self.frames} of {self.joints} joints make {self.tokens} tokens, expected at most "
                f"{MAX_TOKENS}: use fewer frames, or larger patch_frames"
            )
        if not 0 < self.mlp_ratio <= 64:
            raise ValueError(f"mlp_ratio={self.mlp_ratio} must be above 0 and at most 64, for example 4")
        if self.block_weights() > MAX_WEIGHTS:
            raise ValueError(
                f"width={self.width} and depth={self.depth} make about {self.block_weights():.2g} weights, expected "
                f"at most {MAX_WEIGHTS:.2g}"
            )

    def block_weights(self) -> int:
        """Return about how many weights the encoder's blocks have."""
        return int(self.depth * (4 + 2 * self.mlp_ratio) * self.width**2)

    @property
    def joints(self) -> int:
        """V, joints of the layout."""
        return get_layout(self.layout).num_joints

    @property
    def present_joints(self) -> tuple[int, ...]:
        """Indices of the joints that are tokens, ascending."""
        names = get_layout(self.layout).joints
        return tuple(place for place, name in enumerate(names) if not self.present or name in self.present)

    @property
    def by_parts(self) -> bool:
        """Whether the layout is ``body``, of which a sequence has the joints that are seen in any of its frames."""
        return is_body(get_layout(self.layout))

    @property
    def uniform(self) -> bool:
        """Whether every training sequence has tokens of all joints that are present."""
        return not self.by_parts or (bool(self.present) and self.typical_joints == 0)

    @property
    def time_patches(self) -> int:
        """Time patches of a sequence, T/l."""
        return self.frames // self.patch_frames

    @property
    def tokens(self) -> int:
        """N, tokens of a sequence that has all joints of the layout."""
        return self.frames // self.patch_frames * self.joints

    @property
    def present_tokens(self) -> int:
        """Tokens of a sequence that has all joints that are present."""
        return self.frames // self.patch_frames * len(self.present_joints)

    @property
    def typical_tokens(self) -> int:
        """Tokens of a typical training sequence, of which K is a share."""
        return self.frames // self.patch_frames * (self.typical_joints or len(self.present_joints))

    @property
    def visible(self) -> int:
        """K, tokens that stay visible."""
        share = self.typical_tokens * (1 - self.mask_ratio)
        return max(1, round(share) if self.visible_rounding == "nearest" else int(share))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and YAML."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if isinstance(self.layout, SkeletonLayout):
            values["layout"] = self.layout.to_dict()
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls: type[Config], values: dict[str, Any]) -> Config:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: an unknown option (with the nearest valid one) or a value out of range.
        """
        if not isinstance(values, dict):
            raise ValueError(f"the options of {cls.__name__} are {shortened(values)}, expected a mapping")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise unknown_name(f"option of {cls.__name__}", name, known)
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        if isinstance(values.get("layout"), dict):
            values["layout"] = SkeletonLayout.from_dict(values["layout"])
        hints = typing.get_type_hints(cls)
        for name, value in values.items():
            _check_type(name, value, hints[name])
        return cls(**values)


def check_largest(config: Any) -> None:
    """Raise ``ValueError`` where a size of a model is beyond :data:`LARGEST`."""
    for name, most in LARGEST.items():
        value = getattr(config, name, 1)
        if not value <= most:
            raise ValueError(f"{name}={shortened(value)} is too large, expected at most {most}")


def _check_type(name: str, value: Any, hint: Any) -> None:
    """Raise ``ValueError`` where a number, a text or a truth value is of another type."""
    plain = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}
    kinds = [kind for kind in (typing.get_args(hint) or (hint,)) if kind in plain]
    if hint not in plain or (
        isinstance(value, plain[hint]) and (hint is bool or not isinstance(value, bool))
    ):
        return
    raise ValueError(f"{name} is {shortened(value)}, expected {' or '.join(kind.__name__ for kind in kinds)}")
