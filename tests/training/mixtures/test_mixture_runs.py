"""Runs on several sets with ``--mixture``: what they draw, say and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fastamr.training import PretrainConfig, pretrain
from fastamr.training.clips.batches import BatchOrder
from fastamr.training.clips.clip_streams import PrefetchedClips, ResidentClips


class Watch:
    """Keeps the batches that runs draw, and where their frames come from."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: dict[int, torch.Tensor] = {}
        self.streams: set[type] = set()
        for kind in (ResidentClips, PrefetchedClips):
            original = kind.advance

            def advance(stream: Any, update: int, original: Any = original) -> None:
                self.streams.add(type(stream))
                drawn = stream.order.batch(update)
                assert torch.equal(self.batches.setdefault(update, drawn), drawn)
                original(stream, update)

            monkeypatch.setattr(kind, "advance", advance)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def shares(batches: dict[int, torch.Tensor], bounds: list[int]) -> list[float]:
    drawn = torch.cat(list(batches.values()))
    members = torch.bucketize(drawn, torch.tensor(bounds), right=True)
    return (torch.bincount(members, minlength=len(bounds) + 1) / len(drawn)).tolist()


@pytest.mark.parametrize(
    ("temperature", "expected"), [(0.0, [1 / 3] * 3), (1.0, [0.25, 0.25, 0.5]), (0.5, [0.293, 0.293, 0.414])]
)
def test_sets_are_drawn_by_the_temperature(
    train: Any, files: list[str], watch: Watch, temperature: float, expected: list[float]
) -> None:
    found = train("run", files, mixture=temperature, updates=60)
    assert shares(watch.batches, [20, 40]) == pytest.approx(expected, abs=0.01)
    header = found["header"][0]
    assert header["mixture"] == temperature
    assert [one["name"] for one in header["sets"]] == ["a", "b", "c"]
    assert [one["sequences"] for one in header["sets"]] == [16, 16, 32]
    assert [one["share"] for one in header["sets"]] == pytest.approx(expected, abs=1e-3)
    assert [one["passes"] for one in header["sets"]] == pytest.approx(
        [480 * share / size for share, size in zip(expected, (16, 16, 32), strict=True)], rel=1e-2
    )
    assert (header["sequences"], header["updates_per_epoch"]) == (64, 8)
    (line,) = (line for line in header["plan"] if line.startswith("sets"))
    assert (
        f"temperature {temperature:g}; a: 16 sequences, {100 * header['sets'][0]['share']:.3g} % of a batch"
        in line
    )
    assert "held out" not in " ".join(header["plan"])


def test_without_a_temperature_the_order_is_that_of_one_set(
    train: Any, files: list[str], watch: Watch
) -> None:
    found = train("run", files)
    train_on = [number for number in range(80) if not _is_test(number)]
    order = BatchOrder(torch.tensor(train_on), 8, 0)
    assert all(torch.equal(drawn, order.batch(update)) for update, drawn in watch.batches.items())
    assert found["header"][0]["mixture"] is None
    assert "shuffled together" in " ".join(found["header"][0]["plan"])


def _is_test(number: int) -> bool:
    """Of 20 clips of one body, 10 of two and 40 of one, each fifth is a test clip."""
    clip = number if number < 20 else (number - 20) // 2 if number < 40 else number - 40
    return clip % 5 == 0


@pytest.mark.parametrize("empty", [False, True])
def test_resident_and_fetched_frames_make_the_same_run(
    train: Any, files: list[str], watch: Watch, tmp_path: Path, empty: bool
) -> None:
    options = {"mixture": 0.5, "keep_empty_bodies": empty, "log_every": 1}
    one = train("one", files, **options)
    other = train("other", files, data_budget=0.0, **options)
    assert watch.streams == {ResidentClips, PrefetchedClips}
    for first, second in zip(one["train"], other["train"], strict=True):
        losses = [{name: value for name, value in each.items() if "loss" in name} for each in (first, second)]
        assert losses[0] == losses[1]
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "other")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("budget", [None, 0.0])
def test_a_resumed_run_is_the_whole_one_to_the_bit(
    train: Any, configure: Any, files: list[str], watch: Watch, tmp_path: Path, budget: float | None
) -> None:
    rate = {"min_lr": 1e-3, "warmup_epochs": 0.0}  # which does not depend on the length
    options = {"mixture": 0.3, "log_every": 1, "accumulate": 2, "data_budget": budget, **rate}
    whole = train("whole", files, **options)
    train("run", files, updates=4, **{name: value for name, value in options.items() if name != "updates"})
    resumed = train("run", files, resume=True, **options)
    pairs = zip(whole["train"], resumed["train"], strict=True)
    assert all(one[name] == other[name] for one, other in pairs for name in one if "loss" in name)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    with pytest.raises(ValueError, match=r"cannot resume: mixture was 0.3 and is now 0.5"):
        pretrain(
            configure("run", files, resume=True, **options | {"mixture": 0.5, "updates": 12}), quiet=True
        )
    assert PretrainConfig.load(tmp_path / "run" / "config.yaml").mixture == 0.3


def test_names_of_sets_are_unique(train: Any, files: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    again = [str(Path(files[0]).rename(folder / "b.safetensors")), files[1], files[2]]
    header = train("run", again, mixture=0.0)["header"][0]
    assert [one["name"] for one in header["sets"]] == ["b", "b-2", "c"]


def test_a_temperature_needs_several_sets(configure: Any, files: list[str]) -> None:
    with pytest.raises(
        ValueError, match=r"mixture 0.5 is the temperature .* there is one: name more with --data"
    ):
        pretrain(configure("run", files[:1], mixture=0.5), quiet=True)
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="mixture must be a temperature from 0 to 1, or null"):
            configure("run", files, mixture=wrong)


def test_one_set_is_told_as_before(train: Any, files: list[str]) -> None:
    found = train("run", files[:1], probe_every=2.0)
    assert not {"sets", "mixture", "held_out"} & found["header"][0].keys()
    assert not [name for kind in ("train", "probe") for line in found[kind] for name in line if "/" in name]
