from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastamr.models.parts.pooling import (
    POOLINGS,
    SLOTS,
    body_motion,
    check_pooling,
    mean_regions,
    mean_tokens,
    order_bodies,
    pool_tokens,
    pooled_width,
    slots_of,
    unplaced_joints,
)
from fastamr.skeleton import LAYOUTS, SkeletonLayout, get_layout

# Regions in an order of their own, one in two runs, one missing, one joint of no region.
SLOTTED = (1, 0, 0, 2, -1, 0, 1)
TIMES, WIDTH = 7, 3


def _case(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(5, TIMES * len(SLOTTED), WIDTH, generator=generator, dtype=torch.float64)
    known = torch.rand(5, tokens.shape[1], generator=generator) > 0.4
    known.view(5, TIMES, -1)[1, :, [0, 6]] = False  # the first arm is never seen
    known.view(5, TIMES, -1)[2, :3, 3] = False  # the second arm not in the first third
    known[3] = False
    return tokens.to(dtype), known


def _by_hand(tokens: Tensor, known: Tensor | None, pooling: str) -> Tensor:
    """Pool token by token, in float64."""
    rows = []
    cuts = [range(3), range(3, 5), range(5, 7)] if pooling == "regions+time" else [range(TIMES)]
    for place, row in enumerate(tokens.double()):
        seen = [token for token in range(len(row)) if known is None or known[place, token]]
        if pooling in ("mean", "mean+max"):
            seen = seen or list(range(len(row)))
            parts = [row[seen].mean(0)] + ([row[seen].max(0).values] if pooling == "mean+max" else [])
            rows.append(torch.cat(parts))
            continue
        means, flags = [], []
        for times in cuts:
            for slot in range(len(SLOTS)):
                own = [
                    token for token in seen
                    if token // len(SLOTTED) in times and SLOTTED[token % len(SLOTTED)] == slot
                ]  # fmt: skip
                means.append(row[own].mean(0) if own else torch.zeros(WIDTH, dtype=torch.float64))
                flags.append(float(bool(own)))
        rows.append(torch.cat([*means, torch.tensor(flags, dtype=torch.float64)]))
    return torch.stack(rows)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_by_hand(pooling: str, masked: bool) -> None:
    tokens, known = _case()
    mask = known if masked else None
    found = pool_tokens(tokens, mask, pooling, SLOTTED)
    assert found.shape == (5, pooled_width(pooling, WIDTH))
    torch.testing.assert_close(found, _by_hand(tokens, mask, pooling))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_sums_of_16_bit_tokens_are_float32(pooling: str, dtype: torch.dtype) -> None:
    # Hundreds of values far from 0, whose sum 16 bits cannot hold.
    tokens = (100 + torch.randn(2, 150 * len(SLOTTED), 4, dtype=torch.float64)).to(dtype)
    known = torch.rand(2, tokens.shape[1]) > 0.3
    with torch.autocast("cpu", torch.bfloat16):
        found = pool_tokens(tokens, known, pooling, SLOTTED)
    assert found.dtype == torch.float32
    exact = pool_tokens(tokens.double(), known, pooling, SLOTTED)
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_what_does_not_count_has_no_influence_and_no_gradient(pooling: str) -> None:
    tokens, known = _case(1)
    known[3, :2] = True
    tokens.requires_grad_()
    found = pool_tokens(tokens, known, pooling, SLOTTED)
    found.square().sum().backward()
    assert tokens.grad is not None
    assert not tokens.grad[~known].any()
    other = torch.where(known[..., None], tokens.detach(), 1e6)
    torch.testing.assert_close(pool_tokens(other, known, pooling, SLOTTED), found.detach())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients(pooling: str) -> None:
    tokens, known = _case(2)
    small, mask = tokens[:2, : 4 * len(SLOTTED)].clone().requires_grad_(), known[:2, : 4 * len(SLOTTED)]
    assert torch.autograd.gradcheck(lambda x: pool_tokens(x, mask, pooling, SLOTTED), (small,))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_under_torch_compile(pooling: str) -> None:
    tokens, known = _case(3, torch.float32)
    compiled = torch.compile(pool_tokens, fullgraph=True, backend="eager")
    assert torch.equal(
        compiled(tokens, known, pooling, SLOTTED), pool_tokens(tokens, known, pooling, SLOTTED)
    )


def test_a_list_of_joints_is_pooled_as_the_whole_body_without_the_others() -> None:
    tokens, _ = _case()
    chosen = [6, 2, 3]
    some = tokens.unflatten(1, (TIMES, -1))[:, :, chosen].flatten(1, 2)
    known = torch.zeros(5, TIMES, len(SLOTTED), dtype=torch.bool)
    known[:, :, chosen] = True
    found = mean_regions(some, None, [SLOTTED[joint] for joint in chosen], thirds=True)
    torch.testing.assert_close(found, mean_regions(tokens, known.flatten(1), SLOTTED, thirds=True))


@pytest.mark.parametrize("times", range(3, 32))
def test_thirds_are_as_equal_as_can_be(times: int) -> None:
    tokens = torch.arange(times, dtype=torch.float64)[None, :, None]
    found = mean_regions(tokens, None, (0,), thirds=True).view(-1)[:15:5]
    wanted = [part.double().mean() for part in torch.arange(times).tensor_split(3)]
    assert found.tolist() == [float(value) for value in wanted]


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "hand21"])
def test_all_joints_of_every_body_count(name: str) -> None:
    layout = get_layout(name)
    slots = slots_of(layout)
    check_pooling("regions+time", name, slots, 3)
    assert set(slots) == set(range(5))
    assert unplaced_joints("regions", layout) == []


def test_a_mean_is_that_of_the_regions_by_their_size() -> None:
    tokens = torch.randn(3, 10 * 25, 4, dtype=torch.float64)
    slots = slots_of(get_layout("ntu25"))
    means = mean_regions(tokens, None, slots)[:, :20].view(3, 5, 4)
    weight = torch.tensor([slots.count(slot) for slot in range(5)], dtype=torch.float64) / 25
    torch.testing.assert_close((means * weight[:, None]).sum(1), mean_tokens(tokens))


def test_refusals() -> None:
    hand, short = slots_of(get_layout("hand21")), slots_of(get_layout("ntu25"))
    with pytest.raises(
        ValueError, match=r"layout 'hand21' has no joint whose region is known: use pooling='mean'"
    ):
        check_pooling("regions", "hand21", hand, 30)
    check_pooling("mean+max", "hand21", hand, 1)
    with pytest.raises(ValueError, match=r"layout 'arm' has joints of left_arm alone"):
        check_pooling("regions", "arm", (1, 1, -1), 30)
    with pytest.raises(ValueError, match=r"at least 3 time patches, the tokens have 2"):
        check_pooling("regions+time", "ntu25", short, 2)
    with pytest.raises(ValueError, match=r"unknown pooling 'region'.*did you mean 'regions'"):
        check_pooling("region", "ntu25", short, 30)
    with pytest.raises(ValueError, match=r"tokens of 25 joints are expected, the encoder makes 8"):
        pool_tokens(torch.zeros(1, 8, 2), None, "regions", short)


def test_joints_of_no_region_are_told() -> None:
    layout = SkeletonLayout("mine", ("pelvis", "left_knee", "beacon"), (-1, 0, -1))
    assert unplaced_joints("mean", layout) == []
    (line,) = unplaced_joints("regions", layout)
    assert line.endswith("leaves out 1 joints whose region of the body is not known: beacon")


class TestBodies:
    @staticmethod
    def _by_hand(features: Tensor, owner: Tensor, motion: Tensor, count: int) -> Tensor:
        rows = []
        for clip in range(count):
            own = sorted((owner == clip).nonzero()[:, 0].tolist(), key=lambda body: -float(motion[body]))
            parts = [features[body] for body in own[:2]]
            rows.append(
                torch.cat(
                    [
                        *parts,
                        *[torch.zeros_like(features[0])] * (2 - len(parts)),
                        features.new_tensor([len(own) > 1]),
                    ]
                )
            )
        return torch.stack(rows)

    def test_one_two_three_and_no_bodies(self) -> None:
        owner = torch.tensor([2, 0, 2, 1, -1, 0, 2, 3])
        motion = torch.tensor([1.0, 0.1, 3.0, 5.0, 9.0, 0.2, 2.0, 0.0])
        features = torch.randn(8, 4, dtype=torch.float64, requires_grad=True)
        found = order_bodies(features, owner, motion, 5, partial=True)
        torch.testing.assert_close(found, self._by_hand(features, owner, motion, 5))
        assert found[:, -1].tolist() == [1, 0, 1, 0, 0]
        found.sum().backward()
        assert features.grad is not None
        assert features.grad[:, 0].tolist() == [0, 1, 1, 1, 0, 1, 1, 1]

    def test_the_order_of_the_bodies_does_not_matter_and_of_equals_the_first_comes_first(self) -> None:
        owner = torch.arange(6).repeat_interleave(torch.tensor([1, 2, 3, 2, 1, 3]))
        features, motion = torch.randn(12, 3), torch.rand(12)
        shuffled = torch.randperm(12)
        expected = order_bodies(features, owner, motion, 6)
        assert torch.equal(order_bodies(features[shuffled], owner[shuffled], motion[shuffled], 6), expected)
        still = order_bodies(features[:2], torch.tensor([0, 0]), torch.zeros(2), 1)
        assert torch.equal(still[0, :-1], features[:2].flatten())

    def test_motion_by_hand(self) -> None:
        clips = torch.zeros(3, 4, 2, 3)
        clips[0, 2:, 0, 0] = 3.0  # one of two joints goes 3 in one of three steps
        clips[1, 2, 1] = math.nan
        valid = torch.ones(3, 4, 2, dtype=torch.bool)
        valid[1, 2, 1] = False
        clips[2, 2:] = 1.0
        assert body_motion(clips, valid).tolist() == pytest.approx([0.5, 0.0, math.sqrt(3) / 3])
        assert body_motion(clips[:, :1]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_nothing_is_read_back_from_the_device(pooling: str) -> None:
    """As a recording needs it: on a device without values, where reading one is an error."""
    tokens = torch.empty(4, TIMES * len(SLOTTED), WIDTH, device="meta")
    known = torch.empty(tokens.shape[:2], dtype=torch.bool, device="meta")
    clips, owner = torch.empty(4, 8, 7, 3, device="meta"), torch.empty(4, dtype=torch.int64, device="meta")
    pooled = pool_tokens(tokens, known, pooling, SLOTTED)
    assert pooled.shape == (4, pooled_width(pooling, WIDTH))
    motion = body_motion(clips, torch.empty(4, 8, 7, dtype=torch.bool, device="meta"))
    assert order_bodies(pooled, owner, motion, 3).shape == (3, 2 * pooled.shape[1] + 1)
