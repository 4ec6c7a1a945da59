from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastamr.training.clips.batches import BatchOrder
from fastamr.training.clips.clip_streams import ClipStream, PrefetchedClips, ResidentClips
from fastamr.training.clips.sampling import ClipSampler
from fastamr.training.setup import training_sequences

CPU = torch.device("cpu")


def streams(data: Any, batch: int, device: torch.device = CPU, **options: Any) -> list[ClipStream]:
    """Both streams over the same data, in the same order."""
    empty = options.pop("empty_bodies", False)
    sequences = training_sequences(data, "train", "official", keep_empty_bodies=empty)
    settings = {"min_frames": 8, "empty_bodies": empty}
    resident = ClipSampler(data.to(device), 16, **settings)
    return [
        ResidentClips(resident, BatchOrder(sequences, batch, seed=3)),
        PrefetchedClips(ClipSampler(data, 16, **settings), BatchOrder(sequences, batch, seed=3), device),
    ]


def drawn(
    stream: ClipStream, updates: range, device: torch.device = CPU
) -> list[tuple[Tensor, Tensor | None]]:
    results = []
    for update in updates:
        seed = torch.tensor([7, update], device=device)
        stream.advance(update)
        results.append(stream.draw(torch.tensor(update, device=device), seed))
        stream.done(update)
    return results


def assert_equal(one: list[Any], other: list[Any]) -> None:
    for (clips, valid), (again, known) in zip(one, other, strict=True):
        assert torch.equal(clips, again)
        assert (valid is None) == (known is None)
        assert valid is None or torch.equal(valid, known)


@pytest.mark.parametrize("batch", [5, 16, 40])
@pytest.mark.parametrize("with_valid", [False, True])
def test_fetched_clips_are_the_resident_ones_to_the_bit(
    make_skeletons: Any, batch: int, with_valid: bool
) -> None:
    data = make_skeletons(20, bodies=2, with_valid=with_valid)
    resident, fetched = streams(data, batch)
    assert_equal(drawn(resident, range(15)), drawn(fetched, range(15)))


@pytest.mark.parametrize("kind", [0, 1])
def test_clips_are_those_of_the_order(make_skeletons: Any, kind: int) -> None:
    data = make_skeletons(20, bodies=2)
    stream = streams(data, 7)[kind]
    sampler = ClipSampler(data, 16, min_frames=8)
    for update, (clips, _) in enumerate(drawn(stream, range(10))):
        expected, _ = sampler(stream.order.batch(update), torch.tensor([7, update]))
        assert torch.equal(clips, expected)


@pytest.mark.parametrize("kind", [0, 1])
def test_a_stream_may_start_anywhere(make_skeletons: Any, kind: int) -> None:
    data = make_skeletons(20)
    whole = drawn(streams(data, 6)[kind], range(12))
    assert_equal(drawn(streams(data, 6)[kind], range(8, 12)), whole[8:])
    stream = streams(data, 6)[kind]
    drawn(stream, range(3))
    assert_equal(drawn(stream, range(9, 12)), whole[9:])


@pytest.mark.parametrize("with_valid", [False, True])
def test_empty_slots_are_all_zero_clips_beside_the_existing_ones(
    make_skeletons: Any, with_valid: bool
) -> None:
    data = make_skeletons(20, with_valid=with_valid)
    resident, fetched = streams(data, 12, empty_bodies=True)
    one, other = drawn(resident, range(9)), drawn(fetched, range(9))
    assert_equal(one, other)
    sampler = ClipSampler(data, 16, min_frames=8)
    for update, (clips, valid) in enumerate(one):
        numbers = resident.order.batch(update)
        assert (numbers < 0).sum() == 6
        seed = torch.tensor([7, update])
        expected, known = sampler(numbers[numbers >= 0], seed)
        assert torch.equal(clips[numbers >= 0], expected)
        assert torch.equal(clips[numbers < 0], torch.zeros(6, 16, 25, 3))
        if valid is not None:
            assert torch.equal(valid[numbers >= 0], known)
            assert valid[numbers < 0].all()


def test_slots_of_clips_with_one_two_and_three_bodies(make_skeletons: Any) -> None:
    data = make_skeletons(5, bodies=3)
    data.body_clip[:] = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 4, 4, 4, 4, 4])
    slots = training_sequences(data, "all", None, keep_empty_bodies=True)
    assert slots.tolist() == [[0, 1], [3, -1], [4, 5], [8, 9], [10, 11]]
    train = training_sequences(data, "train", "official", keep_empty_bodies=True)
    assert train.tolist() == [[3, -1], [4, 5], [8, 9], [10, 11]]


def test_room_is_kept_for_the_longest_batch_that_can_come(make_skeletons: Any) -> None:
    data = make_skeletons(20)
    lengths = data.offsets.diff()[training_sequences(data, "train", "official")]
    longest = lengths.sort(descending=True).values
    _, few = streams(data, 4)
    # Two epochs may meet in one batch, so that the longest sequence may come twice.
    assert few.capacity == int(longest[0] * 2 + longest[1] * 2)
    _, many = streams(data, 40)
    assert many.capacity >= int(lengths.sum() * 2 + longest[:8].sum())


def test_half_precision_frames_are_sent_as_they_are(make_skeletons: Any) -> None:
    data = make_skeletons(20)
    data.coords.clamp_(-1.9, 1.9)
    resident, fetched = streams(data.half(), 8)
    assert fetched._coords.dtype == torch.float16
    assert_equal(drawn(resident, range(4)), drawn(fetched, range(4)))


@pytest.mark.gpu
@pytest.mark.parametrize("with_valid", [False, True])
def test_the_side_stream_keeps_up_with_the_device(make_skeletons: Any, with_valid: bool) -> None:
    """The device is kept busy, so that a copy into a slot that is still being read would show."""
    device = torch.device("cuda", 0)
    resident, fetched = streams(make_skeletons(200, bodies=2, with_valid=with_valid), 64, device)
    expected = drawn(resident, range(30), device)
    results = []
    for update in range(30):
        fetched.advance(update)
        torch.cuda._sleep(5_000_000)
        results.append(
            fetched.draw(torch.tensor(update, device=device), torch.tensor([7, update], device=device))
        )
        fetched.done(update)
    assert_equal(results, expected)
