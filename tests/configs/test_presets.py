"""The configurations inside the package: each builds its model and trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr import cli
from fastamr.configs import BODY_PRESETS, PRESETS, preset_file
from fastamr.data import PackedSkeletons, synthetic_actions
from fastamr.layouts.body import parts_of
from fastamr.models import load_pretrained
from fastamr.models.registry import MODELS
from fastamr.skeleton import get_layout
from fastamr.training import PretrainConfig, pretrain

ROOT = Path(__file__).resolve().parents[2]
EVERY = [
    (preset, model) for preset in PRESETS for model in (MODELS if preset not in BODY_PRESETS else ["amr"])
]


@pytest.fixture(scope="module")
def motion() -> PackedSkeletons:
    return synthetic_actions(24, seed=0)


@pytest.mark.parametrize(("preset", "model"), EVERY)
def test_every_model_has_every_preset(preset: str, model: str) -> None:
    config = PretrainConfig.load(preset_file(preset, model))
    assert config.model == model
    config.model_config()
    head = preset_file(preset, model).read_text()
    assert f"#   fastamr pretrain --model {model} --preset {preset} --data " in head


def test_no_file_is_left_over() -> None:
    files = (ROOT / "fastamr" / "configs").rglob("*.yaml")
    assert sorted((path.parent.name, path.stem) for path in files) == sorted(EVERY)


@pytest.mark.parametrize("model", MODELS)
def test_compact_is_small_and_trains(model: str, motion: PackedSkeletons, tmp_path: Path) -> None:
    file = preset_file("compact", model)
    assert "choice" in file.read_text().splitlines()[0]
    config = PretrainConfig.load(
        file,
        out=str(tmp_path / "run"),
        updates=2,
        batch_size=4,
        progress=False,
        tensorboard=False,
        device="cpu",
    )
    small = PretrainConfig.load(preset_file("small", model)).model_config()
    # SLiM's own patches are of 8 frames in all presets.
    assert config.model_config().tokens == 100 == small.tokens / (2 if model == "slim" else 4)
    assert config.model_config().width == 128
    run = pretrain(config, data=motion)
    trained = load_pretrained(run)
    assert all(torch.isfinite(weight).all() for weight in trained.parameters())
    assert trained.config.patch_frames == 8


@pytest.mark.parametrize("preset", BODY_PRESETS)
def test_body_presets_have_compact_tokens_and_augmentations(preset: str) -> None:
    file = preset_file(preset, "amr")
    assert "choice" in "".join(file.read_text().splitlines()[:2])
    config = PretrainConfig.load(file)
    model = config.model_config(present=parts_of_ntu(), typical_joints=0)
    assert (model.layout, model.frames, model.patch_frames) == ("body", 64, 8)
    assert (model.present_tokens, model.visible) == (200, 40)
    assert (config.mirror, config.scale_jitter, config.drop_limbs, config.noise) == (0.5, 0.2, 0.1, 0.005)
    assert (config.mixture, config.preprocess) == (0.5, ["center", "align_body", "scale:unit=torso"])
    assert (config.project, model.flat_embedding) == ((0.2, True) if preset == "body-flat" else (0, False))
    alike = "paper" if preset == "body-paper" else "small"
    plain = PretrainConfig.load(preset_file(alike, "amr"))
    size = ("width", "depth", "heads", "decoder_width", "decoder_depth", "decoder_heads")
    assert all(getattr(model, name) == getattr(plain.model_config(), name) for name in size)
    length = ("epochs", "updates", "batch_size", "lr", "min_lr", "warmup_epochs", "weight_decay")
    assert all(getattr(config, name) == getattr(plain, name) for name in length)


def parts_of_ntu() -> tuple[str, ...]:
    return tuple(parts_of(get_layout("ntu25")).values())


def test_unknown_presets() -> None:
    with pytest.raises(ValueError, match=r"unknown preset 'smal': expected one of .*did you mean 'small'"):
        preset_file("smal", "amr")
    with pytest.raises(
        ValueError, match="preset 'body-small' does not exist for model 'gfp', which has paper, "
    ):
        preset_file("body-small", "gfp")
    with pytest.raises(
        ValueError, match="preset 'small' does not exist for model 'mine', which has none: name a YAML"
    ):
        preset_file("small", "mine")


class TestCommand:
    @pytest.fixture
    def trained_with(self, monkeypatch: pytest.MonkeyPatch) -> list[PretrainConfig]:
        import fastamr.training

        configs: list[PretrainConfig] = []
        monkeypatch.setattr(fastamr.training, "pretrain", configs.append)
        return configs

    def test_options_win_over_files_and_files_over_the_preset(
        self, tmp_path: Path, trained_with: list[PretrainConfig]
    ) -> None:
        (tmp_path / "own.yaml").write_text("batch_size: 32\nlr: 2e-3\narchitecture: {depth: 2, heads: 2}\n")
        words = [
            "--model",
            "gfp",
            "--model.heads",
            "8",
            "--config",
            str(tmp_path / "own.yaml"),
            "--lr",
            "3e-3",
        ]
        assert cli.main(["pretrain", "--preset", "small", *words, "--epochs", "3"]) == 0
        (config,) = trained_with
        small = PretrainConfig.load(preset_file("small", "gfp"))
        assert (config.model, config.batch_size, config.lr, config.epochs) == ("gfp", 32, 3e-3, 3.0)
        assert config.architecture == {**small.architecture, "depth": 2, "heads": 8}
        assert config.preprocess == small.preprocess == ["center", "align_body"]

    def test_updates_of_a_preset_give_way_to_epochs(self, trained_with: list[PretrainConfig]) -> None:
        assert cli.main(["pretrain", "--preset", "paper", "--epochs", "3"]) == 0
        assert (trained_with[0].updates, trained_with[0].epochs) == (None, 3.0)

    def test_the_model_of_a_file_chooses_the_preset(
        self, tmp_path: Path, trained_with: list[PretrainConfig]
    ) -> None:
        (tmp_path / "own.yaml").write_text("model: mamp\n")
        assert cli.main(["pretrain", "--preset", "compact", "--config", str(tmp_path / "own.yaml")]) == 0
        compact = PretrainConfig.load(preset_file("compact", "mamp"))
        assert trained_with[0].architecture == compact.architecture

    def test_a_model_without_presets(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(MODELS, "mine", MODELS["amr"])
        assert cli.main(["pretrain", "--preset", "small", "--model", "mine"]) == 2
        assert "preset 'small' does not exist for model 'mine'" in capsys.readouterr().err

    def test_bench_takes_the_settings_of_the_model(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        import fastamr.commands.bench.recipe as command

        asked: list[Any] = []
        monkeypatch.setattr(command, "run_recipe", lambda options, out: asked.append(options) or {})
        monkeypatch.setattr(command, "as_text", lambda report: "")
        words = ["--out", str(tmp_path), "--preset", "small", "--model", "asma", "--model.depth", "1"]
        assert cli.main(["bench", "recipe", *words]) == 0
        small = PretrainConfig.load(preset_file("small", "asma"))
        assert asked[0].architecture == {**small.architecture, "depth": 1}
        assert (asked[0].preset, asked[0].batch_size) == ("ntu60-xsub", None)
