"""How many CPUs the process may use, and how its OpenMP threads share them with other processes."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from pathlib import Path

from . import control_groups

SPIN = 3_000
"""Turns that an OpenMP thread waits in a loop before it sleeps: the most with which a step beside another process takes
less than twice as long, and the least that costs nothing alone (``docs/performance.md``). GNU's library has 300,000."""

# What says how long OpenMP's threads wait in a loop, and how many there are, in the libraries that torch may use.
_WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def host_cpus() -> int:
    """Return the number of the machine's CPUs, whoever may use them."""
    return os.cpu_count() or 1


def affinity() -> frozenset[int]:
    """Return the CPUs that the process may run on (``taskset``, a queue's binding, ``cpuset``), all where none says."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(host_cpus()))


def quota(root: Path = Path("/")) -> float | None:
    """Return the CPUs whose time the process's control groups allow it, None where they set no limit.

    Args:
        root: above ``proc`` and ``sys``.
    """
    found = [
        each for folder in control_groups.folders("cpu", root) if (each := _quota_of(folder)) is not None
    ]
    return min(found, default=None)


def _quota_of(folder: Path) -> float | None:
    """CPUs of one group: microseconds of processor time in a period, of version 2 or of version 1."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):
            time, period = " ".join((folder / name).read_text(encoding="utf-8") for name in names).split()
            if time not in ("max", "-1") and int(time) > 0 and int(period) > 0:
                return int(time) / int(period)
    return None


def allowed_cpus(root: Path = Path("/")) -> int:
    """Return how many CPUs the process may use: of its affinity mask, at most the control groups' time, rounded up.

    Every number of threads, processes and compilers that the package chooses comes from here.

    Args:
        root: above ``proc`` and ``sys``.
    """
    count, limit = len(affinity()), quota(root)
    return count if limit is None else max(1, min(count, math.ceil(limit)))


def described(root: Path = Path("/")) -> str:
    """Return both numbers in words, and what makes them differ.

    Args:
        root: above ``proc`` and ``sys``.
    """
    limit = quota(root)
    group = "no limit" if limit is None else f"{limit:g}"
    return (
        f"{host_cpus()} in the machine, {allowed_cpus(root)} for this process (affinity {len(affinity())}, control "
        f"groups: {group})"
    )


def share_cpus(root: Path = Path("/")) -> None:
    """Have OpenMP's threads, which are not there yet, wait briefly and be no more than the CPUs that are allowed.

    By default GNU's OpenMP library turns in a loop for milliseconds at the end of every parallel region. With another
    process on the same CPUs that loop keeps the thread that it waits for from running. Threads follow the affinity
    mask by themselves, but not a control group's limit.

    Both are set by environment variables, which the library reads once, when torch is loaded: after that nothing is
    changed, and nothing that the user has set is. ``fastamr``'s commands, the tests and the benchmarks call this first;
    ``import fastamr`` does not.

    Args:
        root: above ``proc`` and ``sys``.
    """
    if "torch" in sys.modules:
        return
    if not any(name in os.environ for name in _WAITING):
        os.environ["GOMP_SPINCOUNT"] = str(SPIN)
    allowed, present = allowed_cpus(root), affinity()
    if allowed == len(present):
        return
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(allowed))
    if not any(name in os.environ for name in _THREADS):
        os.environ["OMP_NUM_THREADS"] = str(min(allowed, _cores(present, root)))


def _cores(cpus: frozenset[int], root: Path) -> int:
    """Return the cores that CPUs belong to: torch takes a thread for each, not for each of a core's two CPUs."""
    found = set()
    for cpu in cpus:
        path = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        try:
            found.add(path.read_text(encoding="utf-8").strip())
        except OSError:
            found.add(str(cpu))
    return len(found)
