"""Several processes draw the mixture's batches together, and report the loss of each set over all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastamr.training import pretrain

from ..processes.test_distributed import run
from .conftest import read


@pytest.mark.slow
def test_a_run_goes_on_in_another_number_of_processes(
    configure: Any, files: list[str], tmp_path: Path
) -> None:
    options = {"mixture": 0.5, "probe_every": 1.0, "log_every": 1, "min_lr": 1e-3, "warmup_epochs": 0.0}
    options |= {"held_out_data": files[1:2], "updates": 8}
    training = [files[0], files[2]]
    whole = read(pretrain(configure("whole", training, **options), quiet=True))
    rest = options | {"data_budget": 0.0, "resume": True}
    run(tmp_path, 2, configure("two", training, **options | {"updates": 4}))
    pretrain(configure("two", training, **rest), quiet=True)
    found = read(tmp_path / "two")
    for one, other in zip(whole["train"], found["train"], strict=True):
        names = [name for name in one if "loss" in name]
        assert names == ["loss", "loss/a", "loss/c"]
        assert [other[name] for name in names] == pytest.approx([one[name] for name in names], rel=1e-4)
    assert [list(line) for line in whole["probe"]] == [list(line) for line in found["probe"]]
    assert "probe/b" in found["probe"][0]
