"""The op against torch.optim.AdamW with clip_grad_norm_, in float64 and float32, for every back end of the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import fastamr
from fastamr import native, ops

from ..adamw_cases import (
    DECAYS,
    LR,
    SHAPES,
    Lists,
    Peer,
    assert_close_to_float64,
    make_gradients,
    make_lists,
)

needs_extension = pytest.mark.extension


@pytest.fixture(params=["reference", pytest.param("cpp", marks=needs_extension)])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with fastamr.backend(request.param):
        yield request.param


@pytest.mark.parametrize("max_norm", [None, 0.7, 1e6])
def test_float64_equals_torch(max_norm: float | None) -> None:
    lists, peer = make_lists(dtype=torch.float64), Peer(torch.float64, max_norm=max_norm)
    for number in range(20):
        gradients = [each.double() for each in make_gradients(number)]
        norm, expected = lists.update(gradients, max_norm=max_norm), peer.update(gradients)
        if max_norm is not None:
            torch.testing.assert_close(norm, expected.float(), rtol=1e-7, atol=0)
    for found, truth in zip(lists.tensors(), peer.tensors(), strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("max_norm", [None, 0.7])
@pytest.mark.parametrize("dtypes", [(torch.float32,), (torch.bfloat16,), (torch.bfloat16, torch.float32)])
def test_float32_is_as_exact_as_torch(
    dtypes: tuple[torch.dtype, ...], max_norm: float | None, backend: str
) -> None:
    lists = make_lists()
    peer, truth = Peer(torch.float32, max_norm=max_norm), Peer(torch.float64, max_norm=max_norm)
    for number in range(50):
        gradients = make_gradients(number, dtypes=dtypes)
        norm = lists.update(gradients, max_norm=max_norm)
        peer.update(gradients)
        expected = truth.update(gradients)
        if max_norm is not None:
            torch.testing.assert_close(norm.double(), expected, rtol=1e-6, atol=0)
    assert_close_to_float64(lists, truth, peer)


def test_the_first_update_by_hand(backend: str) -> None:
    """Two numbers: the gradient's norm 5 is clipped to 1, Adam's first step is lr * sign, the decay comes first."""
    parameter, gradient = torch.tensor([2.0, -1.0]), torch.tensor([3.0, -4.0])
    lists = Lists([parameter], [torch.zeros(2)], [torch.zeros(2)], [torch.zeros(())], torch.tensor(0.1))
    norm = lists.update([gradient], max_norm=1.0, weight_decay=0.5)
    assert norm.item() == pytest.approx(5.0)
    torch.testing.assert_close(parameter, torch.tensor([2 * 0.95 - 0.1, -1 * 0.95 + 0.1]), rtol=1e-6, atol=0)
    torch.testing.assert_close(lists.exp_avgs[0], torch.tensor([0.06, -0.08]), rtol=2e-6, atol=0)
    torch.testing.assert_close(lists.exp_avg_sqs[0], 0.05 * torch.tensor([0.36, 0.64]), rtol=4e-6, atol=0)
    assert lists.steps[0] == 1
    assert torch.equal(gradient, torch.tensor([3.0, -4.0])), "gradients are left as they are"


def test_each_parameter_has_its_own_step_and_learning_rate(backend: str) -> None:
    lists, alone = make_lists(), make_lists()
    for each in (lists, alone):
        each.steps[5].fill_(7)
    rates = [torch.tensor(LR * (i + 1)) for i in range(len(SHAPES))]
    gradients = make_gradients(0)
    lists.lr = rates  # type: ignore[assignment]
    lists.update(gradients)
    for i in range(len(SHAPES)):
        names = ("parameters", "exp_avgs", "exp_avg_sqs", "steps")
        one = Lists(*([getattr(alone, name)[i]] for name in names), rates[i])
        one.update([gradients[i]], weight_decay=DECAYS[i])
    for found, expected in zip(lists.tensors(), alone.tensors(), strict=True):
        assert torch.equal(found, expected)
    assert [step.item() for step in lists.steps] == [1, 1, 1, 1, 1, 8, 1, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_working_copies_are_the_rounded_parameters(dtype: torch.dtype) -> None:
    """On whatever back end takes the dtype: float16 is left to the reference on a CPU."""
    lists, plain = make_lists(working_dtype=dtype), make_lists()
    for number in range(3):
        lists.update(make_gradients(number))
        plain.update(make_gradients(number))
        for copy, parameter in zip(lists.working, lists.parameters, strict=True):
            assert torch.equal(copy, parameter.to(dtype))
    for found, expected in zip(lists.parameters, plain.parameters, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@needs_extension
def test_copies_of_extreme_numbers() -> None:
    """NaN, infinity, the largest float and ties, rounded as PyTorch rounds them."""
    values = [float("nan"), float("inf"), -float("inf"), 3.4028235e38, 1.00390625, 1.01171875, -0.0, 1e-41]
    parameter = torch.tensor(values * 9)
    zeros = [[torch.zeros_like(parameter)] for _ in range(2)]
    copy = [torch.empty_like(parameter, dtype=torch.bfloat16)]
    lists = Lists([parameter], *zeros, [torch.zeros(())], torch.tensor(0.0), copy)
    with fastamr.backend(adamw_update="cpp"):
        lists.update([torch.zeros_like(parameter)])
    expected = parameter.to(torch.bfloat16)
    assert torch.equal(copy[0].isnan(), expected.isnan())
    assert torch.equal(copy[0].nan_to_num(7.0), expected.nan_to_num(7.0))


def test_scaled_gradients_count_unscaled(backend: str) -> None:
    lists, plain = make_lists(), make_lists()
    scale = torch.tensor(1024.0)
    for number in range(3):
        gradients = make_gradients(number)
        scaled = lists.update([each * scale for each in gradients], grad_scale=scale, max_norm=0.5)
        unscaled = plain.update(gradients, max_norm=0.5)
        torch.testing.assert_close(scaled, unscaled, rtol=1e-6, atol=0)
    for found, expected in zip(lists.tensors(), plain.tensors(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)


def test_found_inf_skips_everything(backend: str) -> None:
    lists = make_lists(working_dtype=torch.bfloat16)
    lists.update(make_gradients(0))
    before = [each.clone() for each in lists.tensors()]
    gradients = make_gradients(1)
    gradients[4][2, 2] = torch.inf
    for found in (1.0, 2.0, torch.nan):
        norm = lists.update(gradients, found_inf=torch.tensor(found), max_norm=1.0)
        assert norm.isinf()
        for now, then in zip(lists.tensors(), before, strict=True):
            assert torch.equal(now, then)
    lists.update(make_gradients(1), found_inf=torch.tensor(0.0))
    assert all(step == 2 for step in lists.steps)
    assert not torch.equal(lists.parameters[4], before[4])


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_a_norm_that_is_not_finite_behaves_as_torchs(bad: float, backend: str) -> None:
    """Infinity makes the factor 0 (and 0 * inf NaN), NaN makes everything NaN."""
    lists, peer = make_lists(), Peer(torch.float32, max_norm=1.0)
    gradients = make_gradients(0)
    gradients[5][100] = bad
    norm, expected = lists.update(gradients, max_norm=1.0), peer.update(gradients)
    torch.testing.assert_close(norm, expected, equal_nan=True)
    for found, other in zip(lists.tensors(), peer.tensors(), strict=True):
        torch.testing.assert_close(found, other, rtol=1e-6, atol=1e-8, equal_nan=True)


def test_dense_layouts_other_than_contiguous(backend: str) -> None:
    """Parameters and states that lie transposed in memory are updated in memory order."""
    lists, plain = make_lists(shapes=((5, 7), (2, 3, 128))), make_lists(shapes=((5, 7), (2, 3, 128)))
    for name in ("parameters", "exp_avgs", "exp_avg_sqs"):
        setattr(
            lists, name, [each.transpose(0, 1).contiguous().transpose(0, 1) for each in getattr(lists, name)]
        )
    gradients = make_gradients(0, shapes=((5, 7), (2, 3, 128)))
    laid = [torch.empty_like(p).copy_(g) for p, g in zip(lists.parameters, gradients, strict=True)]
    assert not laid[0].is_contiguous()
    lists.update(laid, max_norm=1.0)
    plain.update(gradients, max_norm=1.0)
    for found, expected in zip(lists.tensors(), plain.tensors(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_holes_and_mixed_layouts_take_the_reference() -> None:
    lists, plain = make_lists(shapes=((5, 7), (3,))), make_lists(shapes=((5, 7), (3,)))
    gradients = make_gradients(0, shapes=((5, 7), (3,)))
    wide = torch.zeros(5, 14)
    wide[:, ::2] = lists.parameters[0]
    lists.parameters[0] = wide[:, ::2]
    lists.update(gradients)
    plain.update([gradients[0].t().contiguous().t(), gradients[1]])
    for found, expected in zip(lists.tensors(), plain.tensors(), strict=True):
        assert torch.equal(found, expected)
    assert not wide[:, 1::2].any(), "the holes stay as they are"
    if native.why_not("cpu") is None:
        with fastamr.backend(adamw_update="cpp"), pytest.raises(RuntimeError, match="tensors with holes"):
            lists.update(gradients)


@needs_extension
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_bits_for_any_number_of_threads(threads: int) -> None:
    """Several chunks of 16384 numbers."""
    before = torch.get_num_threads()
    shapes = ((70000,), (129,), (16384,))
    gradients = make_gradients(0, shapes=shapes)
    norms, parameters = [], []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            lists = make_lists(shapes=shapes)
            with fastamr.backend(adamw_update="cpp"):
                norms.append(lists.update(gradients, max_norm=0.1))
            parameters.append(lists.parameters)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*norms)
    assert all(torch.equal(one, other) for one, other in zip(*parameters, strict=True))
    truth = torch.linalg.vector_norm(torch.cat(gradients).double())
    torch.testing.assert_close(norms[0].double(), truth, rtol=1e-6, atol=0)


def test_version_counters_move_and_nothing_asks_for_gradients() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    lists = Lists([parameter], [torch.zeros(3)], [torch.zeros(3)], [torch.zeros(())], torch.tensor(0.1))
    square = (parameter * parameter).sum()
    version = parameter._version
    lists.update([torch.ones(3)])
    assert parameter._version > version
    assert parameter.is_leaf
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        square.backward()


def test_compiles_without_a_break() -> None:
    lists, plain = make_lists(working_dtype=torch.bfloat16), make_lists(working_dtype=torch.bfloat16)
    torch.compiler.reset()
    compiled = torch.compile(
        lambda gradients: lists.update(gradients, max_norm=0.5), fullgraph=True, backend="aot_eager"
    )
    for number in range(2):
        assert torch.equal(
            compiled(make_gradients(number)), plain.update(make_gradients(number), max_norm=0.5)
        )
    for found, expected in zip(lists.tensors(), plain.tensors(), strict=True):
        assert torch.equal(found, expected)


def wrong(**changes: object) -> None:
    lists = make_lists(shapes=((3,), (2, 2)))
    gradients = make_gradients(0, shapes=((3,), (2, 2)))
    for name, value in changes.items():
        if name == "gradients":
            gradients = value
        elif hasattr(lists, name):
            setattr(lists, name, value)
    lists.update(gradients, **{k: v for k, v in changes.items() if k not in ("gradients", *vars(lists))})


ONE, TWO = torch.zeros(3), torch.zeros(2, 2)
SHARED = torch.zeros(())


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"parameters": []}, ValueError, "parameters is empty"),
        ({"gradients": [ONE]}, ValueError, "gradients has 1 tensors for 2 parameters"),
        ({"gradients": [ONE, ONE]}, ValueError, r"gradients\[1\] is \(3,\) .* expected \(2, 2\)"),
        ({"gradients": [ONE, TWO.to_sparse()]}, ValueError, r"gradients\[1\] is torch.sparse_coo"),
        ({"gradients": [ONE.double(), TWO]}, TypeError, r"gradients\[0\] must be of dtype float32"),
        ({"gradients": [ONE.cfloat(), TWO]}, TypeError, "complex64"),
        ({"parameters": [ONE.bfloat16(), TWO]}, TypeError, "masters must be float32, float64"),
        ({"parameters": [ONE, TWO.double()]}, TypeError, r"parameters\[1\] must be of dtype float32"),
        ({"exp_avgs": [ONE, TWO.half()]}, TypeError, r"exp_avgs\[1\]"),
        ({"working": [ONE, TWO]}, TypeError, "working copies must be of dtype bfloat16, float16"),
        ({"steps": [SHARED]}, ValueError, "steps has 1 entries"),
        ({"steps": [SHARED, SHARED]}, ValueError, "steps names one tensor twice"),
        ({"steps": [ONE, SHARED]}, ValueError, "steps must be a tensor of one float32 value"),
        ({"lr": torch.tensor(1e-3, dtype=torch.float64)}, ValueError, "lrs must be a tensor of one float32 value"),
        ({"weight_decay": [0.1]}, ValueError, "weight_decays has 1 entries"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay=-0.1"),
        ({"betas": (0.9, 1.0)}, ValueError, r"betas\[1\]=1.0"),
        ({"eps": -1.0}, ValueError, "eps=-1.0"),
        ({"max_norm": 0.0}, ValueError, "max_norm=0.0"),
        ({"found_inf": ONE}, ValueError, "found_inf must be a tensor of one float32 value"),
    ],
)  # fmt: skip
def test_what_does_not_fit(changes: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        wrong(**changes)


def test_auto_takes_the_extension_on_a_cpu() -> None:
    reasons = ops.availability("cpu")["adamw_update"]
    assert list(reasons) == ["triton", "cpp", "reference"]
    assert reasons["reference"] is None
    assert reasons["cpp"] == native.why_not("cpu")
    assert "cpu tensors" in ops.availability("cuda")["adamw_update"]["cpp"]
    with (
        fastamr.backend(adamw_update="cpp"),
        pytest.raises(RuntimeError, match="float32 parameters, not float64"),
    ):
        make_lists(dtype=torch.float64).update([each.double() for each in make_gradients(0)])
    with fastamr.backend(adamw_update="cpp"), pytest.raises(RuntimeError, match="does not cover float16"):
        make_lists().update(make_gradients(0, dtypes=(torch.float16,)))


def test_without_memory_a_weight_moves_by_the_sign_of_its_gradient(backend: str) -> None:
    """Betas of 0 and 0 are defined: the moments are the gradient and its square, and nothing is divided by 0."""
    gradient = torch.tensor([-3.0, 0.0, 1e-3, 2e18, 5e-30])
    parameter, first, second = torch.ones(5), torch.zeros(5), torch.zeros(5)
    step, lr = torch.zeros(()), torch.tensor(0.25)
    for number in (1, 2):
        ops.adamw_update(
            [parameter], [gradient], [first], [second], [step], lr=lr, betas=(0.0, 0.0), weight_decay=0.0
        )
        torch.testing.assert_close(first, gradient, rtol=1e-6, atol=1e-9)
        # What is far below eps moves by its part of eps.
        sign = torch.tensor([-1.0, 0.0, 1.0, 1.0, 0.0])
        torch.testing.assert_close(parameter, 1 - 0.25 * number * sign, rtol=1e-4, atol=1e-12)
        assert float(step) == number
