from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastamr.models import MODELS, ActionClassifier, build_model, load_pretrained
from fastamr.skeleton import SkeletonLayout

LAYOUT = SkeletonLayout("chain3", ("root", "neck", "head"), (-1, 0, 1), ())
EXTRA = {
    "amr": {"target_patches": 1},
    "gfp": {"levels": (1, 2)},
    "asma": {"hidden": 4, "projector": 8},
}
STEPS = ({"name": "center", "joint": "root", "frame": "first", "per": "body"},)


def encoder(name: str = "amr", **options):
    torch.manual_seed(0)
    small = {"frames": 8, "width": 8, "heads": 2}
    if name != "asma":
        small |= {"depth": 2, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    return build_model(name, layout=LAYOUT, **small, **EXTRA.get(name, {}), **options)


def trained(name: str = "amr", **options) -> ActionClassifier:
    """A classifier whose running statistics are no longer those of a fresh one."""
    classifier = ActionClassifier(
        encoder(name), 3, class_names=("walk", "wave", "clap"), steps=STEPS, **options
    ).train()
    classifier(torch.randn(6, 8, 3, 3) + 1)
    return classifier.eval()


@pytest.mark.parametrize("name", list(MODELS))
def test_comes_back_as_it_was(tmp_path, name) -> None:
    classifier = trained(name, hidden=16, dropout=0.2, label_smoothing=0.05)
    classifier.save_pretrained(tmp_path / "saved")
    torch.manual_seed(7)
    again = ActionClassifier.from_pretrained(tmp_path / "saved")
    clips = torch.randn(4, 8, 3, 3)
    owner = torch.tensor([0, 0, 1, 2])
    assert torch.equal(again(clips, owner=owner), classifier(clips, owner=owner))
    assert not again.training
    assert (again.class_names, again.steps) == (classifier.class_names, classifier.steps)
    assert (again.pooling, again.label_smoothing, again.dropout.p) == ("joints", 0.05, 0.2)
    rates = [[m.rate for m in one.modules() if hasattr(m, "rate")] for one in (again, classifier)]
    assert rates[0] == rates[1]


def test_what_it_was_trained_on_is_kept_and_older_files_say_nothing(tmp_path) -> None:
    facts = {"fps": 30.0, "median_frames": 65, "median_seconds": None}
    trained(training_data=facts).save_pretrained(tmp_path)
    assert ActionClassifier.from_pretrained(tmp_path).training_data == facts
    description = json.loads((tmp_path / "config.json").read_text())
    del description["config"]["training_data"]
    (tmp_path / "config.json").write_text(json.dumps(description))
    assert ActionClassifier.from_pretrained(tmp_path).training_data == {}


def test_the_file_holds_what_the_logits_depend_on_and_no_more(tmp_path) -> None:
    classifier = trained("gfp", hidden=16)
    classifier.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    clips = torch.randn(4, 8, 3, 3)
    before = classifier(clips)
    state = classifier.state_dict()
    with torch.no_grad():
        for name, value in state.items():
            if name not in names:
                value.fill_(9)
    assert torch.equal(classifier(clips), before)
    assert {"encoder.embed.proj.weight", "head.1.running_mean"} & names == {"head.1.running_mean"}
    assert any(name.startswith("encoder.encoder.blocks.1") for name in names)
    assert not any("decoder" in name or "target" in name for name in names)
    assert classifier.num_parameters() == sum(
        value.numel() for name, value in load_file(tmp_path / "model.safetensors").items()
        if "running" not in name and "num_batches" not in name
    )  # fmt: skip


def test_a_frozen_encoder_is_saved_too(tmp_path) -> None:
    frozen = ActionClassifier(encoder().requires_grad_(False), 3).eval()
    assert [name for name, p in frozen.named_parameters() if p.requires_grad and "head" not in name] == []
    free = ActionClassifier(encoder(), 3)
    assert frozen.inference_state().keys() == free.inference_state().keys()
    frozen.save_pretrained(tmp_path)
    clips = torch.randn(2, 8, 3, 3)
    assert torch.equal(ActionClassifier.from_pretrained(tmp_path)(clips), frozen(clips))


def test_mistaken_for_each_other(tmp_path) -> None:
    trained().save_pretrained(tmp_path / "classifier")
    encoder().save_pretrained(tmp_path / "encoder")
    with pytest.raises(
        ValueError, match=r"encoder holds a 'amr', an encoder without classes.*fastamr finetune"
    ):
        ActionClassifier.from_pretrained(tmp_path / "encoder")
    with pytest.raises(ValueError, match=r"classifier holds a classifier.*ActionClassifier.from_pretrained"):
        load_pretrained(tmp_path / "classifier")


def test_damaged_folders(tmp_path) -> None:
    trained().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if name != "head.0.weight"},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(ValueError, match=r"no tensor 'head.0.weight'"):
        ActionClassifier.from_pretrained(tmp_path)
    wrong = weights | {"head.0.weight": weights["head.0.weight"][:, :2].contiguous()}
    save_file(wrong, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"'head.0.weight' has shape \(2048, 2\)"):
        ActionClassifier.from_pretrained(tmp_path)
    description = json.loads((tmp_path / "config.json").read_text())
    del description["config"]["encoder"]
    (tmp_path / "config.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="describes no classifier"):
        ActionClassifier.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no config.json"):
        ActionClassifier.from_pretrained(tmp_path / "none")


def test_names_for_all_classes_or_none() -> None:
    with pytest.raises(ValueError, match=r"class_names holds 2 names for 3 classes"):
        ActionClassifier(encoder(), 3, class_names=("a", "b"))
