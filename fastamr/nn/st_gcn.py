"""Spatial temporal graph convolution over the joints of a skeleton (ST-GCN, Yan et al., AAAI 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import check_name
from ..skeleton import SkeletonLayout

PARTITIONS = ("uniform", "distance", "spatial")
# Frames that a temporal convolution sees, and the stride of the network in time (ST-GCN).
_SPAN, STRIDE = 9, 4


def graph_centre(layout: SkeletonLayout) -> int:
    """The joint from which the spatial partitioning measures: where the arms meet, as in ST-GCN, else the root."""
    return layout.root if layout.spine is None else layout.spine[1]


def joint_distances(layout: SkeletonLayout) -> list[int]:
    """Bones between each joint and the centre of the graph; in a further tree of the layout, its root (choice)."""
    neighbours: list[list[int]] = [[] for _ in range(layout.num_joints)]
    for child, parent in layout.edges:
        neighbours[child].append(parent)
        neighbours[parent].append(child)
    found: dict[int, int] = {}
    roots = [joint for joint, parent in enumerate(layout.parents) if parent == -1]
    for start in (graph_centre(layout), *roots):
        waiting = [] if start in found else [start]
        found.setdefault(start, 0)
        for joint in waiting:
            fresh = [other for other in neighbours[joint] if other not in found]
            found.update(dict.fromkeys(fresh, found[joint] + 1))
            waiting += fresh
    return [found[joint] for joint in range(layout.num_joints)]


def graph_partitions(layout: SkeletonLayout, partition: str = "spatial") -> Tensor:
    """Normalised adjacency ``(P, V, V)`` of a skeleton, split into subsets of neighbours with weights of their own.

    Entry ``[p, v, w]`` is the share of joint v in what joint w receives. A joint neighbours itself; its neighbours have
    equal shares, which add up to 1 over all subsets (public code of ST-GCN).

    Args:
        layout: the skeleton.
        partition: ``"uniform"`` has one subset; ``"distance"`` two, the joint itself and the joints one bone away;
            ``"spatial"`` three, the joint itself, the neighbours further from the centre than it, and those nearer
            (the order of the public code).

    Raises:
        ValueError: an unknown partitioning.
    """
    check_name("partition", partition, PARTITIONS)
    own = torch.eye(layout.num_joints)
    bones = torch.zeros_like(own)
    for child, parent in layout.edges:
        bones[child, parent] = bones[parent, child] = 1.0
    count = (own + bones).sum(0)
    if partition == "uniform":
        subsets = [own + bones]
    elif partition == "distance":
        subsets = [own, bones]
    else:
        distance = torch.tensor(joint_distances(layout))
        further = distance[:, None] > distance[None, :]
        subsets = [own, bones * further, bones * ~further]
    return torch.stack(subsets) / count


class GraphConvolution(nn.Module):
    """A linear map for each subset of neighbours, summed over the neighbours.

    Args:
        channels: of the input.
        width: of the output.
        partitions: P, subsets of neighbours.
        joints: V.
    """

    def __init__(self, channels: int, width: int, partitions: int, joints: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, partitions * width, 1)
        # The learned importance of an edge is 1 + edge_offset: weight decay pulls it to the graph, not to 0 (choice).
        self.edge_offset = nn.Parameter(torch.zeros(partitions, joints, joints))

    def forward(self, x: Tensor, graph: Tensor, joints: Tensor | None = None) -> Tensor:
        """``x (S, C, T, V')`` over ``graph (P, V, V)`` to ``(S, D, T, V')``.

        ``joints (S, V')`` says which joints are there; None for all.
        """
        weights = graph * (1 + self.edge_offset)
        x = self.conv(x).unflatten(1, (graph.shape[0], -1))
        if joints is None:
            return torch.einsum("spctv,pvw->sctw", x, weights.to(x.dtype))
        # What a missing joint would send is left out; the shares of the others stay as they are (choice).
        part = weights[:, joints[:, :, None], joints[:, None, :]].transpose(0, 1)
        return torch.einsum("spctv,spvw->sctw", x, part.to(x.dtype))


class STGCNBlock(nn.Module):
    """Graph convolution, then a convolution over time, around them a residual connection.

    Args:
        channels: of the input.
        width: of the output.
        partitions: P, subsets of neighbours.
        joints: V.
        stride: in time.
        residual: whether there is a residual connection.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        partitions: int,
        joints: int,
        *,
        stride: int = 1,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.graph = GraphConvolution(channels, width, partitions, joints)
        self.time = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(),
            # No bias here and below: the normalisation that follows takes it away.
            nn.Conv2d(width, width, (_SPAN, 1), (stride, 1), (_SPAN // 2, 0), bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut: nn.Module | None = None
        if residual:
            self.shortcut = nn.Identity()
            if channels != width or stride != 1:
                conv = nn.Conv2d(channels, width, 1, (stride, 1), bias=False)
                self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(width))

    def forward(self, x: Tensor, graph: Tensor, joints: Tensor | None = None) -> Tensor:
        """``(S, C, T, V')`` to ``(S, D, T/stride, V')``, rounded up."""
        out = self.time(self.graph(x, graph, joints))
        return (out if self.shortcut is None else out + self.shortcut(x)).relu()


class STGCN(nn.Module):
    """Ten blocks that widen from ``hidden`` over twice and four times that to ``width`` and halve the time twice.

    No dropout (choice). The input is normalised joint by joint and coordinate by coordinate over the batch and time.

    Args:
        layout: the skeleton.
        width: D, of the tokens.
        hidden: channels of the first four blocks (PSTL: 16).
        channels: C, 2 or 3.
        partition: of the neighbours, see :func:`graph_partitions`.

    Shapes:
        clips ``(S, T, V, C)`` -> tokens ``(S, ceil(T/4) * V, D)``, in time order and then by joint; with joints
        ``(S, V')`` only those joints exist: ``(S, ceil(T/4) * V', D)``.
    """

    graph: Tensor

    def __init__(
        self,
        layout: SkeletonLayout,
        width: int,
        *,
        hidden: int = 16,
        channels: int = 3,
        partition: str = "spatial",
    ) -> None:
        super().__init__()
        # Not saved: it follows from the layout.
        self.register_buffer("graph", graph_partitions(layout, partition), persistent=False)
        self.norm = nn.BatchNorm1d(layout.num_joints * channels)
        widths = [channels, *[hidden] * 4, *[2 * hidden] * 3, *[4 * hidden] * 2, width]
        self.blocks = nn.ModuleList(
            STGCNBlock(
                widths[place],
                widths[place + 1],
                self.graph.shape[0],
                layout.num_joints,
                stride=2 if place in (4, 7) else 1,
                residual=place > 0,
            )
            for place in range(len(widths) - 1)
        )

    def forward(self, clips: Tensor, joints: Tensor | None = None) -> Tensor:
        """Tokens of all joints, or of the listed ones."""
        x = self.norm(clips.flatten(2).transpose(1, 2)).unflatten(1, clips.shape[2:])
        x = x.permute(0, 2, 3, 1).contiguous()
        if joints is not None:
            x = x.gather(3, joints[:, None, None, :].expand(-1, x.shape[1], x.shape[2], -1))
        for block in self.blocks:
            x = block(x, self.graph, joints)
        return x.permute(0, 2, 3, 1).flatten(1, 2)
