"""One of two processes that train recorded updates; ``python -m tests.training.processes.recording_process OUT [run]``.

What it does and what it speaks of with the other one is noted in order and written to OUT: a list of events, each the
phase (``host``, ``eager``, ``recording``, ``replay``), what happened, and to how many numbers.
"""

from __future__ import annotations

import gc
import inspect
import json
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fastamr.distributed import World
from fastamr.models import build_model
from fastamr.training import PretrainConfig, pretrain
from fastamr.training.clips.batches import BatchOrder, Part
from fastamr.training.clips.clip_streams import ResidentClips
from fastamr.training.clips.sampling import ClipSampler
from fastamr.training.update.optimizer import build_optimizer
from fastamr.training.update.step import PretrainStep

from ..conftest import make_data
from .test_distributed import SMALL, configure

UPDATES = 9
CHANGE_AFTER = 6
CASES = ("plain", "features", "one fails", "all change", "one changes")


class Log:
    """Events in order; every collective passes through here."""

    def __init__(self) -> None:
        self.phase, self.events = "host", list[list[Any]]()
        self.open = False  # the connections of the group that the updates speak in

    def note(self, what: str, numbers: int = 0) -> None:
        self.events.append([self.phase, what, numbers])

    def watched(self, name: str) -> Callable[..., Any]:
        """A collective that is noted, and held back where it would only be recorded."""
        call = getattr(dist, name)

        def speak(tensor: torch.Tensor, *arguments: Any, **options: Any) -> Any:
            if options.get("group") is not None:
                assert self.phase == "host", "the hosts speak within an update, which a graph cannot hold"
                return call(tensor, *arguments, **options)
            self.note(name, tensor.numel())
            if self.phase == "recording":
                assert self.open, (
                    "the first collective of all is recorded: NCCL opens its connections within the graph"
                )
                return None
            self.open = True
            return call(tensor, *arguments, **options)

        return speak


class LoggedGraph:
    """A stand-in for CUDA graphs that knows the collectives it holds.

    To record is to run the function with its collectives held back and everything that it changed put back: nothing is
    computed and nothing is sent. A replay must make the collectives that were recorded.

    Args:
        log: where events go.
        state: the tensors that an update changes.
        fails: the recording breaks off after its first collective.
    """

    def __init__(self, log: Log, state: Callable[[], list[torch.Tensor]], *, fails: bool = False) -> None:
        self.log, self.state, self.fails = log, state, fails
        self.held: list[list[Any]] | None = None
        self._function: Callable[[], Any] | None = None

    def _speaking(self, phase: str, function: Callable[[], Any]) -> tuple[Any, list[list[Any]]]:
        before, self.log.phase = len(self.log.events), phase
        try:
            result = function()
        finally:
            self.log.phase = "host"
        return result, [event[1:] for event in self.log.events[before:]]

    def run(self, function: Callable[[], Any]) -> Any:
        return self._speaking("eager", function)[0]

    def record(self, function: Callable[[], Any]) -> Any:
        saved = [(tensor, tensor.clone()) for tensor in self.state()]
        try:
            result, self.held = self._speaking("recording", function)
            if self.fails:
                self.held = None
                raise RuntimeError("operation not permitted when stream is capturing")
        finally:
            with torch.no_grad():
                for tensor, value in saved:
                    tensor.copy_(value)
        # As a graph does, hold the buffers and not the object that asked for the recording, which holds the graph.
        named = inspect.getclosurevars(function).nonlocals
        caller, buffers = weakref.ref(named["self"]), named["buffers"]
        self._function = lambda: caller()._function(*buffers)  # type: ignore[union-attr]
        self._result = (result[0].clone(), {name: term.clone() for name, term in result[1].items()})
        self.log.note("graph held")
        weakref.finalize(self, self.log.note, "graph gone")
        return self._result

    def replay(self) -> None:
        assert self._function is not None
        (loss, terms), spoken = self._speaking("replay", self._function)
        assert spoken == self.held, "a replay speaks of what was not recorded"
        self._result[0].copy_(loss)
        for name, term in terms.items():
            self._result[1][name].copy_(term)

    def forget(self) -> None:
        self.log.note("graph dropped")
        self.held = self._function = None


def state_of(step: PretrainStep) -> list[torch.Tensor]:
    """The tensors that an update changes."""
    optimizer = step.optimizer
    found = [*step.model.parameters(), *step.model.buffers(), step.seed, step.counter]
    found += [each for state in optimizer.state.values() for each in state.values() if torch.is_tensor(each)]
    found += [each for group in optimizer.param_groups for each in group.values() if torch.is_tensor(each)]
    return found + [each for each in vars(step.metrics).values() if torch.is_tensor(each)]


def train(case: str, log: Log, world: World) -> dict[str, Any]:
    """Make some recorded updates, with what the case changes on the way; return the losses."""
    data = make_data(12, bodies=2, with_valid=True)
    kind, architecture = ("gfp", {"levels": [1, 2]}) if case == "features" else ("amr", {"target_patches": 1})
    torch.manual_seed(5 + world.rank)
    model = build_model(kind, **SMALL, **architecture).train()
    optimizer = build_optimizer(model, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
    order = BatchOrder(torch.arange(24), 8, 1, Part(world.rank, world.size, 2))
    world.share_tensors([*model.parameters(), *model.buffers()])
    steps: list[PretrainStep] = []
    graph = LoggedGraph(log, lambda: state_of(steps[0]), fails=case == "one fails" and world.rank == 1)
    steps.append(
        PretrainStep(
            model, optimizer, ResidentClips(ClipSampler(data, 16, min_frames=8), order), seed=torch.tensor([7, 5]),
            accumulate=2, clip_grad=1.0, recorder=graph, world=world,
        )
    )  # fmt: skip
    losses = []
    for update in range(UPDATES):
        world.any(False)
        log.note(f"update {update}")
        changes = case == "all change" or (case == "one changes" and world.rank == 1)
        if update == CHANGE_AFTER and changes:
            optimizer.param_groups[0]["weight_decay"] = 0.05 + 1e-9
        losses.append(float(steps[0]()))
    return {"losses": losses, "reason": steps[0].graph_reason}


def train_whole(log: Log, folder: Path) -> None:
    """Pre-train, with the stand-in for the graph and the end of the connections noted."""
    build = PretrainStep.__init__

    def init(self: PretrainStep, *arguments: Any, **options: Any) -> None:
        alive = weakref.ref(self)
        graph = LoggedGraph(log, lambda: state_of(alive()))  # type: ignore[arg-type]
        build(self, *arguments, **options, recorder=graph)

    PretrainStep.__init__ = init  # type: ignore[method-assign]
    close = dist.destroy_process_group
    dist.destroy_process_group = lambda *words: (log.note("connections closed"), close(*words))
    config: PretrainConfig = configure(folder, "run", updates=6)
    pretrain(config, quiet=True)


def main(path: Path, whole: bool) -> None:
    log, found = Log(), dict[str, Any]()
    for name in ("all_reduce", "broadcast"):
        setattr(dist, name, log.watched(name))
    world = World.from_environment()
    if whole:
        train_whole(log, path.parent)
        found["run"] = {"events": log.events}
    else:
        with world.joined(torch.device("cpu")):
            for case in CASES:
                log.events = []
                gc.collect()  # a case's step holds its stand-in for a graph, which knows the step: both go now
                log.events, log.open = [], False
                found[case] = {**train(case, log, world), "events": log.events}
    path.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), len(sys.argv) > 2)
