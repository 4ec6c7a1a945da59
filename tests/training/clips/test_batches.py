import pytest
import torch

from fastamr.training.clips.batches import BatchOrder


def stream(order: BatchOrder, updates: int) -> torch.Tensor:
    return torch.cat([order.batch(update) for update in range(updates)])


def test_each_epoch_holds_each_sequence_once_and_every_batch_is_full() -> None:
    sequences = torch.tensor([3, 5, 7, 11, 13, 17, 19])
    order = BatchOrder(sequences, 4, seed=1)
    drawn = stream(order, 7)
    assert drawn.shape == (28,)
    epochs = drawn.reshape(4, 7)
    assert all(sorted(epoch.tolist()) == sequences.tolist() for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) > 1


def test_order_depends_on_seed_and_update_only() -> None:
    sequences = torch.arange(50)
    first = stream(BatchOrder(sequences, 8, seed=3), 20)
    assert torch.equal(first, stream(BatchOrder(sequences, 8, seed=3), 20))
    assert not torch.equal(first, stream(BatchOrder(sequences, 8, seed=4), 20))
    assert torch.equal(BatchOrder(sequences, 8, seed=3).batch(13), first[13 * 8 : 14 * 8])


def test_a_batch_may_hold_several_epochs() -> None:
    order = BatchOrder(torch.tensor([4, 9]), 7, seed=0)
    batch = order.batch(0)
    assert batch.shape == (7,)
    assert sorted(batch[:2].tolist()) == sorted(batch[2:4].tolist()) == [4, 9]


@pytest.mark.parametrize(
    ("count", "batch", "expected"), [(1000, 256, 4), (900, 256, 4), (10, 256, 1), (896, 256, 4)]
)
def test_steps_per_epoch(count: int, batch: int, expected: int) -> None:
    assert BatchOrder(torch.arange(count), batch, seed=0).steps_per_epoch == expected


def test_epochs_count_sequences() -> None:
    assert BatchOrder(torch.arange(100), 30, seed=0).epoch_at(10) == 3.0


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="no body sequence"):
        BatchOrder(torch.arange(0), 4, seed=0)


def test_rows_of_a_table_stay_together_and_are_counted_in_full() -> None:
    slots = torch.tensor([[0, 1], [2, -1], [3, 4]])
    order = BatchOrder(slots, 4, seed=2)
    assert (order.count, order.steps_per_epoch) == (6, 2)
    epoch = stream(order, 3)[:6].view(3, 2)
    assert sorted(map(tuple, epoch.tolist())) == sorted(map(tuple, slots.tolist()))


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (10, 10), (3, 8), (4, 8)])
def test_the_epochs_of_an_update_are_those_that_its_batch_reaches_into(count: int, batch: int) -> None:
    order = BatchOrder(torch.arange(count), batch, seed=0)
    for update in range(12):
        places = torch.arange(update * batch, (update + 1) * batch)
        assert list(order.epochs(update)) == (places // count).unique().tolist()
        assert len(order.epochs(update)) <= order.most_epochs
