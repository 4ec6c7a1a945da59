import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import fastamr.training.checkpoint as checkpoint
from fastamr.folders import note_written
from fastamr.training.checkpoint import (
    PREVIOUS_FILE,
    STATE_FILE,
    SUSPECT_FILE,
    capture_training,
    changed_settings,
    check_folder,
    clear_run,
    drop_previous,
    go_back,
    is_complete,
    load_checkpoint,
    reported,
    restore_training,
    save_checkpoint,
)


def save(folder: Path, tensors: dict[str, torch.Tensor], **scalars: Any) -> dict[str, Any]:
    """Write a checkpoint that holds what every one must hold, and return its scalars."""
    scalars = {"update": 0, "seconds": 0.0, "config": {}, "data": "", "scaler": {}} | scalars
    needed = {"seed": torch.zeros(2, dtype=torch.int64), "rng.cpu": torch.get_rng_state()}
    save_checkpoint(folder, needed | tensors, scalars)
    return scalars


def test_tensors_and_scalars_come_back_to_the_bit(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4), "seed": torch.tensor([2**62, -5]), "rng.cpu": torch.get_rng_state()}
    scalars = save(tmp_path, tensors, update=3, seconds=0.1 + 0.2, config={"crop": [0.5, 1.0], "split": None})
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.scalars == scalars
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in tensors.items())
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


def test_no_checkpoint(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None


def test_truncated_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"a": torch.zeros(1000)}, {})
    path = tmp_path / STATE_FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated or damaged"):
        load_checkpoint(tmp_path)


def test_foreign_file(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / STATE_FILE)
    with pytest.raises(ValueError, match="not a checkpoint of fastamr"):
        load_checkpoint(tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scalars = save(tmp_path, {"a": torch.ones(4)}, update=1)

    def write_to_full_disk(tensors: Any, path: Path, metadata: Any) -> None:
        Path(path).write_bytes(b"half of it")
        Path("/dev/full").write_bytes(b"x" * 10_000)

    monkeypatch.setattr(checkpoint, "save_file", write_to_full_disk)
    with pytest.raises(OSError, match=r"No space left on device.*intact"), reported(tmp_path):
        save_checkpoint(tmp_path, {"a": torch.zeros(4)}, {"update": 2})
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.scalars == scalars
    assert torch.equal(loaded.tensors["a"], torch.ones(4))


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).sum().backward()
        optimizer.step()
    return model, optimizer


def test_training_state_round_trip(tmp_path: Path) -> None:
    model, optimizer = trained()
    save(tmp_path, capture_training(model, optimizer))
    other, fresh = trained()
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    restore_training(other, fresh, loaded.tensors)
    batch = torch.randn(8, 3)
    for network, update in ((model, optimizer), (other, fresh)):
        update.zero_grad()
        network(batch).square().sum().backward()
        update.step()
    for (name, left), (_, right) in zip(model.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(left, right), name


def test_another_architecture_is_refused() -> None:
    model, optimizer = trained()
    tensors = capture_training(model, optimizer)
    wider = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))
    with pytest.raises(
        ValueError, match=r"another architecture: 0\.weight has shape \(5, 3\).*holds \(4, 3\)"
    ):
        restore_training(wider, torch.optim.AdamW(wider.parameters()), tensors)


CONFIG = {
    "model": "amr",
    "architecture": {"width": 8, "depth": 2},
    "preprocess": ["center"],
    "train_on": "train",
    "split": None,
    "keep_empty_bodies": False,
    "batch_size": 4,
    "seed": 0,
    "mixture": None,
    "lr": 1e-3,
    "out": "a",
}


def test_same_run_has_no_changes_whatever_its_folder() -> None:
    assert changed_settings({"config": CONFIG, "data": "x"}, {**CONFIG, "out": "b"}, "x") == []


def test_a_checkpoint_without_a_younger_option_had_its_default() -> None:
    saved = {name: value for name, value in CONFIG.items() if name != "keep_empty_bodies"}
    assert changed_settings({"config": saved, "data": "x"}, CONFIG, "x") == []
    with pytest.raises(ValueError, match="keep_empty_bodies was False and is now True"):
        changed_settings({"config": saved, "data": "x"}, {**CONFIG, "keep_empty_bodies": True}, "x")


def test_a_checkpoint_of_before_the_steps_had_their_name_is_the_same_run() -> None:
    saved = {"steps" if name == "preprocess" else name: value for name, value in CONFIG.items()}
    assert changed_settings({"config": saved, "data": "x"}, CONFIG, "x") == []
    with pytest.raises(ValueError, match=r"preprocess was \['center'\] and is now \[\]"):
        changed_settings({"config": saved, "data": "x"}, {**CONFIG, "preprocess": []}, "x")


def test_state_is_put_back_where_it_lies() -> None:
    """A recorded step knows the moments by their addresses."""
    model, optimizer = trained()
    tensors = {name: tensor.clone() for name, tensor in capture_training(model, optimizer).items()}
    moment = optimizer.state[model[0].weight]["exp_avg"]
    before = moment.clone()
    moment.zero_()
    restore_training(model, optimizer, tensors)
    assert optimizer.state[model[0].weight]["exp_avg"] is moment
    assert torch.equal(moment, before)


def test_harmless_changes_are_told() -> None:
    changes = changed_settings({"config": CONFIG, "data": "x"}, {**CONFIG, "lr": 2e-3}, "x")
    assert changes == ["lr was 0.001 and is now 0.002"]


@pytest.mark.parametrize(
    ("change", "fingerprint", "message"),
    [
        ({"architecture": {"width": 16, "depth": 2}}, "x", "architecture.width was 8 and is now 16"),
        ({"model": "skeleton_mae"}, "x", "model was 'amr'"),
        ({"batch_size": 8}, "x", "batch_size was 4"),
        ({"preprocess": []}, "x", "preprocess was"),
        ({}, "y", "fingerprint x, now y"),
    ],
)
def test_another_run_is_refused(change: dict[str, Any], fingerprint: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed_settings({"config": CONFIG, "data": "x"}, {**CONFIG, **change}, fingerprint)


def test_folder_that_holds_a_run(tmp_path: Path) -> None:
    check_folder(tmp_path / "new", resume=False, overwrite=False)
    (tmp_path / "notes.txt").write_text("mine")
    check_folder(tmp_path, resume=False, overwrite=False)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(FileExistsError, match=r"already holds a run \(metrics\.jsonl\); pass --resume"):
        check_folder(tmp_path, resume=False, overwrite=False)
    check_folder(tmp_path, resume=False, overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"nothing to resume in .*: omit --resume"):
        check_folder(tmp_path, resume=True, overwrite=False)
    (tmp_path / "state.safetensors").write_text("")
    check_folder(tmp_path, resume=True, overwrite=False)
    with pytest.raises(FileExistsError, match="is a file"):
        check_folder(tmp_path / "notes.txt", resume=False, overwrite=True)


def test_folder_that_auto_may_start_or_continue_in(tmp_path: Path) -> None:
    check_folder(tmp_path / "new", resume="auto", overwrite=False)
    for name in ("config.yaml", "metrics.jsonl"):  # of a run that ended before its first checkpoint
        (tmp_path / name).write_text("")
    check_folder(tmp_path, resume="auto", overwrite=False)
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(
        FileExistsError, match=r"a model without a checkpoint \(model\.safetensors\); pass --overwrite"
    ):
        check_folder(tmp_path, resume="auto", overwrite=False)
    (tmp_path / "state.safetensors").write_text("")
    check_folder(tmp_path, resume="auto", overwrite=False)


def test_clearing_a_run_spares_what_no_manifest_names(tmp_path: Path) -> None:
    mine = ("notes.txt", "evaluation_mine.json", "tensorboard/mine", "features/extracted.npy", "trace.json")
    ours = (
        "config.yaml",
        "model.safetensors",
        "evaluation-x-official-knn.json",
        "tensorboard/events",
        "features/a.b",
    )
    for name in (*mine, *ours):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    note_written(tmp_path, *ours)
    assert clear_run(tmp_path) == ["evaluation_mine.json", "features", "tensorboard"]
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == sorted(mine)


def test_clearing_a_run_of_before_the_manifest(tmp_path: Path) -> None:
    """What the new run replaces anyway goes; of the rest nobody knows whose it is."""
    for name in ("config.yaml", "state.safetensors", "evaluation-x.json"):
        (tmp_path / name).write_text("x")
    assert clear_run(tmp_path) == ["evaluation-x.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation-x.json"]


def test_the_checkpoint_before_the_last_one_is_kept_until_it_is_let_go(tmp_path: Path) -> None:
    for update in (1, 2):
        save(tmp_path, {"a": torch.full((4,), float(update))}, update=update)
    assert {path.name for path in tmp_path.iterdir()} == {STATE_FILE, PREVIOUS_FILE}
    assert go_back(tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.scalars["update"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {STATE_FILE, SUSPECT_FILE}
    assert not go_back(tmp_path)
    drop_previous(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


def test_a_file_system_without_links_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    for update in (1, 2):
        save(tmp_path, {"a": torch.zeros(4)}, update=update)
    (tmp_path / PREVIOUS_FILE).replace(tmp_path / STATE_FILE)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.scalars["update"] == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"updates": 3}, False),
        ({"updates": 4}, True),
        (None, False),
        ("not json", False),
        ([4], False),
    ],
)
def test_completeness_is_one_file_and_a_model(tmp_path: Path, change: Any, text: bool) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("x")
    if change is not None:
        (tmp_path / "complete.json").write_text(change if isinstance(change, str) else json.dumps(change))
    assert is_complete(tmp_path, 4) is text
    (tmp_path / "model.safetensors").unlink()
    assert not is_complete(tmp_path, 4)


@pytest.mark.parametrize(
    ("error", "saved", "message"),
    [
        (
            OSError(28, "No space left on device"),
            False,
            "nothing was saved yet: make room, then start the run again",
        ),
        (OSError(28, "No space left on device"), True, "saved before are intact: make room, then --resume"),
        (PermissionError(13, "Permission denied"), True, "intact: make the folder writable, then --resume"),
    ],
)
def test_a_failed_write_says_what_is_left(tmp_path: Path, error: OSError, saved: bool, message: str) -> None:
    if saved:
        save_checkpoint(tmp_path, {"a": torch.zeros(4)}, {})
    with pytest.raises(OSError, match=message), reported(tmp_path):
        raise error
    with pytest.raises(OSError, match="the folder is gone"), reported(tmp_path / "gone"):
        raise error
