"""Memory that runs out: an estimate before, advice after, and the last checkpoint stays."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastamr import cli, memory
from fastamr.memory import OutOfMemory, free_memory, is_exhausted, what_failed
from fastamr.training import PretrainConfig, pretrain
from fastamr.training.update.needs import needs_of, ways_out
from fastamr.training.update.step import PretrainStep

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1 GiB."),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 9 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "c++": RuntimeError("std::bad_alloc"),
    "python": MemoryError(),
    "system": OSError(errno.ENOMEM, "Cannot allocate memory"),
}
linux = pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="only Linux tells and limits it")


def config(out: Path, **options: Any) -> PretrainConfig:
    given = {"updates": 8, "batch_size": 4, "min_frames": 8, "warmup_epochs": 0, "log_every": 1}
    given |= {"device": "cpu", "progress": False, "tensorboard": False, "checkpoint_every": 0.5} | options
    return PretrainConfig(model="tiny", out=str(out), **given)


@pytest.mark.parametrize("name", ERRORS)
def test_memory_that_runs_out_is_one_line_and_resume_goes_on(
    name: str, tiny: Any, skeletons: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrain(config(tmp_path / "whole"), data=skeletons, quiet=True)
    call = PretrainStep.__call__

    def planted(step: PretrainStep) -> Any:
        if step.update == 5:
            raise ERRORS[name]
        return call(step)

    with monkeypatch.context() as patch:
        patch.setattr(PretrainStep, "__call__", planted)
        with pytest.raises(OutOfMemory) as caught:
            pretrain(config(tmp_path / "run"), data=skeletons, quiet=True)
    told = str(caught.value)
    assert "\n" not in told
    assert "in update 6; checkpoint of update 4 is kept, --resume auto goes on from it" in told
    for option in (
        "--accumulate 2 (the same update",
        "--recompute",
        "--precision bfloat16",
        "--batch-size 2",
    ):
        assert option in told
    assert cli._told(caught.value, ["pretrain"]) == told
    pretrain(config(tmp_path / "run", resume="auto"), data=skeletons, quiet=True)
    assert (tmp_path / "run/model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_before_the_first_update_and_other_errors(
    tiny: Any, skeletons: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("fastamr.training.run.build_model", planted)
    error: Exception = ERRORS["cuda"]
    with pytest.raises(
        OutOfMemory, match=r"before the first update .CUDA out of memory.; less is needed with"
    ):
        pretrain(config(tmp_path / "run"), data=skeletons, quiet=True)
    error = RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        pretrain(config(tmp_path / "run"), data=skeletons, quiet=True)


def test_what_other_commands_say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def planted(words: list[str]) -> int:
        raise ERRORS["cpu"]

    monkeypatch.setattr(cli, "_dispatch", planted)
    for command, option in (("finetune", "--recipe.batch-size"), ("evaluate", "--batch-size")):
        assert cli.main([command]) == 1
        told = capsys.readouterr().err
        assert told.startswith(
            "error: not enough memory (DefaultCPUAllocator: can't allocate memory: you tried"
        )
        assert option in told
        assert told.count("\n") == 1
    assert cli.main(["check"]) == 1
    assert "give it less data, or a machine with more" in capsys.readouterr().err
    assert not any(
        map(is_exhausted, (RuntimeError("size"), OSError(errno.ENOSPC, "full"), ValueError("memory")))
    )
    assert what_failed(MemoryError()) == "MemoryError"


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_free_memory_is_the_least_of_system_groups_and_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_of_limit", lambda root: ())
    assert free_memory(CPU, tmp_path) is None
    root = write(tmp_path, proc__meminfo="MemTotal: 9 kB\nMemAvailable:   4000 kB\n")
    assert free_memory(CPU, root) == 4_096_000
    group = root / "sys/fs/cgroup/user/job"
    write(root, proc__self__cgroup="0::/user/job\n")
    write(group, **{"memory.max": "max\n", "memory.current": "5\n", "memory.stat": "anon 5\n"})
    assert free_memory(CPU, root) == 4_096_000
    # A group further up is smaller; what it can take back counts as free.
    limits = {"memory.max": "3000000\n", "memory.current": "2000000\n", "memory.stat": "inactive_file 500\n"}
    write(group.parent, **limits)
    assert free_memory(CPU, root) == 1_000_500
    write(group, **{"memory.max": "10", "memory.current": "20", "memory.stat": ""})
    assert free_memory(CPU, root) == 0
    write(root, proc__self__cgroup="4:memory:/docker/elsewhere\n1:cpu:/x\n")
    limits = {
        "memory.limit_in_bytes": "700",
        "memory.usage_in_bytes": "300",
        "memory.stat": "total_inactive_file 7",
    }
    write(root / "sys/fs/cgroup/memory", **limits)
    assert free_memory(CPU, root) == 407


@linux
def test_the_limit_of_address_space_counts() -> None:
    code = (
        "import resource, torch\nfrom fastamr.memory import free_memory\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), -1))\n"
        "print(free_memory(torch.device('cpu')) / 2**20)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert 80 < float(run.stdout) <= 100


def test_a_warning_where_it_is_likely_not_to_fit() -> None:
    model, given = nn.Linear(1000, 1000), PretrainConfig(batch_size=6, accumulate=2, recompute=True)
    enough = needs_of(model, 1 << 30, 0, torch.float32, 4 << 30)
    assert enough.model == 16 * 1_001_000
    assert enough.warnings(ways_out(given)) == []
    assert re.fullmatch(
        r"1\.\d GiB estimated .data 0 MiB, model with moments 15 MiB, an update .*", enough.line()
    )
    (short,) = needs_of(model, 1 << 30, 0, torch.float32, 1 << 30).warnings(ways_out(given))
    assert "likely to run out of memory" in short
    assert "--accumulate 6" in short
    assert "--recompute" not in short
    assert needs_of(model, 1 << 40, 0, torch.bfloat16, None).warnings(ways_out(given)) == []
    assert needs_of(model, 1, 0, torch.bfloat16, 1).model == 18 * 1_001_000
    assert ways_out(PretrainConfig(batch_size=1, precision="bfloat16", recompute=True)) == "a smaller model"


_RUN = """
import resource, sys
from pathlib import Path
from fastamr import cli
from fastamr.data import synthetic_actions
import torch
from fastamr.training import PretrainConfig, pretrain
def status(name):
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
data = synthetic_actions(80, seed=0, frames=(40, 60))
def run(out, **options):
    given = dict(model="mamp", updates=2, min_frames=16, warmup_epochs=0, device="cpu", progress=False)
    given |= dict(tensorboard=False, architecture=dict(frames=60, width=128, depth=3, heads=4, decoder_depth=1))
    return pretrain(PretrainConfig(out=out, **given | options), data=data, quiet=True)
"""


def child(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", _RUN + code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )


@pytest.mark.slow
@linux
@pytest.mark.parametrize(("stack", "precision"), [("auto", "bfloat16"), ("reference", "float32")])
def test_the_estimate_is_near_the_peak(stack: str, precision: str, tmp_path: Path) -> None:
    """Estimate and measured peak of a run on a CPU differ by less than a factor of 1.5; see docs/reliability.md."""
    code = f"""
import json, fastamr
fastamr.backend(transformer_stack={stack!r}).__enter__()
run("warm", batch_size=2, updates=1)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
out = run("run", batch_size=16, precision={precision!r})
peak = status("VmHWM") - before
header = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
print(json.dumps([peak, header["memory"]]))
"""
    done = child(code, tmp_path)
    assert done.returncode == 0, done.stderr
    peak, line = json.loads(done.stdout)
    size, unit = re.match(r"([\d.,]+) (\wiB)", line).groups()  # type: ignore[union-attr]
    expected = float(size.replace(",", "")) * {"MiB": 2**20, "GiB": 2**30}[unit]
    print(f"{stack} {precision}: estimated {line}, measured {peak / 2**20:.0f} MiB, {expected / peak:.2f}")
    assert 1 / 1.5 < expected / peak < 1.5


@pytest.mark.slow
@linux
def test_a_limit_that_is_really_met(tmp_path: Path) -> None:
    """The run says before that memory will not do, ends with one line, and goes on in smaller parts."""
    code = """
run("run", batch_size=2, updates=1)
data.save("data.safetensors")
limit = status("VmSize") + (150 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, -1))
words = "pretrain --model mamp --data data.safetensors --min-frames 16 --warmup-epochs 0 --updates 1 --device cpu"
words += " --no-progress --no-tensorboard --model.frames 60 --model.width 128 --model.depth 3 --model.heads 4"
words = [*words.split(), "--model.decoder-depth", "1", "--batch-size", "64"]
code = cli.main([*words, "--out", "short"])
print(code, cli.main([*words, "--out", "short", "--resume", "auto", "--accumulate", "32"]))
"""
    done = child(code, tmp_path)
    assert done.stdout.split()[-2:] == ["1", "0"], done.stdout + done.stderr
    assert "warning: the run is likely to run out of memory: it needs about" in done.stderr
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "memory is used up, in update 1; nothing was saved yet (" in error
    assert "--accumulate 2 (the same update in smaller parts)" in error
