"""What is changed on clips beyond crop and rotation: mirroring, size, lost limbs, noise, projection to 2-D."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ... import ops
from ...layouts.body import REGIONS, regions_of
from ...skeleton import SkeletonLayout

# All regions but the trunk can be lost.
_LIMBS = REGIONS[1:]


@dataclass(frozen=True)
class Augmentation:
    """The amounts, and what a layout says of its joints; see :func:`fastamr.ops.augment_clips`.

    Attributes:
        mirror: probability with which a clip is mirrored.
        scale_jitter: R, of a size uniform in ``1 - R .. 1 + R``.
        drop_limbs: probability with which each limb of a body is lost.
        noise: standard deviation of the noise, in the unit of the coordinates.
        project: probability with which a clip is seen from the side, without depth.
        partners: ``(V,)`` int64, the joint on the other side; None where nothing is mirrored.
        limbs: ``(V,)`` int64, the limb of each joint, -1 for the trunk; None where none is lost.
        patch_frames: frames of a token.
        visible: tokens that a sequence must keep.
        keep_flat: sequences whose third channel is 0 throughout stay so, although clips are rotated.
    """

    mirror: float = 0.0
    scale_jitter: float = 0.0
    drop_limbs: float = 0.0
    noise: float = 0.0
    project: float = 0.0
    partners: Tensor | None = None
    limbs: Tensor | None = None
    patch_frames: int = 1
    visible: int = 0
    keep_flat: bool = False

    @classmethod
    def of(
        cls,
        layout: SkeletonLayout,
        channels: int,
        *,
        mirror: float = 0.0,
        scale_jitter: float = 0.0,
        drop_limbs: float = 0.0,
        noise: float = 0.0,
        project: float = 0.0,
        patch_frames: int = 1,
        visible: int = 0,
        keep_flat: bool = False,
    ) -> Augmentation | None:
        """Look up what the amounts need of a layout; None where all of them are 0.

        Args:
            layout: of the clips.
            channels: C of the clips.
            mirror: as the rest, see above; with ``project`` flat sequences stay flat in any case.

        Raises:
            ValueError: the layout has no pairs to mirror or no limbs to lose, or the clips no depth to leave out.
        """
        if mirror > 0 and not layout.pairs:
            raise ValueError(
                f"mirror {mirror:g}: layout {layout.name!r} has no pairs of left and right joints: pass --mirror 0, or "
                "name the pairs in the layout's file"
            )
        limbs = limbs_of(layout)
        if drop_limbs > 0 and not bool((limbs >= 0).any()):
            raise ValueError(
                f"drop_limbs {drop_limbs:g}: layout {layout.name!r} has no joint of an arm, a leg or a head by its "
                "names: pass --drop-limbs 0"
            )
        if project > 0 and channels != 3:
            raise ValueError(
                f"project {project:g}: the data has {channels} channels, and a projection needs 3: pass --project 0"
            )
        keep_flat = channels == 3 and (keep_flat or project > 0)
        if not (keep_flat or mirror or scale_jitter or drop_limbs or noise):
            return None
        return cls(
            mirror,
            scale_jitter,
            drop_limbs,
            noise,
            project,
            partners_of(layout) if mirror > 0 else None,
            limbs if drop_limbs > 0 else None,
            patch_frames,
            visible,
            keep_flat,
        )

    def to(self, device: torch.device) -> Augmentation:
        """Return the same with its tables on a device."""
        partners, limbs = (
            None if table is None else table.to(device) for table in (self.partners, self.limbs)
        )
        return replace(self, partners=partners, limbs=limbs)

    def __call__(
        self,
        clips: Tensor,
        valid: Tensor | None,
        seed: Tensor,
        *,
        group: Tensor,
        numbers: Tensor,
        flat: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return changed clips and validity; the arguments are those of :func:`fastamr.ops.augment_clips`."""
        return ops.augment_clips(
            clips,
            seed,
            valid=valid,
            mirror=self.mirror,
            partners=self.partners,
            scale_jitter=self.scale_jitter,
            drop_limbs=self.drop_limbs,
            limbs=self.limbs,
            patch_frames=self.patch_frames,
            visible=self.visible,
            noise=self.noise,
            project=self.project,
            flat=flat,
            group=group,
            numbers=numbers,
        )


def partners_of(layout: SkeletonLayout) -> Tensor:
    """Return the joint on the other side of each joint, or the joint itself ``(V,)`` int64."""
    partners = torch.arange(layout.num_joints)
    for left, right in layout.pairs:
        partners[left], partners[right] = right, left
    return partners


def limbs_of(layout: SkeletonLayout) -> Tensor:
    """Return the limb of each joint: a number of head, left and right arm, left and right leg; -1 for others ``(V,)``.

    Joints of no known region are never lost, as the trunk's.
    """
    return torch.tensor([_LIMBS.index(region) if region in _LIMBS else -1 for region in regions_of(layout)])
