"""``fastamr pretrain --data FILE --out DIR``: pre-train a model on motion."""

from __future__ import annotations

from pathlib import Path

from ... import training
from ...errors import UsageError
from ...training import PretrainConfig
from ...training.config import RESUME, merge_settings
from ..options import CommandParser, choice, usage
from ..settings import add_model, look_ahead, preset_settings, read_files

FIRST = {
    "data and folder": "data split preprocess out resume",
    "length and computation": "epochs updates batch_size lr device",
}
MORE = {
    "more of the data": "mixture held_out_data train_on keep_empty_bodies crop min_frames max_angle data_budget",
    "augmentation beyond crop and rotation": "mirror scale_jitter drop_limbs noise project",
    "more of the optimisation": "min_lr warmup_epochs betas weight_decay clip_grad on_nan accumulate seed",
    "more of the computation": "precision graph deterministic recompute side_branch tune",
    "logs, checkpoints and probes": "log_every checkpoint_every probe_every probe_pooling profile tensorboard track "
    "progress overwrite",
}
_TEXT = "continue the run in the folder; with auto start it where there is none"
_RESUME = {**choice("resume", RESUME), "nargs": "?", "const": "yes", "default": "no", "help": _TEXT}


def run(words: list[str]) -> None:
    """Carry out the command."""
    training.pretrain(read(words))


def read(words: list[str]) -> PretrainConfig:
    """Return the configuration that the words after ``fastamr pretrain`` ask for.

    Raises:
        UsageError: an option does not exist, or a value is wrong.
    """
    ahead = look_ahead(words)
    files = ahead.config
    if ahead.resume not in (None, "no") and ahead.out and (Path(ahead.out) / "config.yaml").is_file():
        files = [str(Path(ahead.out) / "config.yaml"), *files]
    model = ahead.model or read_files(files, PretrainConfig).get("model", PretrainConfig.model)
    given = _parser(model).parse(words).as_dict()
    for name in ("config", "preset", "model"):
        given.pop(name)
    layout = given.pop("layout", None)
    if layout is not None:
        own = given.get("architecture", {}).get("layout", layout)
        if own != layout:
            raise UsageError(f"--layout {layout} and --model.layout {own} differ: pass one of the two")
        given["architecture"] = {**given.get("architecture", {}), "layout": layout}
    settings = merge_settings(preset_settings(ahead.preset, model), read_files(files, PretrainConfig, model))
    settings = merge_settings(settings, {**given, "model": model})
    config: PretrainConfig = usage(PretrainConfig.from_dict, settings)
    return config


def _parser(model: str) -> CommandParser:
    parser = CommandParser("pretrain", "--data FILE... --out DIR", "Pre-train a model on motion.")
    group = add_model(parser, model, files=True)
    group.add_argument("--layout", metavar="NAME",
        help="body: one model for files of any layouts; else the data's")  # fmt: skip
    parser.add_fields(PretrainConfig, FIRST, MORE, skip=("model", "architecture"), forms={"resume": _RESUME})
    return parser
