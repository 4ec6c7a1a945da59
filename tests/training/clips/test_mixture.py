"""The order of a mixture: each set's share, its own epochs, and the same batches for everybody."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastamr.training.clips.batches import Part
from fastamr.training.clips.clip_streams import PrefetchedClips, ResidentClips
from fastamr.training.clips.mixture import MixtureOrder, set_of
from fastamr.training.clips.sampling import ClipSampler
from fastamr.training.setup import owner_of, training_sequences

CPU = torch.device("cpu")


def make_sets(sizes: list[int]) -> list[Tensor]:
    """Sequences whose thousands are the number of their set."""
    return [1000 * place + torch.arange(size) for place, size in enumerate(sizes)]


def stream(order: MixtureOrder, updates: int) -> Tensor:
    return torch.cat([order.batch(update) for update in range(updates)])


def seats(weights: list[float], places: int) -> list[int]:
    """Sainte-Lague's method, seat by seat."""
    counts = [0] * len(weights)
    for _ in range(places):
        quotients = [
            (2 * count + 1) / weight if weight else float("inf")
            for count, weight in zip(counts, weights, strict=True)
        ]
        counts[quotients.index(min(quotients))] += 1
    return counts


@pytest.mark.parametrize(
    ("temperature", "shares"), [(1.0, [0.9, 0.09, 0.01]), (0.0, [1 / 3] * 3), (0.5, [0.7034, 0.2224, 0.0741])]
)
def test_shares_follow_the_temperature_and_are_kept_at_every_place(
    temperature: float, shares: list[float]
) -> None:
    sizes = [900, 90, 10]
    order = MixtureOrder(make_sets(sizes), 7, 1, temperature)
    assert order.shares == pytest.approx(shares, rel=1e-3)
    members = stream(order, 1000) // 1000
    seen = torch.nn.functional.one_hot(members, 3).cumsum(0)
    due = torch.arange(1, 7001)[:, None] * torch.tensor(order.shares)
    assert ((seen - due).abs() <= (1 + 3 * torch.tensor(order.shares)) / 2 + 1).all()
    assert seen[-1].tolist() == order.places_before(7000)


def test_the_share_is_exact_in_the_long_run() -> None:
    order = MixtureOrder(make_sets([37, 5, 911]), 8, 0, 0.5)
    place = 10**12
    weights = [size**0.5 for size in (37, 5, 911)]
    for count, weight in zip(order.places_before(place), weights, strict=True):
        assert abs(count - place * weight / sum(weights)) < 3 + place * 1e-9


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any),
    temperature=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    place=st.integers(0, 300),
)
def test_places_are_given_as_seats(sizes: list[int], temperature: float, place: int) -> None:
    order = MixtureOrder(make_sets(sizes), 8, 0, temperature)
    weights = [float(round(size**temperature * 2**32)) if size else 0.0 for size in sizes]
    assert order.places_before(place) == seats(weights, place)


def test_a_large_set_may_lag_behind_its_due() -> None:
    """Ten sets of which each is due 0.6 places have one each, at the cost of the large one."""
    order = MixtureOrder(make_sets([940] + [6] * 10), 8, 0, 1.0)
    assert order.places_before(100) == seats([940.0] + [6.0] * 10, 100) == [90] + [1] * 10


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any),
    temperature=st.sampled_from([0.0, 0.5, 1.0]),
    batch=st.integers(1, 50),
    seed=st.integers(0, 5),
)
def test_nothing_is_seen_twice_before_all_of_its_set_were(
    sizes: list[int], temperature: float, batch: int, seed: int
) -> None:
    sets = make_sets(sizes)
    drawn = stream(MixtureOrder(sets, batch, seed, temperature), 200 // batch + 3)
    for place, sequences in enumerate(sets):
        own = drawn[drawn // 1000 == place]
        for epoch in own[: len(own) // max(len(sequences), 1) * len(sequences)].view(
            -1, max(len(sequences), 1)
        ):
            assert epoch.sort().values.tolist() == sequences.tolist()
        rest = own[len(own) // max(len(sequences), 1) * len(sequences) :]
        assert len(rest.unique()) == len(rest)
    assert len(drawn) % batch == 0


def test_epochs_of_a_set_differ_also_within_a_block() -> None:
    drawn = stream(MixtureOrder(make_sets([8, 300]), 10, 2, 0.0), 40)
    epochs = drawn[drawn < 1000].view(-1, 8)
    assert len(epochs.unique(dim=0)) == len(epochs) == 25


def test_epochs_of_a_large_set_differ() -> None:
    order = MixtureOrder([torch.arange(5000)], 5000, 2, 1.0)
    assert not torch.equal(order.batch(0), order.batch(1))


def test_the_batch_depends_on_seed_and_update_alone() -> None:
    sets = make_sets([50, 7, 5000])
    whole = [MixtureOrder(sets, 24, 3, 0.5).batch(update) for update in range(300)]
    late = MixtureOrder(sets, 24, 3, 0.5)
    for update in (299, 5, 260, 0):
        assert torch.equal(late.batch(update), whole[update])
    assert not torch.equal(MixtureOrder(sets, 24, 4, 0.5).batch(7), whole[7])
    # Another batch size cuts the same stream.
    assert torch.equal(stream(MixtureOrder(sets, 8, 3, 0.5), 900), torch.cat(whole))


@pytest.mark.parametrize(("count", "pieces"), [(1, 1), (2, 1), (4, 1), (2, 3), (3, 2)])
def test_processes_and_micro_batches_share_a_batch(count: int, pieces: int) -> None:
    sets = make_sets([9, 40])
    whole = MixtureOrder(sets, 24, 3, 0.5)
    parts = [MixtureOrder(sets, 24, 3, 0.5, Part(rank, count, pieces)) for rank in range(count)]
    for update in range(6):
        shares = torch.stack([part.batch(update).view(pieces, -1) for part in parts], dim=1)
        assert torch.equal(shares.flatten(), whole.batch(update))
        own = (shares // 1000 == 0).sum(2).double()
        assert (own - own.mean()).abs().max() <= 1.5  # each part has its share of each set


def test_slots_of_a_clip_follow_one_another_in_their_set() -> None:
    slots = [torch.tensor([[0, 1], [2, -1], [3, 4]]), torch.tensor([[1000, -2], [1001, 1002]])]
    order = MixtureOrder(slots, 5, 0, 0.5)
    assert (order.count, order.sizes) == (10, [6, 4])
    drawn = stream(order, 12)
    own = drawn[(drawn < 1000) & (drawn != -2)]
    epochs = own[: len(own) // 6 * 6].view(-1, 3, 2)
    for epoch in epochs:
        assert sorted(epoch.tolist()) == sorted(slots[0].tolist())


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="no body sequence"):
        MixtureOrder([torch.arange(0), torch.arange(0)], 4, 0, 0.5)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("with_valid", [False, True])
@pytest.mark.parametrize("batch", [5, 40])
def test_both_streams_draw_the_clips_of_the_order(
    make_skeletons: Any, temperature: float, with_valid: bool, batch: int
) -> None:
    data = make_skeletons(20, bodies=2, with_valid=with_valid)
    sets = [torch.arange(3), torch.arange(3, 40)]

    def order() -> MixtureOrder:
        return MixtureOrder(sets, batch, 3, temperature)

    sampler = ClipSampler(data, 16, min_frames=8)
    body_set = (torch.arange(40) >= 3).long()
    streams = (
        ResidentClips(sampler, order(), body_set),
        PrefetchedClips(ClipSampler(data, 16, min_frames=8), order(), CPU, body_set),
    )
    for update in (0, 1, 2, 3, 4, 11, 12):
        seed, drawn = torch.tensor([7, update]), []
        for one in streams:
            one.advance(update)
            drawn.append(one.draw(torch.tensor(update), seed))
            one.done(update)
        expected = sampler(order().batch(update), seed)
        for found in drawn:
            assert torch.equal(found[0], expected[0])
            assert expected[1] is None or torch.equal(found[1], expected[1])
            assert torch.equal(found[2], (order().batch(update) >= 3).long())


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=2, max_size=30),
    cut=st.integers(0, 30),
    temperature=st.sampled_from([0.0, 0.5, 1.0]),
    batch=st.integers(1, 40),
)
def test_no_batch_has_more_frames_than_were_reserved(
    lengths: list[int], cut: int, temperature: float, batch: int
) -> None:
    sets = [torch.arange(min(cut, len(lengths))), torch.arange(min(cut, len(lengths)), len(lengths))]
    order, frames = MixtureOrder(sets, batch, 1, temperature), torch.tensor(lengths)
    most = order.most_frames(frames[torch.cat(sets)])
    assert max(int(frames[order.batch(update)].sum()) for update in range(30)) <= most


def test_an_empty_slot_knows_its_set(make_skeletons: Any) -> None:
    data = make_skeletons(20)
    clip_set = (torch.arange(20) >= 8).long()
    rows = training_sequences(data, "train", "official", keep_empty_bodies=True, clip_set=clip_set)
    expected = clip_set[data.splits["official"].train]
    assert torch.equal(set_of(rows[:, 0], clip_set), expected)
    assert torch.equal(set_of(rows[:, 1], clip_set), expected)
    assert (rows[:, 1] < 0).all()
    assert torch.equal(owner_of(rows, clip_set), expected)
