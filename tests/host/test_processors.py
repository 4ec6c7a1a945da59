"""How many CPUs the process may use, and what OpenMP is told before torch loads it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from fastamr import info
from fastamr.commands.data import prepare
from fastamr.host import processors

ROOT = Path(__file__).resolve().parents[2]
TOLD = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
COMPILERS = ("TORCHINDUCTOR_COMPILE_THREADS",)
LAST = f"GOMP_SPINCOUNT = '{processors.SPIN}'"
linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux binds a process to CPUs")


def write(root: Path, **files: str) -> None:
    """Files of ``proc`` and ``sys``; ``__`` in a name parts folders, ``_DOT_`` is a dot."""
    for name, text in files.items():
        path = root / name.replace("_DOT_", ".").replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may run on 8 of the machine's 64 CPUs."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8, 16)), raising=False)


@pytest.mark.usefixtures("eight")
class TestAllowed:
    @pytest.mark.parametrize(
        ("limit", "allowed"),
        [
            ("max 100000", 8),
            ("200000 100000", 2),
            ("150000 100000", 2),
            ("50000 100000", 1),
            ("1000 100000", 1),
            ("6400000 100000", 8),
            ("100001 50000", 3),
            ("", 8),
            ("twelve 100000", 8),
            ("100000", 8),
            ("100000 0", 8),
            ("-1 100000", 8),
        ],
    )
    def test_version_2(self, tmp_path: Path, limit: str, allowed: int) -> None:
        write(tmp_path, proc__self__cgroup="0::/job\n", sys__fs__cgroup__job__cpu_DOT_max=limit + "\n")
        assert processors.allowed_cpus(tmp_path) == allowed

    def test_the_least_of_nested_groups_counts(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            proc__self__cgroup="0::/slice/job/step\n",
            sys__fs__cgroup__slice__cpu_DOT_max="300000 100000\n",
            sys__fs__cgroup__slice__job__cpu_DOT_max="max 100000\n",
            sys__fs__cgroup__slice__job__step__cpu_DOT_max="700000 100000\n",
        )
        assert processors.allowed_cpus(tmp_path) == 3

    def test_a_container_sees_its_own_group_at_the_top(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            proc__self__cgroup="0::/docker/of-outside\n",
            sys__fs__cgroup__cpu_DOT_max="250000 100000\n",
        )
        assert processors.allowed_cpus(tmp_path) == 3

    @pytest.mark.parametrize("mounted", ["cpu,cpuacct", "cpu"])
    @pytest.mark.parametrize(("time", "allowed"), [("150000", 2), ("-1", 8), ("0", 8)])
    def test_version_1(self, tmp_path: Path, mounted: str, time: str, allowed: int) -> None:
        group = tmp_path / "sys/fs/cgroup" / mounted / "user/job"
        write(tmp_path, proc__self__cgroup="5:memory:/user/job\n4:cpu,cpuacct:/user/job\n0::/user/job\n")
        write(group, cpu_DOT_cfs_quota_us=time + "\n", cpu_DOT_cfs_period_us="100000\n")
        write(
            tmp_path / "sys/fs/cgroup/memory/user/job", cpu_DOT_max="100000 100000\n"
        )  # of another controller
        assert processors.allowed_cpus(tmp_path) == allowed

    def test_both_versions_side_by_side(self, tmp_path: Path) -> None:
        write(tmp_path, proc__self__cgroup="4:cpu:/job\n0::/job\n")
        write(
            tmp_path / "sys/fs/cgroup/cpu/job",
            cpu_DOT_cfs_quota_us="-1\n",
            cpu_DOT_cfs_period_us="100000\n",
        )
        write(tmp_path / "sys/fs/cgroup/unified/job", cpu_DOT_max="400000 100000\n")
        assert processors.allowed_cpus(tmp_path) == 4

    def test_where_the_system_does_not_tell(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert processors.allowed_cpus(tmp_path) == 8
        monkeypatch.delattr(os, "sched_getaffinity")
        assert processors.allowed_cpus(tmp_path) == 64
        monkeypatch.setattr(os, "cpu_count", lambda: None)
        assert processors.allowed_cpus(tmp_path) == 1

    def test_words(self, tmp_path: Path) -> None:
        write(tmp_path, proc__self__cgroup="0::/\n", sys__fs__cgroup__cpu_DOT_max="150000 100000\n")
        text = "64 in the machine, 2 for this process (affinity 8, control groups: 1.5)"
        assert processors.described(tmp_path) == text


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def _no_torch_yet(self, monkeypatch: pytest.MonkeyPatch, eight: None) -> None:
        for name in TOLD + COMPILERS:
            monkeypatch.setenv(name, "")  # so that what is set below is taken back
            monkeypatch.delenv(name)
        monkeypatch.delitem(sys.modules, "torch")

    def told(self, root: Path) -> dict[str, str]:
        processors.share_cpus(root)
        return {name: os.environ[name] for name in TOLD + COMPILERS if name in os.environ}

    def limited(self, root: Path, cpus: int) -> None:
        write(root, proc__self__cgroup="0::/\n", sys__fs__cgroup__cpu_DOT_max=f"{cpus * 1000} 1000\n")

    def test_without_a_limit_only_the_wait_is_short(self, tmp_path: Path) -> None:
        assert self.told(tmp_path) == {"GOMP_SPINCOUNT": str(processors.SPIN)}

    def test_a_limit_bounds_the_threads(self, tmp_path: Path) -> None:
        self.limited(tmp_path, 3)
        told = self.told(tmp_path)
        assert (told["OMP_NUM_THREADS"], told[COMPILERS[0]]) == ("3", "3")

    def test_two_cpus_of_a_core_are_one_thread(self, tmp_path: Path) -> None:
        self.limited(tmp_path, 6)
        for cpu in range(8, 16):
            path = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
            write(path, thread_siblings_list=f"{cpu // 2 * 2},{cpu // 2 * 2 + 1}\n")
        told = self.told(tmp_path)
        assert (told["OMP_NUM_THREADS"], told[COMPILERS[0]]) == ("4", "6")

    @pytest.mark.parametrize("name", TOLD[:3])
    def test_the_users_way_of_waiting_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv(name, "7")
        assert self.told(tmp_path) == {name: "7"}

    @pytest.mark.parametrize("name", TOLD[3:])
    def test_the_users_threads_stay(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.limited(tmp_path, 1)
        monkeypatch.setenv(name, "5")
        monkeypatch.setenv(COMPILERS[0], "9")
        assert self.told(tmp_path) == {
            name: "5",
            COMPILERS[0]: "9",
            "GOMP_SPINCOUNT": str(processors.SPIN),
        }

    def test_after_torch_nothing_changes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", sys)
        self.limited(tmp_path, 1)
        assert self.told(tmp_path) == {}


def python(*words: str, **told: str) -> str:
    """Run Python and return what it prints, with what its OpenMP libraries say that they read."""
    kept = {name: value for name, value in os.environ.items() if name not in TOLD}
    shown = {"PYTHONPATH": str(ROOT), "OMP_DISPLAY_ENV": "VERBOSE", "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
        env=kept | shown | told,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def default() -> str:
    """The line of a process that says nothing: the default of GNU's library."""
    found = re.findall(r"GOMP_SPINCOUNT = '\d+'", python("-c", "import torch"))
    if not found:
        pytest.skip("torch is not built with GNU's OpenMP library")
    assert set(found) != {LAST}
    return found[0]


SCRIPT = "import sys; from fastamr.cli import main; sys.exit(main())"


def test_the_command_line_reaches_the_library(default: str) -> None:
    """As the installed script calls it; what is set too late would leave the default."""
    text = python("-c", SCRIPT, "info")
    assert LAST in text
    assert default not in text
    assert re.search(rf"^GOMP_SPINCOUNT +{processors.SPIN}$", text, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["-m", "fastamr", "info"],
        ["-m", "pytest", "-sq", "--collect-only", "tests/host"],
        ["-m", "pytest", "-sq", "--collect-only", "benchmarks/bench_audit.py"],
        ["-m", "benchmarks.bench_finetune", "--help"],
    ],
    ids=["module", "tests", "benchmarks", "benchmark"],
)
def test_every_other_door_reaches_the_library(default: str, words: list[str]) -> None:
    text = python(*words)
    assert LAST in text
    assert default not in text


@pytest.mark.slow
def test_processes_of_torchrun_read_it_too(default: str) -> None:
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fastamr", "info"]
    assert python(*start).count(LAST) == 2


@pytest.mark.slow
def test_what_the_user_says_reaches_the_library(default: str) -> None:
    assert "GOMP_SPINCOUNT = '77'" in python("-c", SCRIPT, "info", GOMP_SPINCOUNT="77")


def test_the_library_changes_nothing(default: str) -> None:
    code = (
        "import os\nbefore = dict(os.environ)\nimport fastamr, fastamr.ops\n"
        "assert dict(os.environ) == before, 'changed'"
    )
    text = python("-c", code)
    assert default in text
    assert LAST not in text


@linux
@pytest.mark.slow
def test_threads_follow_affinity_and_limit(tmp_path: Path) -> None:
    """torch follows the mask by itself, and the limit by what it is told."""
    write(tmp_path, proc__self__cgroup="0::/\n", sys__fs__cgroup__cpu_DOT_max="1000 1000\n")
    code = (
        "import os, sys, pathlib\nfrom fastamr.host import allowed_cpus, share_cpus\nroot = pathlib.Path(sys.argv[1])\n"
        "bound = sys.argv[2] == 'bound'\n"
        "if bound: os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "share_cpus(root)\nimport torch\nprint('threads', torch.get_num_threads(), allowed_cpus(root))"
    )
    assert "threads 1 1" in python("-c", code, str(tmp_path), "free")
    assert "threads 1 1" in python("-c", code, str(tmp_path / "unlimited"), "bound")


@linux
def test_workers_and_compilers_are_as_many_as_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastamr.native import build, load

    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 6})
    assert prepare.allowed_cpus() == load.allowed_cpus() == min(3, processors.allowed_cpus())
    asked: list[int] = []
    monkeypatch.setattr(build, "build", lambda plan, library, jobs, *rest: asked.append(jobs))
    monkeypatch.setattr(load.cache, "is_sound", lambda library: False)
    monkeypatch.setattr(load.cache, "failure", lambda path: None)
    monkeypatch.setattr(load.cache, "locked", lambda path: nullcontext())
    load._build(build.Plan("cpu", (), (), ()), Path("nowhere/cpu.so"), "")
    assert asked == [processors.allowed_cpus()]


def test_nothing_else_counts_cpus() -> None:
    """One function decides; a second count would forget a container's limit."""
    counting = re.compile(r"cpu_count\(|sched_getaffinity\(")
    folders = ("fastamr", "kernels", "tools", "experiments", "benchmarks", "examples")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")] + [ROOT / "setup.py"]
    found = [path.relative_to(ROOT).as_posix() for path in files if counting.search(path.read_text("utf-8"))]
    assert found == ["fastamr/host/processors.py"]


def test_the_report_shows_both_counts() -> None:
    (line,) = (x for x in info.report().splitlines() if x.startswith("cpus "))
    assert line.removeprefix("cpus").strip() == processors.described()
