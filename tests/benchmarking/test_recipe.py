from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fastamr import cli
from fastamr.benchmarking import PRESETS, RecipeOptions, ntu_sized
from fastamr.benchmarking.ntu_sized import clip_lengths, preset, two_person_clips
from fastamr.benchmarking.recipe import Timing, _saves, timing, totals

NTU = PRESETS["ntu60-xsub"]


def test_recipe_is_the_public_codes() -> None:
    assert (NTU.batch_size, NTU.updates, NTU.epochs, NTU.clips) == (256, 125_200, 400, 40_091)
    with pytest.raises(ValueError, match="unknown preset 'ntu60'"):
        preset("ntu60")


def test_distribution_of_lengths_and_bodies() -> None:
    """As stated: log-normal about 70 frames cut at 20 and 300, 11 of 60 actions with two people."""
    lengths = clip_lengths(40_091, torch.Generator().manual_seed(0)).double()
    assert 73 < lengths.mean() < 76
    assert 69 <= lengths.median() <= 71
    assert (lengths.min(), lengths.max()) == (20, 300)
    inner = lengths.log().quantile(torch.tensor([0.16, 0.84], dtype=torch.float64))
    assert (inner[1] - inner[0]) / 2 == pytest.approx(0.35, rel=0.05)
    bodies = 40_091 + int(two_person_clips(40_091).sum())
    assert bodies == 47_439
    assert round(bodies / 256) == 185  # as methods.md counts an epoch without empty bodies
    assert (
        round(100 * (1 - bodies / (2 * 40_091))) == 41
    )  # the share of empty bodies in the released code's work


def test_data_set_is_sound_and_seeded() -> None:
    data = ntu_sized(240, seed=1)
    data.check()
    assert (data.num_clips, data.num_bodies) == (240, 240 + 44)
    assert (data.coords.dtype, data.valid, data.layout.name) == (torch.float16, None, "ntu25")
    counts = torch.bincount(data.body_clip)
    assert torch.equal(counts == 2, data.labels >= 49)
    pairs = (counts == 2).nonzero().squeeze(1)
    first = torch.searchsorted(data.body_clip, pairs)
    assert torch.equal(data.offsets.diff()[first], data.offsets.diff()[first + 1])
    moved = data.coords.float().diff(dim=0).abs().sum()
    assert moved > 0
    assert torch.equal(ntu_sized(240, seed=1).coords, data.coords)
    assert ntu_sized(240, seed=2).num_frames != data.num_frames
    with pytest.raises(ValueError, match="clips=0, expected at least 1"):
        ntu_sized(0)


def test_time_of_a_run_is_parted() -> None:
    """Readings at updates 10 and 50: 2 s of warm-up, 0.1 s an update; two checkpoints of 0.5 s; 3 s of setup."""
    train = [{"update": 10, "seconds": 3.0}, {"update": 30, "seconds": 5.0}, {"update": 50, "seconds": 7.0}]
    found = timing(train, began=100.0, opened=103.0, ended=111.0, saves=2)
    assert found == Timing(
        setup=3.0, loop=8.0, warmup=pytest.approx(2.0), per_update=pytest.approx(0.1), checkpoint=0.5
    )
    single = timing(train[:1], began=100.0, opened=100.0, ended=103.5, saves=1)
    assert (single.per_update, single.warmup, single.checkpoint) == (pytest.approx(0.3), 0.0, 0.5)


def test_projections_by_hand() -> None:
    seconds = Timing(setup=3.0, loop=50.0, warmup=2.0, per_update=0.004, checkpoint=1.0)
    released, without = totals(NTU, seconds, 256, checkpoint_every=20.0)
    # 400 epochs save 20 times, and at the end.
    assert released["seconds"] == pytest.approx(3 + 2 + 125_200 * 0.004 + 21)
    assert (released["updates"], released["epochs"], released["projected"]) == (125_200, 400, True)
    assert without["updates"] == round(400 * 47_439 / 256) == 74_123
    assert without["seconds"] == pytest.approx(3 + 2 + 74_123 * 0.004 + 21)
    assert without["projected"]
    assert "empty ones included" in released["what"]
    # Another batch size: time goes by sequences.
    smaller = totals(NTU, seconds, 64, checkpoint_every=20.0)[0]
    assert smaller["seconds"] == pytest.approx(3 + 2 + 125_200 * 0.016 + 21)
    measured, projected = totals(NTU, seconds, 256, checkpoint_every=20.0, full=True)
    assert (measured["seconds"], measured["projected"]) == (53.0, False)
    assert projected["projected"]


def test_number_of_checkpoints() -> None:
    assert _saves(1000, 20.0, 185) == 1
    assert _saves(3700, 20.0, 185) == 1
    assert _saves(3701, 20.0, 185) == 2
    assert _saves(125_200, 20.0, 313) == 20


def test_command_end_to_end(
    tmp_path: Path, architecture: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "recipe"
    given = ["--device", "cpu", "--out", str(out), "--updates", "25", "--clips", "120", "--batch-size", "8"]
    assert cli.main(["bench", "recipe", *given, "--no-progress", *architecture]) == 0
    printed = capsys.readouterr().out
    assert "scaled down: the recipe has 40,091 clips" in printed
    assert printed.count("PROJECTED, not measured: ") == 2
    assert "125,200 updates of 256 body slots, empty ones included: 400 epochs" in printed
    report = json.loads((out / "recipe.json").read_text())
    assert (report["kind"], report["updates"], report["batch_size"]) == ("recipe", 25, 8)
    assert report["data"]["scaled_down"]
    # The training clips have 142 bodies, of which none is empty; what is projected from is said.
    assert report["bodies"] == {"bodies": "existing", "sequences": 142, "empty_sequences": 0}
    assert "bodies drawn: existing, 0 of 142 empty" in printed
    assert "its time is that of as many in updates of 8" in printed
    assert "not the published model, here as below: " in printed
    assert (report["data"]["clips"], report["data"]["bodies"]) == (120, 142)
    seconds = report["seconds"]
    assert report["sequences_per_second"] == pytest.approx(200 / seconds["loop"])
    assert report["steady_sequences_per_second"] == pytest.approx(8 / seconds["per_update"])
    assert 0 < 25 * seconds["per_update"] < seconds["loop"] + 1
    assert seconds["setup"] > 0
    assert seconds["checkpoint"] > 0
    assert all(total["projected"] for total in report["totals"])
    assert (out / "recipe.txt").read_text() in printed
    assert sorted(path.name for path in out.iterdir()) == ["recipe.json", "recipe.txt"]


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str, code: int = 1) -> str:
        out = ["--out", str(tmp_path / "out"), "--no-progress", "--device", "cpu"]
        assert cli.main(["bench", "recipe", *out, *arguments]) == code
        return capsys.readouterr().err

    assert "unknown preset 'ntu-60'" in refused("--recipe", "ntu-60")
    assert "updates is 0, expected at least 1" in refused("--updates", "0")
    assert "omit clips=100" in refused("--full", "--clips", "100")
    assert "did you mean 'amr'" in refused("--model", "amrr", code=2)
    assert "did you mean --model.depth" in refused("--model.dept", "4", code=2)
    assert RecipeOptions(full=True, clips=40_091).full
