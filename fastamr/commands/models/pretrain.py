"""``fastamr pretrain --data FILE --out DIR``: pre-train a model on motion."""

from __future__ import annotations

from pathlib import Path

from ... import training
from ...training import PretrainConfig
from ...training.config import merge_settings
from ..options import CommandParser, one_of
from ..settings import (
    add_config,
    add_model,
    add_model_settings,
    add_preset,
    look_ahead,
    preset_settings,
    read_files,
    usage,
)

FIRST = {
    "data and folder": "data split preprocess out resume",
    "length and computation": "epochs updates batch_size lr device",
}
MORE = {
    "more of the data": "train_on keep_empty_bodies crop min_frames max_angle data_budget",
    "more of the optimisation": "min_lr warmup_epochs betas weight_decay clip_grad accumulate seed",
    "more of the computation": "precision graph recompute side_branch",
    "logs, checkpoints and probes": "log_every checkpoint_every probe_every tensorboard progress overwrite",
}
RESUME = {"yes": True, "no": False, "auto": "auto"}


def run(words: list[str]) -> None:
    """Carry out the command.

    Raises:
        UsageError: a wrong option, key or value.
        Exception: what :func:`fastamr.training.pretrain` raises.
    """
    ahead = look_ahead(words)
    files = ahead.config
    if ahead.resume not in (None, "no") and ahead.out and (Path(ahead.out) / "config.yaml").is_file():
        files = [str(Path(ahead.out) / "config.yaml"), *files]
    model = ahead.model or read_files(files, PretrainConfig).get("model", PretrainConfig.model)
    given = _parser(model).parse(words).as_dict()
    for name in ("config", "preset", "model"):
        given.pop(name)
    if isinstance(given.get("resume"), str):
        given["resume"] = RESUME[given["resume"]]
    settings = merge_settings(preset_settings(ahead.preset, model), read_files(files, PretrainConfig, model))
    settings = merge_settings(settings, {**given, "model": model})
    training.pretrain(usage(PretrainConfig.from_dict, settings))


def _parser(model: str) -> CommandParser:
    parser = CommandParser("pretrain", "--data FILE... --out DIR", "Pre-train a model on motion.")
    what = parser.add_argument_group("model and settings")
    resume = {
        "nargs": "?",
        "const": "yes",
        "default": "no",
        "type": one_of("resume", RESUME),
        "metavar": "auto",
    }
    resume["help"] = "continue the run in the folder; with auto start it where there is none"
    add_model(what)
    add_preset(what, "a configuration that comes with the package; --config and options win over it")
    add_config(what)
    parser.add_fields(PretrainConfig, FIRST, MORE, skip=("model", "architecture"), forms={"resume": resume})
    add_model_settings(parser, model)
    return parser
