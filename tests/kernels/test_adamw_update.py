"""The AdamW kernels against torch.optim.AdamW in float64, and how they find their tensors."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from fastamr.kernels import adamw_update as module

from fastamr import reference

from ..adamw_cases import (
    EPS,
    SHAPES,
    Lists,
    Peer,
    assert_close_to_float64,
    make_gradients,
    make_lists,
)

F32, F16 = torch.float32, torch.float16
DTYPES = [(F32,), (F16,), (F32, F16), pytest.param((torch.bfloat16, F32, F16), marks=pytest.mark.gpu)]
COPIES = [F16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]


@pytest.mark.parametrize("max_norm", [None, 0.7])
@pytest.mark.parametrize("dtypes", DTYPES)
def test_as_exact_as_torch(
    dtypes: tuple[torch.dtype, ...], max_norm: float | None, device: torch.device
) -> None:
    lists = make_lists(device)
    peer, truth = Peer(torch.float32, max_norm=max_norm), Peer(torch.float64, max_norm=max_norm)
    for number in range(3):
        gradients = make_gradients(number, device, dtypes=dtypes)
        norm = lists.update(gradients, max_norm=max_norm)
        peer.update(gradients)
        expected = truth.update(gradients)
        if max_norm is not None:
            torch.testing.assert_close(norm.double().cpu(), expected, rtol=1e-6, atol=0)
    assert_close_to_float64(lists, truth, peer)


@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("base", [0, module.CHUNK])
def test_around_the_chunk_size(base: int, extra: int, device: torch.device) -> None:
    """With guards around every tensor: nothing is written beyond its end."""
    shape = (max(base + extra, 0),)
    lists, peer, truth = (
        make_lists(device, (shape,)),
        Peer(torch.float32, (shape,)),
        Peer(torch.float64, (shape,)),
    )
    guarded = {}
    for name in ("parameters", "exp_avgs", "exp_avg_sqs"):
        (tensor,) = getattr(lists, name)
        buffer = torch.full((8 + len(tensor) + 8,), 77.0, device=device)
        buffer[8 : 8 + len(tensor)] = tensor
        guarded[name] = buffer
        setattr(lists, name, [buffer[8 : 8 + len(tensor)]])
    gradients = make_gradients(0, device, (shape,))
    lists.update(gradients, max_norm=1.0)
    for each in (peer, truth):
        each.max_norm = 1.0
        each.update(gradients)
    if shape[0]:
        assert_close_to_float64(lists, truth, peer)
    for buffer in guarded.values():
        assert (buffer[:8] == 77).all()
        assert (buffer[8 + shape[0] :] == 77).all()


@pytest.mark.parametrize("dtype", COPIES)
def test_working_copies(dtype: torch.dtype, device: torch.device) -> None:
    lists = make_lists(device, working_dtype=dtype)
    for number in range(2):
        lists.update(make_gradients(number, device))
        for copy, parameter in zip(lists.working, lists.parameters, strict=True):
            assert torch.equal(copy, parameter.to(dtype))


def test_bfloat16_copies_within_their_spacing(device: torch.device) -> None:
    """The interpreter cuts off where the compiler rounds: either is within one spacing, 2**-7 relative."""
    lists = make_lists(device, working_dtype=torch.bfloat16)
    lists.update(make_gradients(0, device, dtypes=(torch.bfloat16,)))
    for copy, parameter in zip(lists.working, lists.parameters, strict=True):
        torch.testing.assert_close(copy.float(), parameter, rtol=2**-7, atol=0)


@pytest.mark.parametrize("offset", [1, 4])
def test_unaligned_tensors(offset: int, device: torch.device) -> None:
    """Addresses that are not divisible by 16, of one kind of tensor or of all."""
    shape = (module.CHUNK + 10,)
    names = ("parameters", "exp_avgs", "exp_avg_sqs", "working")
    for moved in (("parameters",), ("gradients",), ("working",), (*names, "gradients")):
        lists, plain = (make_lists(device, (shape,), working_dtype=F16) for _ in range(2))
        gradients = make_gradients(0, device, (shape,))
        laid = shifted(gradients[0], offset) if "gradients" in moved else gradients[0]
        for name in moved:
            if name != "gradients":
                setattr(lists, name, [shifted(getattr(lists, name)[0], offset)])
        norm = lists.update([laid], max_norm=1.0)
        torch.testing.assert_close(norm, plain.update(gradients, max_norm=1.0), rtol=1e-6, atol=0)
        for found, expected in zip(lists.tensors(), plain.tensors(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def shifted(tensor: torch.Tensor, offset: int) -> torch.Tensor:
    buffer = tensor.new_zeros(len(tensor) + offset)
    buffer[offset:] = tensor
    return buffer[offset:]


def test_scaled_gradients(device: torch.device) -> None:
    lists, plain = make_lists(device), make_lists(device)
    scale = torch.tensor(1024.0, device=device)
    for max_norm in (0.5, None):
        gradients = make_gradients(0, device)
        norm = lists.update([each * scale for each in gradients], grad_scale=scale, max_norm=max_norm)
        expected = plain.update(gradients, max_norm=max_norm)
        if max_norm is not None:
            torch.testing.assert_close(norm, expected, rtol=1e-6, atol=0)
    for found, expected in zip(lists.tensors(), plain.tensors(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)


def test_found_inf_skips_everything(device: torch.device) -> None:
    lists = make_lists(device, working_dtype=F16)
    lists.update(make_gradients(0, device))
    before = [each.clone() for each in lists.tensors()]
    gradients = make_gradients(1, device)
    gradients[4][2, 2] = torch.inf
    for found in (1.0, torch.nan):
        lists.update(gradients, found_inf=torch.tensor(found, device=device), max_norm=1.0)
        assert all(torch.equal(now, then) for now, then in zip(lists.tensors(), before, strict=True))
    lists.update(make_gradients(1, device), found_inf=torch.tensor(0.0, device=device))
    assert all(step == 2 for step in lists.steps)
    assert not torch.equal(lists.parameters[4], before[4])


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_a_norm_that_is_not_finite(bad: float, device: torch.device) -> None:
    lists, peer = make_lists(device), Peer(torch.float32, max_norm=1.0)
    gradients = make_gradients(0, device)
    gradients[5][100] = bad
    norm, expected = lists.update(gradients, max_norm=1.0), peer.update(gradients)
    torch.testing.assert_close(norm.cpu(), expected, equal_nan=True)
    for found, other in zip(lists.tensors(), peer.tensors(), strict=True):
        torch.testing.assert_close(found.cpu(), other, rtol=1e-6, atol=1e-8, equal_nan=True)


def test_many_steps_of_bias_correction(device: torch.device) -> None:
    """Large step numbers and betas near 1: 1 - b^t is small, or 1."""
    for beta, done in ((0.9999, 0.0), (0.999, 10.0), (0.95, 1e6), (0.0, 0.0)):
        lists, truth = make_lists(device, ((33,),)), make_lists(shapes=((33,),), dtype=torch.float64)
        for each in (lists, truth):
            each.steps[0].fill_(done)
        gradients = make_gradients(0, device, ((33,),))
        lists.update(gradients, betas=(beta, beta))
        reference.adamw_update(
            truth.parameters,
            [each.cpu().double() for each in gradients],
            truth.exp_avgs,
            truth.exp_avg_sqs,
            truth.steps,
            [truth.lr],
            [0.05],
            [],
            beta1=beta,
            beta2=beta,
            eps=EPS,
            max_norm=None,
            grad_scale=None,
            found_inf=None,
        )
        torch.testing.assert_close(
            lists.parameters[0].cpu().double(), truth.parameters[0], rtol=3e-6, atol=1e-7
        )
        assert lists.steps[0] == truth.steps[0]


def test_the_same_bits_twice(device: torch.device) -> None:
    shapes = ((2 * module.CHUNK + 3,), *SHAPES[:5])
    found = []
    for _ in range(2):
        lists = make_lists(device, shapes)
        norm = lists.update(make_gradients(0, device, shapes), max_norm=0.1)
        found.append([norm, *lists.tensors()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_tables_are_kept_by_address(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table is made once for tensors that stay; another gradient, decay or dtype makes another; few are kept."""
    made = []
    make = module._make_plan

    def counted(*arguments: object) -> module._Plan:
        made.append(arguments)
        return make(*arguments)

    monkeypatch.setattr(module, "_make_plan", counted)
    monkeypatch.setattr(module, "_plans", type(module._plans)())
    shapes = ((3,), (2, 2))
    lists, gradients = make_lists(device, shapes), make_gradients(0, device, shapes)
    for _ in range(3):
        lists.update(gradients)
    assert len(made) == 1
    lists.update(gradients, weight_decay=(0.5, 0.5))
    assert len(made) == 2
    kept = [make_gradients(number, device, shapes) for number in range(12)]
    for each in kept:
        lists.update(each)
    assert len(made) == 14
    assert len(module._plans) == module._LARGEST_CACHE
    lists.update(kept[-1])
    assert len(made) == 14, "the newest tables stay"
    lists.update(gradients)
    assert len(made) == 15


def test_only_the_tensors_that_go_by_vectors_need_alignment() -> None:
    """Steps and rates may be single numbers of a larger tensor."""
    tensors = [[torch.zeros(8)] for _ in range(4)]
    odd = [torch.zeros(4)[1]]
    for lists, form in (
        ([*tensors, [], odd, odd], 1),
        ([[torch.zeros(8)[1:]], *tensors[1:], [], odd, odd], 0),
    ):
        table = module._plan_for(lists, [0.0]).table
        assert table[0, module._FORM.value] % 2 == form


def test_learning_rates_and_steps_are_read_from_their_tensors(device: torch.device) -> None:
    lists, plain = make_lists(device), make_lists(device)
    lists.lr = [torch.tensor(0.01 * (i + 1), device=device) for i in range(len(SHAPES))]  # type: ignore[assignment]
    lists.steps[3].fill_(9)
    lists.update(make_gradients(0, device))
    for i, (parameter, other) in enumerate(zip(lists.parameters, plain.parameters, strict=True)):
        alone = Lists([other], [plain.exp_avgs[i]], [plain.exp_avg_sqs[i]], [plain.steps[i]], lists.lr[i])
        alone.steps[0].fill_(9 if i == 3 else 0)
        alone.update(
            [make_gradients(0, device)[i]], weight_decay=(0.05, 0.0, 0.3, 0.05, 0.0, 0.1, 0.05, 0.2)[i]
        )
        assert torch.equal(parameter, other)
    assert lists.steps[3] == 10
    lists.lr = torch.tensor(0.0, device=device)
    before = [each.clone() for each in lists.parameters]
    lists.update(make_gradients(1, device))
    assert all(torch.equal(one, other) for one, other in zip(lists.parameters, before, strict=True))


def test_a_capture_needs_a_call_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's part of a capture, without a GPU: the reserved buffer is used once, and kept for the replays."""
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(module, "_capturing", lambda device: True)
    monkeypatch.setattr(module, "_reserved", {})
    monkeypatch.setattr(module, "_in_graphs", [])
    with pytest.raises(RuntimeError, match="call it once with the same tensors outside"):
        module._to_device(torch.arange(5), (cuda, 0))
    module._reserved[cuda, 0] = torch.empty(4, dtype=torch.int64), torch.empty(4, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="before each capture"):
        module._to_device(torch.arange(5), (cuda, 0))


def test_a_capture_takes_the_reserved_buffer_and_no_kept_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU: what the replays read stays, and is used for one capture only."""
    elsewhere = torch.device("meta")
    buffers = [torch.zeros(8, dtype=torch.int64) for _ in range(2)]
    reserved: dict[Any, Any] = {}
    monkeypatch.setattr(module, "_reserved", reserved)
    monkeypatch.setattr(module, "_in_graphs", [])
    monkeypatch.setattr(module, "_capturing", lambda device: True)
    for block in (nullcontext(), module.tables_sent_afterwards()):
        reserved[elsewhere, 0] = tuple(buffers)
        buffers[1].zero_()
        with block:
            sent = module._to_device(torch.arange(5), (elsewhere, 0))
            assert sent.data_ptr() == buffers[1].data_ptr()
            assert torch.equal(buffers[0], torch.tensor([0, 1, 2, 3, 4, 0, 0, 0]))
            assert sent.any() == isinstance(block, nullcontext), "a node of the graph, or nothing yet"
        assert torch.equal(buffers[1], buffers[0])
        assert module._in_graphs[-1] == tuple(buffers)
        assert not module._reserved
    assert module._unsent is None

    def broken() -> None:
        reserved[elsewhere, 0] = tuple(buffers)
        with module.tables_sent_afterwards():
            module._to_device(torch.arange(5) + 7, (elsewhere, 0))
            raise RuntimeError("the capture failed")

    with pytest.raises(RuntimeError, match="the capture failed"):
        broken()
    assert module._unsent is None
    assert buffers[1][0] == 0, "a capture that failed reads nothing"

    monkeypatch.setattr(module, "_plans", type(module._plans)())
    lists = [[torch.zeros(8)] for _ in range(7)]
    one, other = (module._plan_for(lists, [0.0]) for _ in range(2))
    assert one.table.data_ptr() != other.table.data_ptr()
    assert not module._plans, "a table of a graph is nobody else's"


@pytest.mark.gpu
def test_in_a_graph_gradients_may_lie_anywhere() -> None:
    """Gradients made inside the capture, at addresses of the graph's own; each replay is one more update."""
    device = torch.device("cuda")
    lists, plain = (
        make_lists(device, working_dtype=torch.bfloat16),
        make_lists(device, working_dtype=torch.bfloat16),
    )
    sources = make_gradients(0, device)
    plain.update([each * 2 for each in sources], max_norm=0.5)
    lists.update([each * 2 for each in sources], max_norm=0.5)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        norm = lists.update([each * 2 for each in sources], max_norm=0.5)
    # Tables of other calls come and go; the graph's own stays.
    for _ in range(2 * module._LARGEST_CACHE):
        make_lists(device).update(make_gradients(1, device))
    for number in range(1, 4):
        for source, value in zip(sources, make_gradients(number, device), strict=True):
            source.copy_(value)
        lists.lr.fill_(0.01 * number)
        plain.lr.fill_(0.01 * number)
        graph.replay()
        expected = plain.update([each * 2 for each in sources], max_norm=0.5)
        assert torch.equal(norm, expected)
        for found, other in zip(lists.tensors(), plain.tensors(), strict=True):
            assert torch.equal(found, other)


@pytest.mark.gpu
def test_nothing_waits_for_the_device() -> None:
    device = torch.device("cuda")
    lists = make_lists(device, working_dtype=torch.bfloat16)
    found, scale = torch.zeros((), device=device), torch.ones((), device=device)
    gradients = [make_gradients(number, device) for number in range(3)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for each in gradients:
            lists.update(each, max_norm=0.5, found_inf=found, grad_scale=scale)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(step == 3 for step in lists.steps)


@pytest.mark.gpu
@pytest.mark.slow
def test_a_tensor_beyond_two_to_the_31_numbers() -> None:
    device = torch.device("cuda")
    count = 2**31 + 5
    lists = Lists(
        [torch.ones(count, device=device)],
        [torch.zeros(count, device=device)],
        [torch.zeros(count, device=device)],
        [torch.zeros((), device=device)],
        torch.tensor(0.25, device=device),
    )
    norm = lists.update(
        [torch.ones(count, device=device, dtype=torch.bfloat16)], max_norm=1e9, weight_decay=0.0
    )
    assert norm.item() == pytest.approx(count**0.5, rel=1e-5)
    torch.testing.assert_close(lists.parameters[0][-5:], torch.full((5,), 0.75, device=device))
    assert (lists.parameters[0] == lists.parameters[0][0]).all()
