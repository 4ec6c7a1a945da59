from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from fastamr.training.update.recording import CudaRecorder, RecordedCall

from .graphs import ReplayedCalls


def double(value: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    return value * 2, {}


def test_three_real_runs_then_one_recording_then_replays() -> None:
    recorder = ReplayedCalls()
    call = RecordedCall(double, recorder, lambda: 0)
    results = [call(torch.tensor(float(number)))[0].clone() for number in range(8)]
    assert torch.stack(results).tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert (recorder.eager, recorder.recorded, recorder.launched) == (3, 1, 5)
    assert call.reason is None


def test_the_result_stays_at_its_address() -> None:
    call = RecordedCall(double, ReplayedCalls(), lambda: 0)
    results = [call(torch.tensor(float(number)))[0] for number in range(6)]
    assert results[3] is results[4] is results[5]


def test_what_moved_runs_once_and_is_recorded_anew() -> None:
    recorder, place = ReplayedCalls(), [0]
    call = RecordedCall(double, recorder, lambda: place[0])
    for number in range(5):
        call(torch.tensor(float(number)))
    place[0] = 1
    assert call(torch.tensor(9.0))[0] == 18
    assert (recorder.eager, recorder.recorded, recorder.launched) == (4, 1, 2)
    # The old recording's memory is free before anything runs.
    assert (recorder.forgotten, recorder.held_in_eager) == (1, [False] * 4)
    assert call(torch.tensor(10.0))[0] == 20
    assert (recorder.eager, recorder.recorded, recorder.launched) == (4, 2, 3)
    assert call.recordings == 2


def test_other_shapes_run_eagerly_and_do_not_spoil_the_recording() -> None:
    recorder = ReplayedCalls()
    call = RecordedCall(double, recorder, lambda: 0)
    for _ in range(4):
        call(torch.ones(3))
    assert call(torch.ones(2))[0].tolist() == [2, 2]
    assert call(torch.ones(3, dtype=torch.float64))[0].dtype == torch.float64
    assert (recorder.eager, recorder.recorded, recorder.launched) == (5, 1, 1)
    assert call(torch.full((3,), 4.0))[0].tolist() == [8, 8, 8]
    assert (recorder.recorded, recorder.launched) == (1, 2)


def test_other_shapes_where_recording_is_required() -> None:
    call = RecordedCall(double, ReplayedCalls(), lambda: 0, required=True)
    for _ in range(4):
        call(torch.ones(3))
    with pytest.raises(
        ValueError, match=r"inputs are \[\(\(2,\), torch.float32\)\], the CUDA graph was recorded"
    ):
        call(torch.ones(2))


def test_recording_that_fails_is_told_once_and_every_call_is_eager() -> None:
    recorder = ReplayedCalls()
    recorder.fails = RuntimeError("operation not permitted when stream is capturing\nmore")
    call = RecordedCall(double, recorder, lambda: 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            call(torch.ones(3))
    with pytest.warns(
        RuntimeWarning, match="recording failed: RuntimeError: operation not permitted"
    ) as seen:
        results = [call(torch.full((3,), float(number)))[0] for number in range(3)]
    assert len(seen) == 1
    assert [result[0].item() for result in results] == [0, 2, 4]
    assert call.reason == "recording failed: RuntimeError: operation not permitted when stream is capturing"
    assert recorder.launched == 0


def test_recording_that_fails_where_it_is_required() -> None:
    recorder = ReplayedCalls()
    recorder.fails = RuntimeError("no")
    call = RecordedCall(double, recorder, lambda: 0, required=True)
    for _ in range(3):
        call(torch.ones(3))
    with pytest.raises(RuntimeError, match="graph=True, but recording failed: RuntimeError: no"):
        call(torch.ones(3))


@pytest.mark.gpu
def test_a_failed_recording_leaves_stream_and_device_usable() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    before = torch.cuda.current_stream(device)

    def reads_back(value: Tensor) -> tuple[Tensor, dict[str, Any]]:
        noise = torch.rand_like(value)  # a generator takes part in the recording
        return value * value.sum().item() + 0 * noise, {}

    def draws(value: Tensor) -> tuple[Tensor, dict[str, Any]]:
        return value * torch.rand_like(value), {}

    call = RecordedCall(reads_back, CudaRecorder(device), lambda: 0)
    other = RecordedCall(draws, CudaRecorder(device), lambda: 0, required=True)
    value = torch.ones(3, device=device)
    for _ in range(4):
        other(value)
    torch.manual_seed(5)
    wanted = other(value)[0].clone()
    for _ in range(3):
        call(value)
    with pytest.warns(RuntimeWarning, match="recording failed"):
        assert call(value)[0].tolist() == [3, 3, 3]
    assert torch.cuda.current_stream(device) == before
    assert call(value * 2)[0].tolist() == [12, 12, 12]
    assert call.reason is not None
    torch.cuda.empty_cache()  # refuses while the allocator takes a recording to be under way
    # What was recorded before still draws from the same generator.
    torch.manual_seed(5)
    assert torch.equal(other(value)[0], wanted)
    torch.manual_seed(5)
    drawn = torch.rand(4, device=device)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(4, device=device), drawn)
