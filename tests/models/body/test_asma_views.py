"""ASMa on any skeleton: its graphs and its masks are those of the joints that a sequence has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastamr import ASMaModel
from fastamr.models.parts.asymmetric_masking import draw_of_each
from fastamr.models.parts.joint_graph import JointGraph
from fastamr.nn.st_gcn import PARTITIONS, graph_partitions, normalize_known
from fastamr.skeleton import BODY, LAYOUTS, get_layout
from fastamr.testing import relative_error

from .test_mixed_batches import mixed
from .test_parity import clips_of
from .twins import WAYS, clip_over_body, hung_as_in_body, over_body, places, small, twins

SEED = torch.tensor([3, 1])
BACKBONES: dict[str, dict[str, Any]] = {
    "stgcn": {},
    "transformer": {"backbone": "transformer"},
}


def moved(model: ASMaModel) -> ASMaModel:
    """Importance of edges and an alignment that are no longer what they start as."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def masks_over_body(keep: Tensor, model: ASMaModel, twin: ASMaModel, seen: Tensor) -> Tensor:
    """The masks of a model of a layout in the numbers of its twin."""
    present = list(twin.config.present_joints)
    place = torch.tensor([present.index(joint) for joint in places(model.layout).tolist()])
    absent = (~seen.any(0).any(0)[present]).nonzero()[:, 0]
    parts = []
    for masks in model.split_masks(keep).values():
        filler = absent[: twin.config.kept_joints - masks.joints.shape[1]].expand(len(keep), -1)
        parts += [torch.cat([place[masks.joints], filler], 1).sort(1).values, masks.times]
    return torch.cat(parts, 1).int()


@pytest.mark.parametrize("gaps", [False, True], ids=["all seen", "gaps"])
@pytest.mark.parametrize("layout", ["ntu25", "kinect20", "coco17"])
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("way", WAYS)
def test_it_is_the_model_of_the_layout(way: str, backbone: str, layout: str, gaps: bool) -> None:
    """Loss, terms, gradients, running statistics and features, also in training mode."""
    own = hung_as_in_body(layout) if backbone == "stgcn" else get_layout(layout)
    model, twin = twins("asma", own, way, **BACKBONES[backbone])
    assert isinstance(model, ASMaModel)
    assert isinstance(twin, ASMaModel)
    moved(model.double()), twin.double()
    state = {key: over_body(value, model, key) for key, value in model.state_dict().items()}
    twin.load_state_dict(state)
    clips = clips_of(layout, 5).double()
    valid = torch.rand(clips.shape[:3], generator=torch.Generator().manual_seed(0)) > 0.02 if gaps else None
    prepared = model.prepare(clips, valid)
    keep = model.choose_visible(prepared[0], seed=SEED, valid=prepared[1])
    over, seen = clip_over_body(clips, valid, own)
    truth = model(clips, keep=keep, valid=valid, return_details=True)
    found = twin(over, keep=masks_over_body(keep, model, twin, seen), valid=seen, return_details=True)
    assert relative_error(found.loss, truth.loss) < 1e-10
    assert relative_error(found.prediction, truth.prediction) < 1e-9
    for name, value in truth.terms.items():
        assert relative_error(found.terms[name], value) < 1e-8, name
    for output in (truth, found):
        output.loss.backward()
    gradients = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.grad is None:  # the alignment
            assert gradients[name].grad is None
            continue
        expected = over_body(parameter.grad, model, name)
        assert (gradients[name].grad - expected).norm() <= 1e-7 * expected.norm() + 1e-11, name
    now = twin.state_dict()
    for name, value in model.state_dict().items():
        if "running" in name:
            assert relative_error(now[name], over_body(value, model, name)) < 1e-9, name
    for mode in (True, False):
        expected = model.train(mode).features(clips, valid=valid)
        assert relative_error(twin.train(mode).features(over, valid=seen), expected) < 1e-9
    joints = places(own).sort().values.tolist()
    assert relative_error(twin.features(over, valid=seen, joints=joints), expected) < 1e-9


@pytest.mark.parametrize("backbone", BACKBONES)
def test_joints_that_a_sequence_lacks_change_nothing(backbone: str) -> None:
    """Neither their coordinates nor their parameters reach the loss, a gradient or a feature."""
    model = small("asma", layout="body", typical_joints=20, **BACKBONES[backbone]).double()
    assert isinstance(model, ASMaModel)
    moved(model)
    clips, valid = mixed("ntu25", "kinect20")
    clips = clips.double()
    valid[1, 4:9, places(get_layout("kinect20"))[3]] = False
    keep = model.choose_visible(*model.prepare(clips, valid)[:1], seed=SEED, valid=valid)
    absent = ~valid.any(0).any(0)
    channels = absent.repeat_interleave(3)
    outputs = []
    for filler in (float("nan"), 1e6):
        model.zero_grad()
        given = torch.where(valid[..., None], clips, filler)
        output = model(given, valid=valid, keep=keep, return_details=True)
        output.loss.backward()
        gradients = [one.grad.clone() for one in model.parameters() if one.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        # Features of training mode too, whose statistics are of the batch.
        features = model.features(given, valid=valid).detach()
        outputs.append((output.loss.detach(), output.terms, features, *gradients))
        with torch.no_grad():  # for the second pass
            for name, parameter in model.named_parameters():
                if name.endswith("joint_embed"):
                    parameter[:, absent] = 50.0
                elif name.endswith("edge_offset"):
                    parameter[:, absent] = 50.0
                    parameter[:, :, absent] = 50.0
                elif ".norm." in name and len(parameter) == len(channels):
                    parameter[channels] = 50.0
    torch.testing.assert_close(*outputs, rtol=0, atol=0)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_sequence_s_features_do_not_depend_on_the_batch(backbone: str) -> None:
    model = small("asma", layout="body", typical_joints=20, **BACKBONES[backbone]).double().eval()
    moved(model)
    clips, valid = mixed("ntu25", "kinect20", "coco17")
    clips = clips.double()
    together = model.features(clips, valid=valid)
    alone = torch.cat([model.features(clips[n : n + 1], valid=valid[n : n + 1]) for n in range(len(clips))])
    assert relative_error(together, alone) < 1e-12
    model.fixed_shapes = True
    assert relative_error(model.features(clips, valid=valid), together) < 1e-12


def test_masks_are_shares_of_the_joints_that_a_sequence_has() -> None:
    model = small("asma", layout="body", typical_joints=20)
    assert isinstance(model, ASMaModel)
    clips, valid = mixed("ntu25", "kinect20", "coco17")
    valid[0, :, 1:] = False  # one joint alone
    clips, valid = model.prepare(torch.cat([clips] * 50), torch.cat([valid] * 50))
    seen = valid.any(1)
    masks = model.split_masks(model.choose_visible(clips, seed=SEED, valid=valid))
    total = seen.sum(1)
    for mask in masks.values():
        assert mask.joints.shape[1] == model.config.kept_joints
        assert all(len(row.unique()) == len(row) for row in mask.joints)
        shown = seen.gather(1, mask.joints).sum(1)
        expected = torch.tensor([1 if n == 1 else n - round(n * 0.32) for n in total.tolist()])
        assert torch.equal(shown, expected)
    assert not torch.equal(masks["a"].joints, masks["b"].joints)


@pytest.mark.parametrize("central", [True, False])
def test_joints_are_hidden_in_proportion_to_their_degree_among_those_that_exist(central: bool) -> None:
    """One hidden joint of kinect20 follows the degrees of its own tree, within four standard errors."""
    draws, layout = 20000, get_layout("kinect20")
    seen = torch.zeros(1, BODY.num_joints, dtype=torch.bool).index_fill(1, places(layout), True)
    degrees = JointGraph(BODY, "spatial").degrees(torch.arange(39), seen)
    own = torch.tensor(layout.degrees, dtype=torch.float64)
    assert torch.equal(degrees[0, places(layout)].double(), own)
    seen, degrees = seen.expand(draws, -1), degrees.expand(draws, -1)
    listed = draw_of_each(SEED, degrees, 0.05, 38, seen, central=central)
    hidden = draws - torch.bincount(listed.flatten(), minlength=39).double()[places(layout)]
    assert int(hidden.sum()) == draws
    weights = own if central else 1 / own
    share = weights / weights.sum()
    error = (hidden / draws - share) / (share * (1 - share) / draws).sqrt()
    assert error.abs().max() < 4
    part = draw_of_each(torch.tensor([3, 1, 100]), degrees[:5], 0.05, 38, seen[:5], central=central)
    assert torch.equal(part, listed[100:105])


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_graph_of_what_exists(name: str, partition: str) -> None:
    """Of all joints it is the layout's; of some of them that of a layout of these."""
    layout = get_layout(name)
    graph = JointGraph(layout, partition)
    every = torch.arange(layout.num_joints)
    truth = graph_partitions(layout, partition)
    assert torch.equal(graph.partitions(every), truth)
    seen = torch.ones(1, layout.num_joints, dtype=torch.bool)
    assert torch.equal(graph.partitions(every, seen)[0], truth)
    if name == "hand21":
        return
    hung = hung_as_in_body(name) if set(LAYOUTS[name].joints) <= set(BODY.joints) else None
    if hung is None or hung.spine is None or BODY.joints[4] not in hung.joints:
        return  # whose centre is another one than body's
    own = places(layout)
    of_body, expected = JointGraph(BODY, partition), graph_partitions(hung, partition)
    assert torch.equal(of_body.partitions(own), expected)
    seen = torch.zeros(1, BODY.num_joints, dtype=torch.bool).index_fill(1, own, True)
    found = of_body.partitions(torch.arange(39), seen)[0]
    assert torch.equal(found[:, own[:, None], own], expected)
    assert found.sum() == expected.sum()


@pytest.mark.parametrize("training", [True, False])
def test_statistics_of_what_is_known(training: bool) -> None:
    """Those of PyTorch's layer over the known values alone, channel by channel."""
    torch.manual_seed(0)
    x = torch.randn(6, 4, 5, dtype=torch.float64)
    known = torch.rand(6, 4, 1) > 0.4
    known[:, 2] = False
    index = torch.tensor([5, 1, 0, 3])
    layer = nn.BatchNorm1d(7).double().train(training)
    with torch.no_grad():
        for value in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
            value.copy_(torch.rand(7) + 0.5)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    found = normalize_known(layer, x, known, index)
    after = layer.state_dict()
    for place, channel in enumerate(index.tolist()):
        rows = known[:, place, 0]
        values = x[rows, place]
        mean, variance = before["running_mean"][channel].clone(), before["running_var"][channel].clone()
        if rows.any():
            expected = functional.batch_norm(
                values.reshape(-1, 1), mean[None], variance[None],
                layer.weight[channel, None], layer.bias[channel, None], training,
            )  # fmt: skip
            torch.testing.assert_close(found[rows, place], expected.view(values.shape))
            if training:
                twin = nn.BatchNorm1d(1).double()
                twin.running_mean.copy_(before["running_mean"][channel])
                twin.running_var.copy_(before["running_var"][channel])
                twin(values.reshape(-1, 1))
                mean, variance = twin.running_mean[0], twin.running_var[0]
        torch.testing.assert_close(after["running_mean"][channel], mean)
        torch.testing.assert_close(after["running_var"][channel], variance)
    assert found.isfinite().all()
    for other in (2, 4, 6):
        assert after["running_mean"][other] == before["running_mean"][other]
    assert after["num_batches_tracked"] == int(training)
