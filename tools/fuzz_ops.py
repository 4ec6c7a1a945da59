#!/usr/bin/env python
"""Call the ops with random arguments, right and wrong ones: each call agrees with float64 or is refused.

    python tools/fuzz_ops.py                      20,000 calls of the compiled extension
    python tools/fuzz_ops.py --calls 1000 --first 7000
    python tools/fuzz_ops.py --sanitize           the same with the extension built with AddressSanitizer and
                                                  UndefinedBehaviorSanitizer, which end the process at a wrong access

Calls are numbered and always the same, so that one that failed can be repeated: --first NUMBER --calls 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SANITIZE = (
    "-O1",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
)


def sanitized(words: list[str]) -> int:
    """Build the extension with the sanitizers into a folder of its own, and run this program with it."""
    from fastamr.host import allowed_cpus
    from fastamr.native import build, cache, load

    plan = load.plan_here("cpu")
    library = f"cpu-{build.fingerprint(plan)}.so"
    compilations = tuple((source, (*command, *SANITIZE)) for source, command in plan.compilations)
    changed = dataclasses.replace(plan, compilations=compilations, link=(*plan.link, *SANITIZE))
    runtime = [
        subprocess.run(
            [plan.tools[0], f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so")
    ]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / library
        build.build(changed, place, allowed_cpus(), lambda built: cache.seal(place, "sanitized", built))
        environment = os.environ | {
            "FASTAMR_CACHE": name,
            "LD_PRELOAD": " ".join(runtime),
            # Python and torch keep what they allocate until the end.
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        return subprocess.run([sys.executable, __file__, *words], env=environment, check=False).returncode


def main() -> int:
    """0 if every call is right or refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--backend", default="cpp")
    parser.add_argument("--sanitize", action="store_true")
    given = parser.parse_args()
    words = ["--calls", str(given.calls), "--first", str(given.first), "--backend", given.backend]
    if given.sanitize:
        return sanitized(words)
    import torch

    from fastamr import native
    from fastamr.testing.fuzzed_calls import Tally, check_call

    torch.set_num_threads(1)
    reason = native.why_not("cpu")
    if reason is not None and given.backend == "cpp":
        print(reason, file=sys.stderr)
        return 1
    tally, wrong, start = Tally(), 0, time.monotonic()
    for number in range(given.first, given.first + given.calls):
        try:
            check_call(number, tally, given.backend)
        except Exception as error:  # each one is told, and the rest is tried
            wrong += 1
            print(f"call {number}: {type(error).__name__}: {error}", file=sys.stderr)
    seconds = time.monotonic() - start
    print(f"{tally}\n{given.calls} calls of {native.status('cpu')} in {seconds:.0f} s, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
