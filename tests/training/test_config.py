import re
from pathlib import Path

import pytest

from fastamr import configs
from fastamr.training import PretrainConfig

CONFIGS = Path(configs.__file__).parent


def test_defaults_are_the_papers_recipe() -> None:
    config = PretrainConfig()
    assert (config.batch_size, config.lr, config.min_lr, config.betas) == (256, 1e-3, 5e-4, (0.9, 0.95))
    assert (config.weight_decay, config.crop, config.min_frames, config.max_angle) == (
        0.05,
        (0.5, 1.0),
        64,
        0.3,
    )
    assert config.clip_grad is None


def test_yaml_round_trip(tmp_path: Path) -> None:
    config = PretrainConfig(
        data=["a", "b"], out="run", architecture={"width": 32}, crop=(0.6, 0.9), updates=7
    )
    config.save(tmp_path / "config.yaml")
    assert PretrainConfig.load(tmp_path / "config.yaml") == config


def test_yaml_numbers_lists_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "lr: 2e-3\nmin_lr: 1.5E-3\ndata: one.safetensors\nepochs: 3\narchitecture: {width: 8, depth: 2}\n"
    )
    config = PretrainConfig.load(path, seed=4, architecture={"width": 16})
    assert (config.lr, config.min_lr, config.epochs, config.seed) == (0.002, 0.0015, 3.0, 4)
    assert config.data == ["one.safetensors"]
    assert config.architecture == {"width": 16, "depth": 2}


@pytest.mark.parametrize(
    ("text", "expected"), [("on", "on"), ("off", "off"), ("auto", "auto"), ("'on'", "on")]
)
def test_graph_in_yaml(tmp_path: Path, text: str, expected: str) -> None:
    """YAML 1.1 takes an unquoted on for true."""
    (tmp_path / "c.yaml").write_text(f"graph: {text}")
    assert PretrainConfig.load(tmp_path / "c.yaml").graph == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True), ("false", False), ("yes", True), ("no", False), ("'yes'", True), ("'no'", False),
        ("auto", "auto"),
    ],
)  # fmt: skip
def test_resume_in_yaml(tmp_path: Path, text: str, expected: bool | str) -> None:
    (tmp_path / "c.yaml").write_text(f"resume: {text}")
    config = PretrainConfig.load(tmp_path / "c.yaml")
    assert config.resume == expected
    config.save(tmp_path / "c.yaml")
    assert PretrainConfig.load(tmp_path / "c.yaml").resume == expected


def test_epochs_and_updates_replace_each_other(tmp_path: Path) -> None:
    PretrainConfig(epochs=3).save(tmp_path / "c.yaml")
    config = PretrainConfig.load(tmp_path / "c.yaml", updates=7)
    assert (config.epochs, config.updates) == (None, 7)
    config.save(tmp_path / "c.yaml")
    config = PretrainConfig.load(tmp_path / "c.yaml", epochs=2)
    assert (config.epochs, config.updates) == (2.0, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1", "unknown option 'learning_rat'"),
        ("warmup_epoch: 1", "did you mean 'warmup_epochs'"),
        ("- 1", "holds list, expected a mapping"),
        ("a: [", "is no YAML"),
        ("batch_size: many", "batch_size must be int, got 'many'"),
    ],
)
def test_wrong_yaml(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        PretrainConfig.load(tmp_path / "c.yaml")


def test_yaml_never_unpickles(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("out: !!python/object/apply:os.getcwd []")
    with pytest.raises(ValueError, match="is no YAML"):
        PretrainConfig.load(tmp_path / "c.yaml")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        PretrainConfig.load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"precision": "bfloat"}, "did you mean 'bfloat16'"),
        ({"train_on": "tests"}, "unknown train_on 'tests'"),
        ({"epochs": 3, "updates": 3}, "give one of the two"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
        ({"resume": "auto", "overwrite": True}, "exclude each other"),
        ({"resume": "sometimes"}, "unknown resume 'sometimes'"),
        ({"batch_size": 0}, "batch_size must be a positive number, got 0"),
        ({"updates": -1}, "updates must be a positive number or null, got -1"),
        ({"accumulate": 3, "batch_size": 8}, "divisor of batch_size (8), got 3"),
        ({"min_lr": 0.1}, "min_lr must be a number from 0 to lr (0.001)"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"betas": (0.9,)}, "betas must be tuple[float, float], got (0.9,)"),
        ({"crop": (0.0, 1.0)}, "crop"),
        ({"crop": (0.9, 0.5)}, "crop"),
        ({"max_angle": -0.1}, "max_angle must be zero or more"),
        ({"mirror": 1.5}, "mirror must be a probability from 0 to 1, got 1.5"),
        ({"drop_limbs": -0.1}, "drop_limbs must be a probability"),
        ({"project": float("nan")}, "project must be a probability"),
        ({"scale_jitter": 1.0}, "scale_jitter must be at least 0 and below 1, got 1.0"),
        ({"noise": float("inf")}, "noise must be zero or more, got inf"),
        ({"seed": 2**31}, "seed"),
        ({"lr": "fast"}, "lr must be float, got 'fast' (str)"),
        ({"resume": 1}, "resume must be bool, got 1 (int)"),
        ({"preprocess": ["center", 3]}, "preprocess must be str, got 3 (int)"),
        ({"warmup_epochs": -1.0}, "warmup_epochs must be zero or more"),
        ({"architecture": 3}, "architecture must be"),
        ({"graph": "allways"}, "unknown graph 'allways'"),
        ({"data_budget": -1.0}, "data_budget must be zero or more, or null, got -1.0"),
    ],
)
def test_wrong_values(values: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        PretrainConfig(**values)


def test_unknown_model_and_setting(tiny: type) -> None:
    with pytest.raises(ValueError, match="did you mean 'tiny'"):
        PretrainConfig(model="tinny").model_config()
    with pytest.raises(ValueError, match=r"'widht'.*did you mean 'width'"):
        PretrainConfig(model="amr", architecture={"widht": 3}).model_config()
    with pytest.raises(ValueError, match=r"mask_ratio=1\.5"):
        PretrainConfig(model="amr", architecture={"mask_ratio": 1.5}).model_config()


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_the_projects_configurations_are_sound(path: Path) -> None:
    config = PretrainConfig.load(path)
    assert config.model_config().visible >= 1


def test_architecture_from_a_config_instance(tiny: type) -> None:
    config = PretrainConfig(model="tiny", architecture=tiny.Config(width=9))
    assert config.architecture["width"] == 9
    assert config.model_config(frames=8).frames == 16  # the instance names all settings
    assert PretrainConfig(model="tiny").model_config(frames=8).frames == 8


def test_the_name_of_the_steps_in_older_files(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("model: mamp\nsteps: [center, align_body]\n")
    assert PretrainConfig.load(tmp_path / "old.yaml").preprocess == ["center", "align_body"]
    assert PretrainConfig.load(tmp_path / "old.yaml", preprocess=[]).preprocess == []
    assert PretrainConfig.from_dict({"steps": ["bone"]}).preprocess == ["bone"]
    PretrainConfig.load(tmp_path / "old.yaml").save(tmp_path / "new.yaml")
    assert "preprocess:" in (tmp_path / "new.yaml").read_text()
    assert "steps:" not in (tmp_path / "new.yaml").read_text()
