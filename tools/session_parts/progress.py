"""A plugin for pytest: writes down each test as it starts and ends, and stops where the device is of no use any more.

The folder that the environment names receives ``progress``; tests that its file ``done`` lists are left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

VARIABLE = "FASTAMR_TEST_PROGRESS"


class Progress:
    """One session of pytest.

    Args:
        folder: for the two files.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "progress").open("a", encoding="utf-8")
        done = folder / "done"
        self._done = set(done.read_text(encoding="utf-8").splitlines()) if done.is_file() else set()
        self._outcome, self._words = "", ""

    def write(self, **entry: Any) -> None:
        """One line, at once."""
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what an earlier process did."""
        items[:] = [item for item in items if item.nodeid not in self._done]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Around one test: its name, its outcome, and whether others can follow it."""
        self._outcome, self._words = "passed", ""
        self.write(starts=item.nodeid)
        result = yield
        self.write(test=item.nodeid, outcome=self._outcome, words=self._words)
        if self._outcome == "failed" and not _is_sound():
            self.write(spoilt=True)
            item.session.shouldstop = "the device is of no use to this process any more"
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One of the three phases of a test; a failed one counts."""
        if report.failed or (report.skipped and self._outcome == "passed"):
            self._outcome = report.outcome
            lines = report.longreprtext.strip().splitlines()
            self._words = lines[-1][:300] if lines else ""


def _is_sound() -> bool:
    if torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            return False
    return True


def pytest_configure(config: pytest.Config) -> None:
    """Take part where a folder is named."""
    if folder := os.environ.get(VARIABLE):
        config.pluginmanager.register(Progress(Path(folder)))
