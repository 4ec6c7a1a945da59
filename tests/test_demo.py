"""The demonstration, tiny and whole; slowly: AMR beats a random encoder by ten points, and its step is fast."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fastamr import demo
from fastamr.data import apply_missing, synthetic_actions
from fastamr.demo import STEPS, DemoConfig, Row, format_table, pre_train, probe, read_curve, step_seconds
from fastamr.evaluation import extract_features, random_encoder
from fastamr.models import build_model, load_pretrained
from fastamr.testing import random_clips

pytest.importorskip("sklearn")


def test_whole_demo_tiny(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    extra = {"amr": demo.SMALL_AMR, "skeleton_mae": {}}
    monkeypatch.setattr(
        demo, "build_model", lambda name, **options: build_model(name, demo.SMALL | extra[name], **options)
    )
    monkeypatch.setattr(demo, "random_clips", lambda count, seed: random_clips(count, 32, seed=seed))
    rows = demo.run(
        DemoConfig(out=str(tmp_path / "demo"), clips=60, epochs=2, step_sequences=2, step_rounds=1)
    )
    assert [row.encoder for row in rows] == [
        "raw coordinates",
        "encoder's input",
        "random",
        "SkeletonMAE",
        "AMR",
    ]
    assert all(0 <= row.knn <= 100 and 0 <= row.linear <= 100 for row in rows)
    assert rows[3].speedup == 1.0
    assert rows[4].step_ms is not None
    assert rows[4].step_ms > 0
    printed = capsys.readouterr().out
    assert re.search(r"SkeletonMAE .* ms +1\.0x +\(materialised; sdpa: \d+ ms\)", printed)
    report = json.loads((tmp_path / "demo" / "demo.json").read_text())
    assert [row["encoder"] for row in report["rows"]] == [row.encoder for row in rows]
    assert (tmp_path / "demo" / "demo.png").read_bytes()[:4] == b"\x89PNG"
    for name in ("amr", "skeleton_mae"):
        curve = read_curve(tmp_path / "demo" / name)
        assert len(curve.epochs) == len(curve.losses) > 0


def test_an_interrupted_demo_names_no_option_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> Path:
        raise KeyboardInterrupt("stopped after update 6; continue with --resume auto")

    monkeypatch.setattr(demo, "pretrain", stopped)
    with pytest.raises(KeyboardInterrupt, match="starts anew when called again"):
        demo.run(DemoConfig(out=str(tmp_path / "demo"), clips=60))


def test_table_text() -> None:
    text = format_table([Row("random", 44.14, 58.2), Row("AMR", 56.8, 60.2, 70.1, 539.4, 8.6)])
    lines = text.splitlines()
    assert lines[1].split() == ["random", "44.1", "58.2", "-", "-", "-"]
    assert lines[2].split() == ["AMR", "56.8", "60.2", "70.1", "539", "ms", "8.6x"]


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seeds", [1, pytest.param(3, marks=pytest.mark.long)])
def test_amr_beats_the_random_encoder(seeds: int, tmp_path: Path) -> None:
    """Ten points in 1-NN and in the linear probe, on average over three seeds, none below five.

    The demonstration's configuration, trained longer than it can be in minutes.
    """
    gains = []
    for seed in range(seeds):
        config = DemoConfig(epochs=150, seed=seed)
        data = synthetic_actions(config.clips, seed=seed)
        model = load_pretrained(pre_train("amr", data, tmp_path / str(seed), config))
        processed = apply_missing(data, STEPS)
        trained = probe("AMR", extract_features(model, processed), data)
        fresh = probe("random", extract_features(random_encoder(model, seed), processed), data)
        gains.append((trained.knn - fresh.knn, trained.linear - fresh.linear))
    for column in zip(*gains, strict=True):
        assert seeds == 1 or sum(column) / seeds >= 10, gains
        assert min(column) >= 5, gains


@pytest.mark.slow
def test_amr_step_is_six_times_faster_at_the_papers_configuration() -> None:
    clips = random_clips(8)
    plain = step_seconds(build_model("skeleton_mae", attention="materialised"), clips, 3)
    assert plain / step_seconds(build_model("amr"), clips, 3) >= 6
