"""The recorded update of two processes, with a stand-in for the graph that knows which collectives it holds."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastamr.distributed import World

from .recording_process import CHANGE_AFTER, UPDATES, Log, train
from .test_distributed import ROOT

pytestmark = pytest.mark.slow
Events = list[list[Any]]
EAGER = 3


def run(folder: Path, *words: str) -> list[dict[str, Any]]:
    """What each of two processes noted, by case."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    files = [folder / f"noted{rank}.json" for rank in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.processes.recording_process", str(files[rank]), *words], cwd=ROOT,
            env=shared | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in processes:
        _, shown = process.communicate(timeout=120)
        assert process.returncode == 0, shown
    return [json.loads(file.read_text()) for file in files]


def by_update(events: Events) -> list[Events]:
    """The events of each update."""
    starts = [place for place, event in enumerate(events) if event[1].startswith("update ")]
    ends = [*starts[1:], len(events)]
    return [events[start + 1 : end] for start, end in zip(starts, ends, strict=True)]


def sent(events: Events) -> Events:
    """The collectives that were made: what and how many numbers."""
    return [event[1:] for event in events if event[2] and event[0] != "recording"]


def phases(events: Events) -> list[str]:
    """The phases in which an update spoke, each once in a row, and what became of graphs."""
    found = [event[0] if event[2] else event[1] for event in events]
    return [phase for place, phase in enumerate(found) if place == 0 or found[place - 1] != phase]


RECORDED = ["recording", "graph held", "replay"]
NORMAL = [["eager"]] * EAGER + [RECORDED] + [["replay"]] * (UPDATES - EAGER - 1)
CHANGED = [*NORMAL[:CHANGE_AFTER], ["graph dropped", "eager"], RECORDED, ["replay"]]


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run(tmp_path_factory.mktemp("noted"))


@pytest.mark.parametrize("case", ["plain", "features"])
def test_connections_eager_updates_one_recording_then_replays(case: str, noted: list[dict[str, Any]]) -> None:
    one, two = (each[case] for each in noted)
    assert one["events"] == two["events"]
    events = one["events"]
    first = next(place for place, event in enumerate(events) if event[1] == "update 0")
    assert {event[1] for event in events[:first]} == {"broadcast"}
    updates = by_update(events)
    assert [phases(each) for each in updates] == NORMAL
    assert all(sent(each) == sent(updates[0]) for each in updates)
    recorded = [event[1:] for event in updates[EAGER] if event[0] == "recording"]
    assert recorded == sent(updates[0])
    # The seen values of each of two micro-batches, then all gradients at once; gfp's covariances have their own.
    assert recorded[0] == recorded[-2] == ["all_reduce", 1] or case == "features"
    assert recorded[-1][1] > 5000
    assert (len(recorded) == 3) == (case == "plain")
    assert one["losses"] == two["losses"]


def test_one_that_fails_to_record_stays_in_step(noted: list[dict[str, Any]]) -> None:
    """Process 1 breaks off after it has met the collective: nothing of the recording may have been sent."""
    one, two = (each["one fails"] for each in noted)
    assert one["reason"] is None
    assert two["reason"].startswith("recording failed: RuntimeError: operation not permitted")
    mine, other = by_update(one["events"]), by_update(two["events"])
    assert [sent(each) for each in mine] == [sent(each) for each in other]
    assert "replay" in phases(mine[-1])
    assert "replay" not in {event[0] for event in two["events"]}
    assert one["losses"] == two["losses"]
    assert one["losses"] == pytest.approx(train("plain", Log(), World())["losses"], rel=1e-5)


@pytest.mark.parametrize("case", ["all change", "one changes"])
def test_what_changes_is_recorded_anew_in_step(case: str, noted: list[dict[str, Any]]) -> None:
    one, two = (each[case] for each in noted)
    mine, other = by_update(one["events"]), by_update(two["events"])
    assert [sent(each) for each in mine] == [sent(each) for each in other]
    assert [phases(each) for each in other[CHANGE_AFTER:]] == CHANGED[CHANGE_AFTER:]
    assert (one["events"] == two["events"]) == (case == "all change")


def test_the_graph_is_gone_before_the_connections_close(tmp_path: Path, make_skeletons: Any) -> None:
    make_skeletons(12, bodies=2).save(tmp_path / "data.safetensors")
    for noted in run(tmp_path, "run"):
        ends = [event[1] for event in noted["run"]["events"] if not event[2]]
        assert ends[-3:] == ["graph held", "graph gone", "connections closed"]
