"""One syntax, and the spellings of the last release beside it with a notice that names today's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastamr import cli

ROOT = Path(__file__).resolve().parents[2]
Ask = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("old", "new", "notices"),
    [
        ("pretrain --batch_size 8", "pretrain --batch-size 8", ["--batch_size is now written --batch-size"]),
        ("pretrain --batch_size=8", "pretrain --batch-size=8", ["--batch_size is now written --batch-size"]),
        (
            "pretrain --architecture.width 64 --architecture.decoder-depth=1",
            "pretrain --model.width 64 --model.decoder-depth 1",
            ["--architecture.width is now written --model.width",
             "--architecture.decoder-depth is now written --model.decoder-depth"],
        ),
        (
            "pretrain --model.mask_ratio 0.5",
            "pretrain --model.mask-ratio 0.5",
            ["--model.mask_ratio is now written --model.mask-ratio"],
        ),
        ("pretrain --steps center bone", "pretrain --preprocess center bone", ["--steps is now written --preprocess"]),
        ("pretrain --no_progress", "pretrain --no-progress", ["--no_progress is now written --no-progress"]),
        (
            "pretrain --keep_empty_bodies true",
            "pretrain --keep-empty-bodies",
            ["--keep_empty_bodies true is now written --keep-empty-bodies"],
        ),
        (
            "pretrain --keep-empty-bodies=False --seed 3",
            "pretrain --no-keep-empty-bodies --seed 3",
            ["--keep-empty-bodies False is now written --no-keep-empty-bodies"],
        ),
        (
            "evaluate --finetune.warmup_epochs 2 --no_cache",
            "evaluate --finetune.warmup-epochs 2 --no-cache",
            ["--finetune.warmup_epochs is now written --finetune.warmup-epochs",
             "--no_cache is now written --no-cache"],
        ),
        (
            "distill --student.patch_frames 6",
            "distill --student.patch-frames 6",
            ["--student.patch_frames is now written --student.patch-frames"],
        ),
        ("demo --step_rounds 2", "demo --step-rounds 2", ["--step_rounds is now written --step-rounds"]),
        (
            "prepare ntu60 raw out --steps center",
            "prepare ntu60 raw out --preprocess center",
            ["--steps is now written --preprocess"],
        ),
        ("import a b --steps center", "import a b --preprocess center", ["--steps is now written --preprocess"]),
        ("convert a b --steps center", "convert a b --preprocess center", ["--steps is now written --preprocess"]),
        ("bench profile --steps 3", "bench profile --updates 3", ["--steps is now written --updates"]),
        (
            "bench ladder --architecture depth=4 width=32 --rounds 2",
            "bench ladder --model.depth 4 --model.width 32 --rounds 2",
            ["--architecture depth=4 is now written --model.depth 4",
             "--architecture width=32 is now written --model.width 32"],
        ),
        (
            "bench scaling --architecture guidance_windows=[4,8] guidance_k=1e-3",
            "bench scaling --model.guidance-windows 4 8 --model.guidance-k 1e-3",
            ["--architecture guidance_windows=[4,8] is now written --model.guidance-windows 4 8",
             "--architecture guidance_k=1e-3 is now written --model.guidance-k 1e-3"],
        ),
        (
            "bench recipe --preset ntu60-xsub --preset=ntu60-xsub --no-progress",
            "bench recipe --recipe ntu60-xsub --no-progress",
            ["--preset ntu60-xsub is now written --recipe ntu60-xsub"],
        ),
    ],
)  # fmt: skip
def test_old_spellings(
    old: str, new: str, notices: list[str], given: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = given(new)
    assert capsys.readouterr().err == ""
    assert given(old) == asked
    assert capsys.readouterr().err.splitlines() == [f"notice: {notice}" for notice in notices]
    given(old)
    assert capsys.readouterr().err == "", "once in a process"


def test_a_switch_of_the_architecture_in_all_spellings(given: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from fastamr.models import AMRModel
    from fastamr.models.registry import MODELS

    config = dataclasses.make_dataclass(
        "Config", [("twice", bool, True)], bases=(AMRModel.Config,), frozen=True
    )
    monkeypatch.setitem(MODELS, "switched", type("Switched", (AMRModel,), {"Config": config}))
    for words in ("--no-model.twice", "--no_architecture.twice", "--architecture.twice false"):
        assert given(f"pretrain --model switched {words}")["architecture"] == {"twice": False}
    words = "--model switched --architecture twice=false --device cpu"
    assert given(f"bench profile {words}")["architecture"] == {"twice": False}
    assert given("pretrain --model switched --model.twice")["architecture"] == {"twice": True}


def test_values_are_left_alone(given: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    asked = given("pretrain --data a_b.st - --out runs/my_run --split=x_y --lr 1e-3 --seed -3")
    assert asked["data"] == ["a_b.st", "-"]
    assert (asked["out"], asked["split"], asked["lr"], asked["seed"]) == ("runs/my_run", "x_y", 1e-3, -3)
    assert given("show true --mask --out x.png")["data"] == "true"
    assert capsys.readouterr().err == ""


def test_lists_of_words(given: Ask) -> None:
    asked = given("evaluate --data a b --seeds 0 1 2 --shares 0.1 --fuse x y --no-cache")
    assert (asked["data"], asked["seeds"], asked["shares"]) == (["a", "b"], [0, 1, 2], [0.1])
    assert (asked["fuse"], asked["cache"]) == (["x", "y"], False)
    assert given("pretrain --preprocess")["preprocess"] == []
    assert given("pretrain --model.guidance-windows 4 8")["architecture"] == {"guidance_windows": [4, 8]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pretrain --batch_sice 3", "unknown option --batch_sice; did you mean --batch-size?"),
        (
            "pretrain --architecture.widht 3",
            "unknown option --architecture.widht; did you mean --model.width?",
        ),
        ("check x --fail_onn leak", "unknown option --fail_onn; did you mean --fail-on?"),
        (
            "bench ladder --architecture depht=3",
            "unknown option --architecture depht; did you mean --model.depth?",
        ),
        ("bench ladder --architecture depth", "--architecture 'depth': write --model.NAME VALUE"),
        ("table x --formt csv", "unknown option --formt; did you mean --format?"),
        ("info --qqq", "unknown option --qqq; see --help"),
        ("table x --format cvs", "--format: unknown format 'cvs'.*did you mean 'csv'"),
        ("plot x --out y --embedding tsn", "--embedding: unknown embedding 'tsn'.*did you mean 'tsne'"),
        ("predict x --model m --top many", "--top must be int, got 'many'"),
        (
            "evaluate --checkpoint x --data y --protocol liner",
            "unknown protocol 'liner'.*did you mean 'linear'",
        ),
        (
            "evaluate --checkpoint x",
            "--data is missing: type fastamr evaluate .*; see fastamr evaluate --help",
        ),
        ("show x", "--out is missing: type fastamr show .*; see fastamr show --help"),
        ("convert x", "OUT is missing: type fastamr convert .*; see fastamr convert --help"),
        ("import a", "OUT is missing: type fastamr import .*; see fastamr import --help"),
        ("pretrain --seed", "--seed: expected one argument"),
        ("pretrain --min-frames 1.5", "--min-frames must be int, got '1.5'"),
        ("pretrain --updates many", r"--updates must be int \| null, got 'many'"),
        ("pretrain --model.guidance-windows 4 x", "--model.guidance-windows must be int, got 'x'"),
        ("pretrain --preset smal", "--preset: unknown preset 'smal'.*did you mean 'small'"),
        ("pretrain --resume maybe", "--resume: unknown resume 'maybe'"),
        ("bench", ""),
        ("bench lader", "unknown command 'bench lader'.*did you mean 'bench ladder'"),
    ],
)
def test_usage_errors(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    import re

    assert cli.main(words.split()) == 2
    shown = capsys.readouterr().err
    assert re.search(message, shown)
    assert shown.count("\n") == bool(message)
    assert not message or shown.startswith("error: ")


def test_help_and_info_load_no_parser() -> None:
    for words, absent in ((["--help"], ("torch", "jsonargparse")), (["info"], ("jsonargparse",))):
        code = f"import sys\nfrom fastamr.cli import main\nassert main({words}) == 0\n"
        code += f"assert not set({absent}) & set(sys.modules)\n"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
