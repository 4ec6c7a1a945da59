from __future__ import annotations

import pytest
import torch

from fastamr.nn import STGCN
from fastamr.nn.st_gcn import GraphConvolution, graph_centre, graph_partitions, joint_distances
from fastamr.skeleton import LAYOUTS, SkeletonLayout

# A star with one long arm: 0 - 1, 0 - 2, 0 - 3 - 4; measured from the root.
STAR = SkeletonLayout("star", tuple("abcde"), (-1, 0, 0, 0, 3))


def columns(*names: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(names).T


def test_partitions_of_a_star_by_hand() -> None:
    """Column w lists what joint w receives; degree + 1 shares: 4, 2, 2, 3, 2 of them."""
    own = torch.diag(torch.tensor([1 / 4, 1 / 2, 1 / 2, 1 / 3, 1 / 2]))
    further = columns(
        (0, 1 / 4, 1 / 4, 1 / 4, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 1 / 3), (0, 0, 0, 0, 0)
    )
    nearer = columns(
        (0, 0, 0, 0, 0), (1 / 2, 0, 0, 0, 0), (1 / 2, 0, 0, 0, 0), (1 / 3, 0, 0, 0, 0), (0, 0, 0, 1 / 2, 0)
    )
    torch.testing.assert_close(graph_partitions(STAR, "spatial"), torch.stack([own, further, nearer]))
    torch.testing.assert_close(graph_partitions(STAR, "distance"), torch.stack([own, further + nearer]))
    torch.testing.assert_close(graph_partitions(STAR, "uniform"), (own + further + nearer)[None])


def test_the_centre_is_where_the_arms_meet() -> None:
    """On a chain whose trunk ends at joint 2, joint 1 is nearer than 0 and joint 3 further than 2."""
    chain = SkeletonLayout("chain", tuple("abcd"), (-1, 0, 1, 2), spine=(0, 2))
    assert joint_distances(chain) == [2, 1, 0, 1]
    _, further, nearer = graph_partitions(chain, "spatial")
    assert further.nonzero().tolist() == [[0, 1], [1, 2], [3, 2]]
    assert nearer.nonzero().tolist() == [[1, 0], [2, 1], [2, 3]]
    ntu = LAYOUTS["ntu25"]
    assert ntu.joints[graph_centre(ntu)] == "spine"  # joint 21 of ST-GCN's graph
    assert max(joint_distances(ntu)) == 6


def test_a_second_tree_is_measured_from_its_own_root() -> None:
    forest = SkeletonLayout("forest", tuple("abcde"), (-1, 0, -1, 2, 3))
    assert joint_distances(forest) == [0, 1, 0, 1, 2]
    assert graph_partitions(forest).sum((0, 1)).tolist() == [1.0] * 5


@pytest.mark.parametrize("partition", ["uniform", "distance", "spatial"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_shares_add_up_and_follow_the_bones(name: str, partition: str) -> None:
    layout = LAYOUTS[name]
    graph = graph_partitions(layout, partition)
    torch.testing.assert_close(graph.sum((0, 1)), torch.ones(layout.num_joints))
    assert (graph > 0).sum() == layout.num_joints + 2 * len(layout.edges)
    assert ((graph > 0).sum(0) <= 1).all()


def test_graph_convolution_is_the_sum_over_neighbours() -> None:
    torch.manual_seed(0)
    layer, graph = GraphConvolution(2, 3, 3, 5), graph_partitions(STAR)
    torch.nn.init.normal_(layer.edge_offset)
    x = torch.randn(2, 2, 4, 5)
    weight, bias = layer.conv.weight.view(3, 3, 2), layer.conv.bias.view(3, 3)
    expected = torch.zeros(2, 3, 4, 5)
    for subset in range(3):
        for source in range(5):
            sent = torch.einsum("dc,sct->sdt", weight[subset], x[..., source]) + bias[subset][:, None]
            for target in range(5):
                share = graph[subset, source, target] * (1 + layer.edge_offset[subset, source, target])
                expected[..., target] += share * sent
    torch.testing.assert_close(layer(x, graph), expected)


def test_hidden_joints_send_nothing() -> None:
    """Leaving joints out equals cutting their edges, sequence by sequence."""
    torch.manual_seed(0)
    layer, graph = GraphConvolution(2, 3, 3, 5), graph_partitions(STAR)
    joints = torch.tensor([[0, 1, 4], [1, 3, 4]])
    x = torch.randn(2, 2, 4, 5)
    part = layer(x.gather(3, joints[:, None, None].expand(-1, 2, 4, -1)), graph, joints)
    for sequence, seen in enumerate(joints):
        cut = torch.zeros_like(graph)
        cut[:, seen] = graph[:, seen]
        torch.testing.assert_close(part[sequence], layer(x[[sequence]], cut)[0][..., seen])


def test_network_shapes_and_hidden_joints_have_no_effect() -> None:
    torch.manual_seed(0)
    model = STGCN(STAR, 12, hidden=4, channels=2, partition="distance").eval()
    clips = torch.randn(3, 18, 5, 2)
    assert model(clips).shape == (3, 5 * 5, 12)
    assert [block.graph.conv.in_channels for block in model.blocks] == [2, 4, 4, 4, 4, 8, 8, 8, 16, 16]
    assert [block.shortcut is None for block in model.blocks] == [True] + [False] * 9
    joints = torch.tensor([[0, 1], [2, 4], [0, 3]])
    tokens = model(clips, joints)
    assert tokens.shape == (3, 5 * 2, 12)
    spoiled = torch.full_like(clips, 9.0).scatter(
        2,
        joints[:, None, :, None].expand(-1, 18, -1, 2),
        clips.gather(2, joints[:, None, :, None].expand(-1, 18, -1, 2)),
    )
    assert torch.equal(model(spoiled, joints), tokens)
    everything = torch.arange(5).expand(3, -1)
    torch.testing.assert_close(model(clips, everything), model(clips))


def test_unknown_partition() -> None:
    with pytest.raises(ValueError, match="did you mean 'spatial'"):
        graph_partitions(STAR, "spatal")
