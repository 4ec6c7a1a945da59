from __future__ import annotations

from typing import Any

import pytest
import torch

import fastamr.training.metrics.metric_ring as metric_ring
from fastamr.training.metrics.metric_ring import MetricReader, MetricRing


def add(ring: MetricRing, updates: range, **terms: float) -> None:
    for update in updates:
        values = {name: torch.tensor(value * update) for name, value in terms.items()}
        ring.add(torch.tensor(update), torch.tensor(10.0 + update), values)


def test_losses_come_back_in_order_and_terms_as_means() -> None:
    ring = MetricRing(4, torch.device("cpu"))
    reader = MetricReader(ring)
    add(ring, range(3), a=1.0, b=2.0)
    reader.ask(3)
    first = reader.take()
    assert first is not None
    assert (first.first, first.losses, first.terms) == (0, [10.0, 11.0, 12.0], {"a": 1.0, "b": 2.0})
    assert first.seconds > 0
    add(ring, range(3, 7), a=1.0, b=2.0)  # over the end of the ring
    reader.ask(7)
    second = reader.take()
    assert second is not None
    assert (second.first, second.losses, second.terms["a"]) == (3, [13.0, 14.0, 15.0, 16.0], 4.5)
    assert reader.take() is None


def test_the_ring_keeps_values_not_references() -> None:
    ring = MetricRing(2, torch.device("cpu"))
    loss = torch.tensor(1.0)
    ring.add(torch.tensor(0), loss, {})
    loss.fill_(2.0)
    ring.add(torch.tensor(1), loss, {})
    assert ring.values.tolist() == [[1.0], [2.0]]


def test_a_reading_that_is_on_its_way_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for is what stood there then, whatever the device has written since."""
    there = [False]

    class Slow(metric_ring._Copy):
        def arrived(self, wait: bool) -> bool:
            return wait or there[0]

    monkeypatch.setattr(metric_ring, "_Copy", Slow)
    ring = MetricRing(2, torch.device("cpu"))
    reader = MetricReader(ring)
    add(ring, range(2))
    reader.ask(2)
    assert reader.take() is None
    add(ring, range(2, 4))
    with pytest.raises(RuntimeError, match=r"take\(wait=True\) first"):
        reader.ask(4)
    reading = reader.take(wait=True)
    assert reading is not None
    assert reading.losses == [10.0, 11.0]
    reader.ask(4)
    there[0] = True
    reading = reader.take()
    assert reading is not None
    assert reading.losses == [12.0, 13.0]


def test_restart_forgets_and_nothing_new_is_no_reading() -> None:
    ring = MetricRing(4, torch.device("cpu"))
    reader = MetricReader(ring)
    add(ring, range(2))
    reader.ask(2)
    reader.restart(2)
    assert reader.take(wait=True) is None
    reader.ask(2)
    assert reader.take(wait=True) is None
    add(ring, range(2, 3))
    reader.ask(3)
    reading = reader.take()
    assert reading is not None
    assert (reading.first, reading.losses) == (2, [12.0])


def test_wrong_use_is_told() -> None:
    ring = MetricRing(2, torch.device("cpu"))
    add(ring, range(1), a=1.0)
    with pytest.raises(ValueError, match="reports the terms b, it reported a before"):
        add(ring, range(1), b=1.0)
    with pytest.raises(ValueError, match="updates 0 to 3 are more than the 2"):
        MetricReader(ring).ask(3)


@pytest.mark.gpu
def test_reading_does_not_wait_for_the_device() -> None:
    ring = MetricRing(4, torch.device("cuda"))
    reader = MetricReader(ring)
    loss, counter = torch.ones((), device="cuda"), torch.zeros((), dtype=torch.int64, device="cuda")
    ring.add(counter, loss, {})
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(200_000_000)
        ring.add(counter, loss * 2, {})
        reader.ask(1)
        assert reader.take() is None
    finally:
        torch.cuda.set_sync_debug_mode("default")
    reading: Any = reader.take(wait=True)
    assert reading.losses == [2.0]
    assert reading.seconds > 0.01
