from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import fastamr.training.metrics.metric_ring as metric_ring
import fastamr.training.plan as plan
from fastamr.training import PretrainConfig
from fastamr.training.plan import Estimate, Forecast, in_words, plan_lines

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HEADER: dict[str, Any] = {
    "update": 0,
    "device_name": "NVIDIA H200",
    "model": "amr",
    "tokens": 750,
    "visible": 75,
    "parameters": 12_345_678,
    "precision": "bfloat16",
    "train_on": "train",
    "split": "xsub",
    "clips": 40_091,
    "all_clips": 56_578,
    "bodies": "existing",
    "sequences": 50_100,
    "batch_size": 256,
    "updates": 78_400,
    "updates_per_epoch": 196,
}


def test_the_plan_says_what_a_run_is_about_to_do() -> None:
    assert plan_lines(HEADER, Path("runs/amr")) == [
        "model    amr, 12,345,678 parameters",
        "tokens   N = 750 a sequence, K = 75 visible",
        "data     40,091 of 56,578 clips (split xsub), 50,100 sequences (bodies: existing)",
        "batch    256 sequences",
        "length   78,400 updates = 400 epochs of 196",
        "device   NVIDIA H200, bfloat16",
        "out      runs/amr",
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"update": 600}, "length   78,400 updates = 400 epochs of 196, 600 of them done"),
        ({"updates": 100}, "length   100 updates = 0.5102 epochs of 196"),
        ({"precision": "float32"}, "device   NVIDIA H200, float32"),
        (
            {"train_on": "all"},
            "data     40,091 of 56,578 clips (all clips), 50,100 sequences (bodies: existing)",
        ),
        ({"split": None}, "data     40,091 of 56,578 clips (all clips), 50,100 sequences (bodies: existing)"),
    ],
)
def test_the_plan_of_other_runs(changes: dict[str, Any], line: str) -> None:
    assert line in plan_lines({**HEADER, **changes}, Path("run"))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0412, "41 ms"),
        (0.36, "0.36 s"),
        (9.97, "10 s"),
        (70.1, "70 s"),
        (750.0, "12 min"),
        (3.21 * 3600, "3.2 h"),
        (31 * 3600, "31 h"),
        (28 * 86400, "28 days"),
        (1500 * 86400, "1,500 days"),
    ],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


class Clock:
    """Stands in for the clock, and for a device that is so many updates behind the host."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, behind: int = 0) -> None:
        self.now, self.update, self.behind = 0.0, 0, behind
        clock = self

        class FakeMark:
            def __init__(self, device: torch.device) -> None:
                self.time, self.update = clock.now, clock.update

            def reached(self) -> bool:
                return clock.update >= self.update + clock.behind

            def until(self, other: FakeMark) -> float:
                assert other.reached(), "the host would wait for the device"
                return other.time - self.time

        monkeypatch.setattr(plan, "Mark", FakeMark)

    def run(self, forecast: Forecast, seconds: Sequence[float], start: int = 0) -> list[tuple[int, Estimate]]:
        """Let updates take so many seconds each; return when which estimate came."""
        forecast.start()
        found = []
        for self.update, each in enumerate(seconds, start + 1):
            self.now += each
            estimate = forecast.after(self.update)
            if estimate is not None:
                found.append((self.update, estimate))
        return found


def config(**options: Any) -> PretrainConfig:
    return PretrainConfig(**{"data": ["my data.safetensors"], "out": "runs/a", **options})


def test_the_first_ten_updates_give_the_estimate_without_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    ((update, estimate),) = Clock(monkeypatch).run(Forecast(config(), CPU, 0, 2000), [3.0] + [0.36] * 30)
    assert update == 10
    assert estimate.each == pytest.approx(0.36)
    assert estimate.seconds == pytest.approx(720)
    assert estimate.lines == ["about 12 min for 2,000 updates (0.36 s each, measured over updates 2 to 10)"]


def test_a_run_that_goes_on_is_estimated_for_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    ((update, estimate),) = clock.run(Forecast(config(), CPU, 600, 2000), [1.0] * 30, start=600)
    assert update == 610
    assert estimate.lines == ["about 23 min for 1,400 updates (1 s each, measured over updates 602 to 610)"]


@pytest.mark.parametrize("total", [1, 9, 10])
def test_a_short_run_is_not_estimated(monkeypatch: pytest.MonkeyPatch, total: int) -> None:
    assert Clock(monkeypatch).run(Forecast(config(), CPU, 0, total), [4.0] * total) == []


def test_a_long_first_update_gives_a_first_guess_and_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [70.0] + [60.0] * 15
    (first, guess), (second, estimate) = Clock(monkeypatch).run(Forecast(config(), CPU, 0, 1600), seconds)
    assert (first, second) == (1, 10)
    assert guess.lines[0] == "first guess: about 31 h for 1,600 updates (70 s each, as the first one)"
    assert guess.lines[1].startswith("warning: this takes more than an hour on a CPU; Ctrl-C saves")
    assert guess.lines[2] == (
        "a smaller model that a CPU trains (or with --preset compact): fastamr pretrain --model amr --preset small "
        "--data 'my data.safetensors' --out runs/a-small"
    )
    assert estimate.lines == ["about 27 h for 1,600 updates (60 s each, measured over updates 2 to 10)"]


@pytest.mark.parametrize(("total", "lines"), [(3600, 1), (3700, 2), (7200, 2), (7300, 3)])
def test_an_hour_on_a_cpu_warns_and_two_suggest_a_preset(
    monkeypatch: pytest.MonkeyPatch, total: int, lines: int
) -> None:
    ((_, estimate),) = Clock(monkeypatch).run(Forecast(config(), CPU, 0, total), [1.0] * 10)
    assert len(estimate.lines) == lines
    assert ("more than an hour on a CPU" in "".join(estimate.lines)) == (lines > 1)
    assert ("--preset small" in "".join(estimate.lines)) == (lines > 2)


def test_the_suggested_command_keeps_the_choice_of_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = config(model="mamp", split="xsub", train_on="all", data=["a", "b"])
    ((_, estimate),) = Clock(monkeypatch).run(Forecast(chosen, CPU, 0, 10_000), [1.0] * 10)
    assert estimate.lines[2].endswith(
        "fastamr pretrain --model mamp --preset small --data a b --split xsub --train-on all --out runs/a-small"
    )


@pytest.mark.parametrize(
    ("model", "data", "way"),
    [
        (
            "amr",
            ["a", "b"],
            "trains: fastamr pretrain --model amr --preset body-small --data a b --out runs/a-small",
        ),
        ("amr", ["a"], "trains: fastamr pretrain --model amr --preset body-small --data a --mixture null "),
        ("mamp", ["a"], "compact): fastamr pretrain --model mamp --preset small --data a --layout body "),
    ],
)
def test_a_smaller_model_of_every_skeleton(
    monkeypatch: pytest.MonkeyPatch, model: str, data: list[str], way: str
) -> None:
    run = config(model=model, data=data, architecture={"layout": "body"})
    ((_, estimate),) = Clock(monkeypatch).run(Forecast(run, CPU, 0, 10_000), [1.0] * 10)
    assert way in estimate.lines[2]


@pytest.mark.parametrize("options", [{"architecture": {"width": 64}}, {"data": []}])
def test_no_preset_for_a_small_model_or_data_in_memory(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    ((_, estimate),) = Clock(monkeypatch).run(Forecast(config(**options), CPU, 0, 10_000), [1.0] * 10)
    assert estimate.lines[2] == "for a shorter run set fewer epochs, or a smaller width or depth of the model"


def test_a_gpu_is_timed_after_the_recording_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, behind=6)
    seconds = [30.0, 1.0, 1.0, 8.0] + [0.05] * 30
    ((update, estimate),) = clock.run(Forecast(config(), CUDA, 0, 100_000), seconds)
    assert update == 13 + 6
    assert estimate.lines == ["about 83 min for 100,000 updates (50 ms each, measured over updates 5 to 13)"]


def test_the_marks_of_a_cpu_are_reached_at_once() -> None:
    first = metric_ring.Mark(CPU)
    second = metric_ring.Mark(CPU)
    assert second.reached()
    assert first.until(second) >= 0
