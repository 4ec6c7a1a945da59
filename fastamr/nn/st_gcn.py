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

    def forward(
        self, x: Tensor, graph: Tensor, joints: Tensor | None = None, index: Tensor | None = None
    ) -> Tensor:
        """``x (S, C, T, V')`` over ``graph (P, V, V)``, or ``(S, P, V, V)``, to ``(S, D, T, V')``.

        ``joints (S, V')`` says which joints of the graph are seen; None for all. ``index (V,)`` says which joints of
        the layout the graph has; None for all.
        """
        offset = self.edge_offset if index is None else self.edge_offset[:, index[:, None], index]
        weights = graph * (1 + offset)
        x = self.conv(x).unflatten(1, (graph.shape[-3], -1))
        if joints is not None:
            # What a joint that is not seen would send is left out; the shares of the others stay as they are (choice).
            if weights.ndim == 3:
                weights = weights[:, joints[:, :, None], joints[:, None, :]].transpose(0, 1)
            else:
                rows = torch.arange(len(joints), device=joints.device)[:, None, None]
                weights = weights[rows, :, joints[:, :, None], joints[:, None, :]].movedim(3, 1)
        form = "spctv,pvw->sctw" if weights.ndim == 3 else "spctv,spvw->sctw"
        return torch.einsum(form, x, weights.to(x.dtype))


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

    def forward(
        self,
        x: Tensor,
        graph: Tensor,
        joints: Tensor | None = None,
        index: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """``(S, C, T, V')`` to ``(S, D, T/stride, V')``, rounded up.

        Joints that are not ``known (S, V')`` count in no batch statistics; the graph gives them no share.
        """
        out = _in_turn(self.time, self.graph(x, graph, joints, index), known)
        return (out if self.shortcut is None else out + _in_turn(self.shortcut, x, known)).relu()


def _in_turn(layers: nn.Module, x: Tensor, known: Tensor | None) -> Tensor:
    """Layers one after another over ``x (S, D, T, V')``, with batch statistics of the joints ``known (S, V')``."""
    if known is None or not isinstance(layers, nn.Sequential):
        return layers(x)
    mask = known[:, None, None, :]
    for layer in layers:
        x = normalize_known(layer, x, mask) if isinstance(layer, nn.BatchNorm2d) else layer(x)
    return x


def normalize_known(
    layer: nn.BatchNorm1d | nn.BatchNorm2d,
    x: Tensor,
    known: Tensor | None = None,
    index: Tensor | None = None,
) -> Tensor:
    """Batch normalisation whose statistics are those of what is known.

    Args:
        layer: with running statistics.
        x: ``(S, D, ...)``; what is not known is finite, and what becomes of it has no meaning.
        known: bool, of a shape that broadcasts to that of ``x``; None = all.
        index: ``(D,)`` int64, the channels of the layer that ``x`` has; None = all. In training mode the running
            statistics of the others, and of channels of which nothing is known, stay.

    Returns:
        As ``x``; computed in float32 at least.
    """
    if known is None and index is None:
        return layer(x)

    def own(values: Tensor) -> Tensor:
        return values if index is None else values.index_select(0, index)

    wide = x.to(torch.promote_types(torch.float32, x.dtype))
    mean, variance = own(layer.running_mean), own(layer.running_var)  # type: ignore[arg-type]
    if layer.training:
        others = [0, *range(2, x.ndim)]
        mask = torch.ones_like(wide) if known is None else known.to(wide.dtype).expand(wide.shape)
        count = mask.sum(others)
        least, some = count.clamp(min=1), count > 0
        seen_mean = (wide * mask).sum(others) / least
        centred = (wide - seen_mean.view(-1, *[1] * (x.ndim - 2))) * mask
        seen_variance = centred.square().sum(others) / least
        _follow(
            layer, mean, variance, seen_mean, seen_variance * least / (least - 1).clamp(min=1), some, index
        )
        mean, variance = seen_mean, seen_variance
    scale = own(layer.weight) * (variance + layer.eps).rsqrt()
    shape = (-1, *[1] * (x.ndim - 2))
    return ((wide - mean.view(shape)) * scale.view(shape) + own(layer.bias).view(shape)).to(x.dtype)


@torch.no_grad()
def _follow(
    layer: nn.BatchNorm1d | nn.BatchNorm2d,
    mean: Tensor,
    variance: Tensor,
    seen_mean: Tensor,
    seen_variance: Tensor,
    some: Tensor,
    index: Tensor | None,
) -> None:
    """Move the running statistics of a layer towards those seen, where there are ``some (D,)``."""
    layer.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    momentum = layer.momentum or 0.0
    for buffer, old, new in (
        (layer.running_mean, mean, seen_mean),
        (layer.running_var, variance, seen_variance),
    ):
        moved = torch.lerp(old, new.to(old.dtype), some.to(old.dtype) * momentum)
        if index is None:
            buffer.copy_(moved)  # type: ignore[union-attr]
        else:
            buffer.index_copy_(0, index, moved)  # type: ignore[union-attr]


class STGCN(nn.Module):
    """Ten blocks that widen from ``hidden`` over twice and four times that to ``width`` and halve the time twice.

    No dropout (choice). The input is normalised joint by joint and coordinate by coordinate over the batch and time.

    Args:
        layout: the skeleton.
        width: D, of the tokens.
        hidden: channels of the first four blocks (PSTL: 16).
        channels: C, 2 or 3.
        partition: of the neighbours, see :func:`graph_partitions`.
        graph: another graph than the layout's, ``(P, V', V')`` of some of its joints.

    Shapes:
        clips ``(S, T, V, C)`` -> tokens ``(S, ceil(T/4) * V, D)``, in time order and then by joint; with joints
        ``(S, V')`` only those joints are seen: ``(S, ceil(T/4) * V', D)``.
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
        graph: Tensor | None = None,
    ) -> None:
        super().__init__()
        # Not saved: it follows from the layout.
        graph = graph_partitions(layout, partition) if graph is None else graph
        self.register_buffer("graph", graph, persistent=False)
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

    def forward(
        self,
        clips: Tensor,
        joints: Tensor | None = None,
        *,
        graph: Tensor | None = None,
        index: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """Tokens of all joints, or of the listed ones.

        Args:
            clips: ``(S, T, V, C)``.
            joints: ``(S, V')`` int64, places of the joints to see among the clips' V; None = all.
            graph: the sequences' own, ``(S, P, V, V)``, or another one of all, ``(P, V, V)``.
            index: ``(V,)`` int64, the joints of the layout that the clips have; None = all.
            known: ``(S, V)`` bool, which of these a sequence has, by its own graph too. The others count in no
                statistics of the batch; what becomes of them has no meaning. None = all.
        """
        graph = self.graph if graph is None else graph
        channels = clips.shape[3]
        columns = None
        if index is not None:
            columns = (index[:, None] * channels + torch.arange(channels, device=index.device)).flatten()
        mask = None if known is None else known.repeat_interleave(channels, 1)[..., None]
        x = normalize_known(self.norm, clips.flatten(2).transpose(1, 2), mask, columns)
        x = x.unflatten(1, clips.shape[2:]).permute(0, 2, 3, 1).contiguous()
        if joints is not None:
            x = x.gather(3, joints[:, None, None, :].expand(-1, x.shape[1], x.shape[2], -1))
            known = None if known is None else known.gather(1, joints)
        for block in self.blocks:
            x = block(x, graph, joints, index, known)
        return x.permute(0, 2, 3, 1).flatten(1, 2)
