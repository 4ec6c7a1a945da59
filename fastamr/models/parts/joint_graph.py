"""The graph of the joints that there are: what is left of a layout's tree where some joints are missing.

A bone goes from a joint to the nearest joint above it in the tree that there is, so that a shoulder without a collar
hangs on what is above the collar. With all joints it is the graph of :func:`fastamr.nn.st_gcn.graph_partitions`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...nn.st_gcn import graph_centre
from ...skeleton import SkeletonLayout
from .presence import ancestors, nearest_above


class JointGraph(nn.Module):
    """Bones, degrees and partitions of neighbours of some joints of a layout. Its tables are not saved.

    Args:
        layout: the skeleton.
        partition: see :func:`fastamr.nn.st_gcn.graph_partitions`.
    """

    path: Tensor

    def __init__(self, layout: SkeletonLayout, partition: str) -> None:
        super().__init__()
        self.partition, self.centre = partition, graph_centre(layout)
        self.register_buffer("path", ancestors(layout, range(layout.num_joints)), persistent=False)

    def bones(self, joints: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return 1 where a bone joins two joints, else 0.

        Args:
            joints: ``(V',)`` int64, of the layout.
            seen: ``(S, V')`` bool, which of them each sequence has; None = all.

        Returns:
            ``(V', V')``, or ``(S, V', V')``, symmetric.
        """
        # In float32 whatever the model's precision: the shares are to be those of the layout's own table.
        path = self.path[joints[:, None], joints].float()
        parents, has_parent = nearest_above(path, path.sum(1), seen)
        places = torch.arange(len(joints), device=joints.device)
        upwards = (parents[..., None] == places) & has_parent[..., None]
        return (upwards | upwards.transpose(-1, -2)).to(path.dtype)

    def degrees(self, joints: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the bones that meet in each joint, ``(V',)`` or ``(S, V')``; one without any is an end, 1 (choice)."""
        return self.bones(joints, seen).sum(-1).clamp(min=1)

    def partitions(self, joints: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the normalised adjacency ``(P, V', V')``, or ``(S, P, V', V')``; 0 for joints that there are not."""
        bones = self.bones(joints, seen)
        own = torch.eye(len(joints), dtype=bones.dtype, device=bones.device)
        own = own if seen is None else own * seen[:, None, :]
        count = (own + bones).sum(-2, keepdim=True).clamp(min=1)
        if self.partition == "uniform":
            subsets = [own + bones]
        elif self.partition == "distance":
            subsets = [own, bones]
        else:
            distance = self._distances(joints, seen)
            further = (distance[..., :, None] > distance[..., None, :]).to(bones.dtype)
            subsets = [own, bones * further, bones * (1 - further)]
        return torch.stack([one.expand_as(bones) for one in subsets], -3) / count[..., None, :, :]

    def _distances(self, joints: Tensor, seen: Tensor | None) -> Tensor:
        """Bones between each joint and the centre, or what is nearest above it; in a further tree, its root."""
        path, centre = self.path[joints[:, None], joints].float(), self.path[self.centre, joints].float()
        if seen is not None:
            path, centre = path * seen[:, None, :], (centre * seen)[:, None, :]
        common, length = (path * centre).sum(-1), path.sum(-1)
        return torch.where(common > 0, length + centre.sum(-1) - 2 * common, length - 1)
