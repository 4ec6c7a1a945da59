"""Which runs a sweep consists of, what each is asked for, and how far it is."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr import cli
from fastamr.commands.models.pretrain import read
from fastamr.sweep import RunState, parse_grid, state_of
from fastamr.sweep.state import is_done, note_asked
from fastamr.training import PretrainConfig
from fastamr.training.checkpoint import mark_complete, save_checkpoint

FLAGS = {"--tensorboard"}


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[list[str]]:
    """The commands that a sweep would carry out, without ``fastamr pretrain``."""
    assert cli.main(["sweep", *words, "--print"]) == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert all(line[:2] == ["fastamr", "pretrain"] for line in lines)
    return [line[2:] for line in lines]


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text("model: mamp\nlr: 2e-3\nseed: 9\narchitecture: {width: 32, heads: 2}\ndata: [x.st]\n")
    return str(path)


def test_a_run_for_each_seed(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        read(words) for words in printed(capsys, config, "--seeds", "2", "0", "--out", str(tmp_path / "o"))
    ]
    expected = PretrainConfig.load(config).to_dict() | {"resume": "auto"}
    for seed, run in zip((2, 0), runs, strict=True):
        assert run.to_dict() == expected | {"seed": seed, "out": str(tmp_path / "o" / f"seed-{seed}")}
    assert not (tmp_path / "o").exists()


def test_every_option_of_pretrain_reaches_the_runs(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        *("--model", "amr", "--model.width", "64", "--betas", "0.5", "0.6", "--no-tensorboard"),
        *("--keep-empty-bodies", "--clip-grad", "null", "--data", "a b.st", "c.st", "--on-nan", "skip"),
        *("--preset", "small", "--updates", "7", "--data_budget", "0.5", "--split", "xsub", "--preprocess"),
    ]
    (words,) = printed(capsys, config, "--seeds", "3", "--out", "o", *options)
    own = ["--seed", "3", "--out", "o/seed-3", "--resume", "auto"]
    assert read(words) == read(["--config", config, *options, *own])


def test_a_grid_is_every_combination_with_every_seed(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", "lr=1e-3,2e-3", "model.width=64", "tensorboard=false", "betas=0.9 0.95,0.9 0.99"]
    runs = [read(each) for each in printed(capsys, config, "--seeds", "0", "1", "--out", "o", *words)]
    assert [(run.lr, run.betas, run.seed) for run in runs] == [
        (lr, (0.9, beta), seed) for lr in (1e-3, 2e-3) for beta in (0.95, 0.99) for seed in (0, 1)
    ]
    assert {(run.architecture["width"], run.architecture["heads"], run.tensorboard) for run in runs} == {
        (64, 2, False)
    }
    assert runs[0].out == "o/lr-1e-3-model.width-64-tensorboard-false-betas-0.9_0.95-seed-0"
    assert len({run.out for run in runs}) == 8


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lr", "expected NAME=VALUE"),
        ("lr=", "expected NAME=VALUE"),
        ("=1", "expected NAME=VALUE"),
        ("lr=1,,2", "expected NAME=VALUE"),
        ("lr=1,1", "given twice"),
        ("seed=1,2", "seed is --seeds"),
        ("out=a,b", "name another option"),
        ("--resume=no", "name another option"),
        ("tensorboard=maybe", "expected true or false"),
    ],
)
def test_a_wrong_grid(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_grid([text], FLAGS)


def test_an_option_that_is_given_twice() -> None:
    with pytest.raises(ValueError, match="given twice"):
        parse_grid(["batch-size=1", "batch_size=2"], FLAGS)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seeds", "0", "0"], "error: seeds 0 0: one is given twice"),
        (["--seeds", "0", "-1"], "error: seed must be zero or more, got -1"),
        (["--seeds", "0", "x"], "--seeds must be"),
        ([], "--seeds is missing"),
        (["--seeds", "0", "--set", "lrr=1"], "did you mean --lr"),
        (["--seeds", "0", "--set", "lr=fast"], "--lr must be float"),
        (["--seeds", "0", "--set", "model.width=31"], "width"),
        (["--seeds", "0", "--set", "lr=1/2,1|2"], "--lr"),
        (["--seeds", "0", "--set", "split=a/b,a|b"], "two runs would share the folder"),
        (["--seeds", "0", "--resume"], "--resume"),
    ],
)
def test_what_is_wrong_is_told_before_a_run_starts(
    words: list[str], told: str, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sweep", config, "--out", str(tmp_path / "o"), *words]) == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "o").exists()


class TestState:
    """How far a run is, from its folder alone."""

    def save(self, folder: Path, update: int) -> None:
        folder.mkdir(exist_ok=True)
        save_checkpoint(folder, {"seed": torch.tensor([0, 0])}, {"update": update})

    def write(self, folder: Path, *records: dict[str, Any]) -> None:
        (folder / "metrics.jsonl").write_text(
            "".join(f"{json.dumps(record)}\n" for record in records) + "{half"
        )

    def test_nothing(self, tmp_path: Path) -> None:
        assert state_of(tmp_path / "none") == RunState(False)
        assert str(state_of(tmp_path)) == "nothing is saved"

    def test_under_way(self, tmp_path: Path) -> None:
        self.save(tmp_path, 1200)
        assert str(state_of(tmp_path)) == "update 1,200"
        self.write(tmp_path, {"kind": "header", "updates": 3000}, {"kind": "train", "update": 1300})
        assert state_of(tmp_path) == RunState(False, 1200, 3000)
        assert str(state_of(tmp_path)) == "update 1,200 of 3,000"
        (tmp_path / "state.safetensors").write_bytes(b"\xff" * 100)
        assert state_of(tmp_path) == RunState(False, None, 3000)

    def test_complete(self, tmp_path: Path) -> None:
        self.save(tmp_path, 30)
        self.write(
            tmp_path, {"kind": "header", "updates": 30}, {"kind": "summary", "updates": 30, "loss": 0.5}
        )
        mark_complete(tmp_path, {"updates": 30})
        (tmp_path / "manifest.jsonl").write_text("")
        assert not state_of(tmp_path).complete  # its model is not there
        for name in ("config.json", "model.safetensors"):
            (tmp_path / name).write_text("")
        assert state_of(tmp_path) == RunState(True, 30, 30, 0.5)
        assert str(state_of(tmp_path)) == "30 updates, loss 0.5000"
        (tmp_path / "complete.json").write_text("[]")
        assert state_of(tmp_path) == RunState(False, 30, 30)

    def test_runs_of_before_there_was_a_last_file(self, tmp_path: Path) -> None:
        self.save(tmp_path, 30)
        self.write(tmp_path, {"kind": "header", "updates": 30})
        assert not state_of(tmp_path).complete
        self.write(tmp_path, {"kind": "header", "updates": 30}, {"kind": "summary", "updates": 30})
        assert state_of(tmp_path) == RunState(True, 30, 30)

    def test_only_what_was_asked_for_is_done(self, tmp_path: Path) -> None:
        run = tmp_path / "seed-0"
        self.save(run, 3)
        for name in ("config.json", "model.safetensors"):
            (run / name).write_text("")
        config = PretrainConfig(updates=3)
        mark_complete(run, {"updates": 3})
        assert not is_done(tmp_path, run, config)  # nobody knows what it was asked for
        note_asked(tmp_path, run, config)
        assert is_done(tmp_path, run, config)
        assert not is_done(tmp_path, run, PretrainConfig(updates=3, lr=2e-3))
        assert not is_done(tmp_path, tmp_path / "seed-1", config)
        (run / "complete.json").unlink()
        assert not is_done(tmp_path, run, config)
        (tmp_path / "sweep.json").write_text("[[[")
        assert not is_done(tmp_path, run, config)
