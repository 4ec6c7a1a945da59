"""Batch scripts, those of the page on scaling and that of a sweep, as bash runs them: saved, requeued, finished."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastamr import cli

from ..docs.pages import blocks
from . import slurm_stand_in

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
ONE_NODE, NODES = (block.text for block in blocks("docs/scaling.md") if block.text.startswith("#!/bin/bash"))
# Stands for the training: it goes on until it is told to save, and ends well the next time.
TRAINING = """#!/bin/bash
printf '%s\\n' "$*" >> "words-$SLURM_PROCID"
if [ -e "saved-$SLURM_PROCID" ]; then exit 0; fi
trap 'sleep 0.1; touch "saved-$SLURM_PROCID"; exit 1' TERM
touch "ready-$SLURM_PROCID"
while :; do sleep 0.02; done
"""
# The real torchrun with a model and a number of processes that a test can do with.
TORCHRUN = """#!/bin/bash
words=("${{@/8/1}}")
exec {python} -m torch.distributed.run "${{words[@]/localhost:29500/localhost:$PORT}}" {small} --updates "$UPDATES"
"""
SMALL = (
    "--model.frames 16 --model.width 8 --model.depth 1 --model.heads 2 --model.decoder-width 8 --model.decoder-depth 1 "
    "--model.decoder-heads 2 --model.target-patches 1 --min-frames 8 --batch-size 8 --warmup-epochs 0 "
    "--log-every 1 --checkpoint-every 1e9 --device cpu --no-tensorboard --no-progress"
)


class Queue:
    """A folder with SLURM's commands, in which a script takes one turn after the other."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.programs = folder, folder / "programs"
        self.programs.mkdir()
        text = f"#!{sys.executable}\n{Path(slurm_stand_in.__file__).read_text()}"
        for name in ("srun", "scancel", "scontrol"):
            self.add(name, text)
        self.environment = {
            **os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
            "STAND_IN": str(folder), "SLURM_JOB_ID": "71", "SLURM_JOB_NODELIST": "node[1-2]", **settings,
        }  # fmt: skip

    def add(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def turn(
        self, script: str, until: Callable[[], bool] | None = None, number: int | None = None, **settings: str
    ) -> tuple[int, list[str]]:
        """Carry a script out, perhaps with a signal; return its exit code and what it asked of SLURM.

        SIGUSR1 comes to the shell alone, as ``--signal=B:USR1`` asks for; SIGTERM, as ``scancel`` and preemption send
        it, to all processes of the job but the commands of SLURM.
        """
        (self.folder / "notes").write_text("")
        shell = subprocess.Popen(
            ["bash", "-c", script], cwd=self.folder, env=self.environment | settings, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if until is not None and number is not None:
            while not until():
                assert shell.poll() is None, shell.communicate()[0]
                time.sleep(0.02)
            if number == signal.SIGTERM:
                slurm_stand_in.signal_step(str(self.folder), signal.SIGTERM)
            shell.send_signal(number)
        shown, _ = shell.communicate(timeout=120)
        assert list(slurm_stand_in.members(str(self.folder))) == [], shown
        return shell.returncode, (self.folder / "notes").read_text().splitlines()


@pytest.fixture(params=["one node", "several nodes", "array"])
def job(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[Queue, str, str]:
    """A queue with a training that is none, a script, and the number of its job."""
    if request.param == "one node":
        queue, script, number = Queue(tmp_path), ONE_NODE, "71"
    elif request.param == "several nodes":
        queue, script, number = Queue(tmp_path, SLURM_NNODES="2"), NODES, "71"
    else:
        words = ["sweep", "--data", "it's.st", "--seeds", "5", "6", "--out", "runs/two words", "--slurm"]
        assert cli.main(words) == 0
        script = capsys.readouterr().out
        queue = Queue(tmp_path, SLURM_ARRAY_JOB_ID="70", SLURM_ARRAY_TASK_ID="1")
        number = "70_1"  # 70 alone means all tasks, and 71 may be any of them
    for name in ("torchrun", "fastamr"):
        queue.add(name, TRAINING)
    return queue, script, number


def ready(queue: Queue) -> Callable[[], bool]:
    count = int(queue.environment.get("SLURM_NNODES", "1"))
    return lambda: all((queue.folder / f"ready-{rank}").exists() for rank in range(count))


def saved(queue: Queue) -> list[str]:
    return sorted(path.name for path in queue.folder.glob("saved-*"))


def everyone(queue: Queue) -> list[str]:
    return [f"saved-{rank}" for rank in range(int(queue.environment.get("SLURM_NNODES", "1")))]


def test_before_its_time_is_over_a_job_saves_and_asks_for_another_turn(job: tuple[Queue, str, str]) -> None:
    queue, script, number = job
    code, asked = queue.turn(script, ready(queue), signal.SIGUSR1)
    assert (code, saved(queue)) == (1, everyone(queue))
    assert asked == [f"scancel --signal=TERM {number}", f"scontrol requeue {number}"]
    assert queue.turn(script) == (0, [])
    first, second = (queue.folder / "words-0").read_text().splitlines()
    assert first == second
    assert "--resume auto" in first


def test_a_job_that_is_cancelled_or_preempted_saves_and_stays_out(job: tuple[Queue, str, str]) -> None:
    queue, script, _ = job
    assert queue.turn(script, ready(queue), signal.SIGTERM) == (1, [])
    assert saved(queue) == everyone(queue)


def test_a_job_that_fails_is_not_requeued(job: tuple[Queue, str, str]) -> None:
    queue, script, _ = job
    for name in ("torchrun", "fastamr"):
        queue.add(name, "#!/bin/bash\nexit 7\n")
    assert queue.turn(script) == (7, [])


def test_a_job_that_ends_well_after_the_signal_is_not_requeued(job: tuple[Queue, str, str]) -> None:
    queue, script, number = job
    for name in ("torchrun", "fastamr"):
        queue.add(name, TRAINING.replace("exit 1", "exit 0"))
    assert queue.turn(script, ready(queue), signal.SIGUSR1) == (0, [f"scancel --signal=TERM {number}"])


def test_srun_itself_must_not_be_signalled(tmp_path: Path) -> None:
    """The stand-in does what SLURM does: the step is killed, and nothing is saved."""
    queue = Queue(tmp_path)
    queue.add("torchrun", TRAINING)
    script = ONE_NODE.replace('scancel --signal=TERM "$SLURM_JOB_ID"', 'kill -TERM "$child"')
    assert queue.turn(script, ready(queue), signal.SIGUSR1) == (9, ["scontrol requeue 71"])
    assert saved(queue) == []


def test_each_task_of_an_array_is_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "sweep",
        "--data",
        "a b.st",
        "--seeds",
        "0",
        "1",
        "--set",
        "lr=1e-3,2e-3",
        "--out",
        "runs/my sweep!",
    ]
    assert cli.main([*words, "--slurm"]) == 0
    script = capsys.readouterr().out
    assert "--job-name=my-sweep --array=0-3 " in script
    assert cli.main([*words, "--print"]) == 0
    runs = [shlex.split(line)[1:] for line in capsys.readouterr().out.splitlines()]
    queue = Queue(tmp_path, SLURM_ARRAY_JOB_ID="70")
    queue.add("fastamr", '#!/bin/bash\nprintf "%s\\n" "$@" > words\n')
    for task, run in enumerate(runs):
        assert queue.turn(script, SLURM_ARRAY_TASK_ID=str(task)) == (0, [])
        assert (tmp_path / "words").read_text().splitlines() == run
    assert queue.turn(script, SLURM_ARRAY_TASK_ID="4") == (2, [])


class Trained:
    """What a run has logged and saved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "runs" / "amr"

    def updates(self) -> int:
        path = self.folder / "metrics.jsonl"
        return len(re.findall(r'"kind": "train"', path.read_text())) if path.exists() else 0

    def has_begun(self) -> bool:
        return self.updates() > 1


@pytest.fixture
def real(tmp_path: Path, save_data: Callable[[str], Path]) -> Queue:
    save_data("ntu60.safetensors")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    queue = Queue(tmp_path, OMP_NUM_THREADS="1", PORT=str(port), UPDATES="100000")
    queue.add("torchrun", TORCHRUN.format(python=sys.executable, small=SMALL))
    return queue


@pytest.mark.slow
def test_a_real_run_on_one_node_is_requeued_and_finishes(real: Queue) -> None:
    """One process, which gets SIGTERM both from the queue and from torchrun, and saves all the same."""
    run = Trained(real.folder)
    code, asked = real.turn(ONE_NODE, run.has_begun, signal.SIGUSR1)
    assert code != 0
    assert asked == ["scancel --signal=TERM 71", "scontrol requeue 71"]
    made = run.updates()
    assert (run.folder / "state.safetensors").exists()
    assert real.turn(ONE_NODE, UPDATES=str(made + 2)) == (0, [])
    assert json.loads((run.folder / "complete.json").read_text())["updates"] == made + 2 == run.updates()


@pytest.mark.slow
def test_a_real_run_on_two_nodes_saves_when_it_is_cancelled(real: Queue) -> None:
    run = Trained(real.folder)
    real.environment["SLURM_NNODES"] = "2"
    code, asked = real.turn(NODES, run.has_begun, signal.SIGTERM)
    assert code != 0
    assert asked == []
    assert (run.folder / "state.safetensors").exists()
    assert not (run.folder / "complete.json").exists()
