import math
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr.training import PretrainConfig, pretrain
from fastamr.training.setup import is_resident, run_lengths, training_sequences

from .running import configure, losses, records, small


@pytest.fixture(autouse=True)
def _use_tiny(tiny: type) -> None:
    """Every test here may train the stand-in model."""


def test_a_run_leaves_a_complete_folder(tmp_path: Path, skeletons: Any) -> None:
    out = pretrain(configure(tmp_path / "deep" / "run", updates=None, epochs=6, log_every=5), data=skeletons)
    names = ["complete.json", "config.json", "config.yaml", "manifest.jsonl", "metrics.jsonl"]
    names += ["model.safetensors", "state.safetensors"]
    assert sorted(path.name for path in out.iterdir()) == names
    config = PretrainConfig.load(out / "config.yaml")
    assert config.architecture == {"layout": "ntu25", "frames": 16, "channels": 3, "width": 4, "dropout": 0.1}
    assert (config.split, config.epochs, config.updates) == ("official", 6.0, None)
    assert config.warmup_epochs == 1.0  # a fifth of 6 epochs is 1.2, in whole updates: 2 of 2 an epoch
    (header,) = records(out, "header")
    assert (header["sequences"], header["updates"], header["updates_per_epoch"]) == (16, 12, 2)
    assert header["parameters"] == 75 * 4 + 4 + 4 * 75 + 75
    assert header["torch"] == torch.__version__
    assert [line["update"] for line in records(out, "train")] == [5, 10, 12]
    (summary,) = records(out, "summary")
    assert (summary["updates"], summary["epochs"]) == (12, 6.0)
    assert summary["sequences_per_second"] == pytest.approx(12 * 8 / summary["seconds"])


def test_logged_values_follow_the_recipe(tmp_path: Path, skeletons: Any) -> None:
    out = pretrain(configure(tmp_path / "run", warmup_epochs=2.0, min_lr=5e-3), data=skeletons)
    rates = [line["lr"] for line in records(out, "train")]
    assert rates[:4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    assert rates[6] == pytest.approx(0.0075)
    assert rates[-1] == pytest.approx(0.005)
    assert records(out, "train")[3]["epoch"] == 2.0


def test_windows_of_the_log_are_means(tmp_path: Path, skeletons: Any) -> None:
    every = losses(pretrain(configure(tmp_path / "a"), data=skeletons))
    windows = losses(pretrain(configure(tmp_path / "b", log_every=4), data=skeletons))
    expected = [sum(every[:4]) / 4, sum(every[4:8]) / 4, sum(every[8:]) / 2]
    assert windows == pytest.approx(expected, rel=1e-12)


def test_same_seed_same_run_and_another_seed_another(tmp_path: Path, skeletons: Any) -> None:
    first = pretrain(configure(tmp_path / "a"), data=skeletons)
    torch.manual_seed(99)
    again = pretrain(configure(tmp_path / "b"), data=skeletons)
    other = pretrain(configure(tmp_path / "c", seed=1), data=skeletons)
    assert losses(first) == losses(again)
    assert losses(first) != losses(other)
    assert losses(first)[-1] < losses(first)[0]


def test_plan_and_estimate_are_printed_and_kept(
    tmp_path: Path, skeletons: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = pretrain(configure(tmp_path / "run", updates=14), data=skeletons)
    shown = capsys.readouterr().err
    (header,) = records(out, "header")
    assert header["plan"][0] == "model    tiny, 679 parameters"
    assert header["plan"][2] == "data     16 of 20 clips (split official), 16 sequences (bodies: existing)"
    assert " ".join(shown.split()).startswith(" ".join(" ".join(header["plan"]).split()))
    (estimate,) = records(out, "estimate")
    assert estimate["update"] == 10
    assert estimate["seconds"] == pytest.approx(14 * estimate["each"])
    assert estimate["lines"][0] in shown
    assert "14/14" not in shown  # progress is off
    pretrain(configure(out, resume=True, updates=30, progress=True), data=skeletons)
    shown = capsys.readouterr().err
    assert "30 updates = 15 epochs of 2, 14 of them done" in shown
    assert "for 16 updates" in shown
    assert "30/30" in shown
    assert "epoch 15.00 of 15.00, loss " in shown
    assert [line["update"] for line in records(out, "estimate")] == [10, 24]


def test_quiet_prints_nothing(tmp_path: Path, skeletons: Any, capsys: pytest.CaptureFixture[str]) -> None:
    out = pretrain(configure(tmp_path / "run", updates=14), data=skeletons, quiet=True)
    assert capsys.readouterr() == ("", "")
    assert records(out, "header")[0]["plan"]


def test_a_short_run_has_no_estimate(
    tmp_path: Path, skeletons: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = pretrain(configure(tmp_path / "run", updates=10), data=skeletons)
    assert records(out, "estimate") == []
    assert "about" not in capsys.readouterr().err


def test_frames_that_are_fetched_ahead_make_the_same_run(tmp_path: Path, make_skeletons: Any) -> None:
    data = make_skeletons(20, bodies=2, with_valid=True)
    resident = pretrain(configure(tmp_path / "a"), data=data)
    fetched = pretrain(configure(tmp_path / "b", data_budget=0.0, probe_every=2.0), data=data)
    assert records(resident, "header")[0]["frames"] == "resident"
    assert records(fetched, "header")[0]["frames"] == "prefetched"
    assert losses(resident) == losses(fetched)


def test_the_budget_decides_where_the_data_lies(make_skeletons: Any) -> None:
    cpu = torch.device("cpu")
    plain, masked = make_skeletons(), make_skeletons(with_valid=True)
    needed = plain.coords.nbytes
    assert is_resident([plain], cpu, None)
    assert is_resident([plain], cpu, needed / 2**30)
    assert not is_resident([plain], cpu, (needed - 1) / 2**30)
    assert not is_resident([masked], cpu, (needed + 2 * masked.valid.numel() - 1) / 2**30)
    assert is_resident([masked], cpu, (needed + 2 * masked.valid.numel()) / 2**30)


def test_empty_bodies_are_kept_on_request_and_the_header_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any, tiny: Any
) -> None:
    empty: list[int] = []
    forward = tiny.forward

    def counted(self: Any, clips: torch.Tensor, **options: Any) -> torch.Tensor:
        empty.append(int((clips == 0).flatten(1).all(1).sum()))
        return forward(self, clips, **options)

    monkeypatch.setattr(tiny, "forward", counted)
    existing = pretrain(configure(tmp_path / "a"), data=skeletons)
    assert set(empty) == {0}
    empty.clear()
    kept = pretrain(configure(tmp_path / "b", keep_empty_bodies=True, updates=4), data=skeletons)
    assert empty == [4, 4, 4, 4]  # every other one of 8
    heads = [records(folder, "header")[0] for folder in (existing, kept)]
    assert [head["bodies"] for head in heads] == ["existing", "two slots a clip, empty ones kept"]
    assert [head["sequences"] for head in heads] == [16, 32]
    assert [head["empty_sequences"] for head in heads] == [0, 16]
    assert [head["updates_per_epoch"] for head in heads] == [2, 4]
    assert heads[1]["updates"] == 4
    with pytest.raises(ValueError, match="keep_empty_bodies was True and is now False"):
        pretrain(configure(kept, resume=True, updates=8), data=skeletons)


@pytest.mark.filterwarnings("ignore:.*have collapsed:RuntimeWarning")
@pytest.mark.parametrize("model", ["amr", "skeleton_mae", "mamp", "gfp", "asma", "slim"])
def test_every_model_trains_on_empty_bodies(tmp_path: Path, skeletons: Any, model: str) -> None:
    options = {"model": model, "architecture": small(model), "updates": 3, "keep_empty_bodies": True}
    out = pretrain(configure(tmp_path / "run", **options), data=skeletons)
    assert all(math.isfinite(loss) for loss in losses(out))


def test_graph_is_a_choice_and_the_summary_tells_what_came_of_it(tmp_path: Path, skeletons: Any) -> None:
    out = pretrain(configure(tmp_path / "a"), data=skeletons)
    assert "CUDA graphs need an NVIDIA GPU" in records(out, "summary")[0]["graph"]
    off = pretrain(configure(tmp_path / "b", graph=False), data=skeletons)
    assert records(off, "summary")[0]["graph"] == "graph=False"
    assert losses(out) == losses(off)
    with pytest.raises(ValueError, match=r"graph=True, but the model is on the cpu.*--graph auto"):
        pretrain(configure(tmp_path / "c", graph="on"), data=skeletons)


@pytest.mark.parametrize("name", ["recompute", "side_branch"])
def test_ways_to_compute_are_handed_to_the_model(
    tmp_path: Path, skeletons: Any, tiny: Any, name: str
) -> None:
    tiny.recompute = tiny.side_branch = None
    pretrain(configure(tmp_path / "a"), data=skeletons)
    assert (tiny.recompute, tiny.side_branch) == (None, None)
    pretrain(configure(tmp_path / "b", **{name: True}), data=skeletons)
    assert (tiny.recompute, tiny.side_branch) == tuple(
        True if each == name else None for each in ("recompute", "side_branch")
    )


def test_losses_that_arrive_late_are_logged_in_order_and_checked_before_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any
) -> None:
    import fastamr.training.metrics.metric_ring as module

    class Slow(module._Copy):
        def arrived(self, wait: bool) -> bool:
            return wait

    at_once = pretrain(configure(tmp_path / "a", log_every=3, updates=14), data=skeletons)
    monkeypatch.setattr(module, "_Copy", Slow)
    late = pretrain(configure(tmp_path / "b", log_every=3, updates=14), data=skeletons)
    assert losses(late) == losses(at_once)
    assert [line["update"] for line in records(late, "train")] == [3, 6, 9, 12, 14]


def test_only_training_clips_are_trained_on(make_skeletons: Any) -> None:
    data = make_skeletons(10, bodies=2)
    train = training_sequences(data, "train", "official")
    assert sorted(set(data.body_clip[train].tolist())) == [1, 2, 3, 4, 6, 7, 8, 9]
    assert len(train) == 16
    assert training_sequences(data, "all", "official").tolist() == list(range(20))
    assert len(training_sequences(data, "train", None)) == 20


def test_without_a_split_test_clips_are_not_trained_on_silently(tmp_path: Path, skeletons: Any) -> None:
    skeletons.splits["xview"] = skeletons.splits["xsub"] = skeletons.splits.pop("official")
    with pytest.raises(
        ValueError, match=r"splits \['xview', 'xsub'\].*--split xview, or pass --train-on all"
    ):
        pretrain(configure(tmp_path / "run"), data=skeletons)
    assert not (tmp_path / "run").exists()
    (header,) = records(pretrain(configure(tmp_path / "half", split="xsub"), data=skeletons), "header")
    assert (header["split"], header["sequences"]) == ("xsub", 16)
    (header,) = records(pretrain(configure(tmp_path / "all", train_on="all"), data=skeletons), "header")
    assert (header["split"], header["sequences"]) == (None, 20)
    with pytest.raises(
        ValueError, match=r"none is named, and the data has \['xview', 'xsub'\]: pass --split"
    ):
        pretrain(configure(tmp_path / "b", train_on="all", probe_every=1.0), data=skeletons)
    skeletons.splits.clear()
    (header,) = records(pretrain(configure(tmp_path / "none"), data=skeletons), "header")
    assert (header["split"], header["sequences"]) == (None, 20)


def test_unknown_split(tmp_path: Path, skeletons: Any) -> None:
    with pytest.raises(ValueError, match="did you mean 'official'"):
        pretrain(configure(tmp_path / "run", split="oficial"), data=skeletons)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (2000, 100)),  # 400 epochs, 20 of warm-up
        ({"epochs": 50}, (250, 50)),  # a fifth
        ({"updates": 10}, (10, 2)),
        ({"epochs": 50, "warmup_epochs": 0.0}, (250, 0)),
        ({"epochs": 0.01}, (1, 0)),
    ],
)
def test_lengths(options: dict[str, Any], expected: tuple[int, int]) -> None:
    assert run_lengths(PretrainConfig(**options), 5) == expected


def test_missing_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="out is missing"):
        pretrain(PretrainConfig(data=["synthetic"]))
    with pytest.raises(ValueError, match="data is missing"):
        pretrain(configure(tmp_path / "run"))
    with pytest.raises(ValueError, match="device 'cudo' cannot be used"):
        pretrain(configure(tmp_path / "run", device="cudo"), data=object())  # type: ignore[arg-type]


def test_architecture_for_another_skeleton(tmp_path: Path, skeletons: Any) -> None:
    with pytest.raises(ValueError, match="expects layout 'coco17' with 3 channels, the data has 'ntu25'"):
        pretrain(configure(tmp_path / "run", architecture={"layout": "coco17"}), data=skeletons)


def test_training_works_in_a_thread_where_no_handler_can_be_set(tmp_path: Path, skeletons: Any) -> None:
    thread = threading.Thread(
        target=pretrain, args=(configure(tmp_path / "run"),), kwargs={"data": skeletons}
    )
    thread.start()
    thread.join()
    assert len(losses(tmp_path / "run")) == 10


def test_signal_handlers_are_put_back(tmp_path: Path, skeletons: Any) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    pretrain(configure(tmp_path / "run"), data=skeletons)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_probe_is_logged_and_does_not_change_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any
) -> None:
    import fastamr.features.extract
    import fastamr.probes.knn

    def features(model: Any, data: Any, **_: Any) -> torch.Tensor:
        model.eval()
        torch.rand(3)
        return torch.arange(data.num_clips)[:, None].float()

    def accuracy(train_x: Any, train_y: Any, test_x: Any, test_y: Any, k: int) -> float:
        assert (len(train_x), len(test_y), k) == (16, 4, 1)
        return 12.5

    monkeypatch.setattr(fastamr.features.extract, "extract_features", features)
    monkeypatch.setattr(fastamr.probes.knn, "knn_accuracy", accuracy)
    plain = pretrain(configure(tmp_path / "a"), data=skeletons)
    probed = pretrain(configure(tmp_path / "b", probe_every=2.0), data=skeletons)
    assert [(line["update"], line["knn_1"]) for line in records(probed, "probe")] == [(4, 12.5), (8, 12.5)]
    assert losses(plain) == losses(probed)


def test_probe_without_labels_is_refused_before_the_run(tmp_path: Path, skeletons: Any) -> None:
    skeletons.labels[:] = -1
    with pytest.raises(ValueError, match="probe_every needs labelled training clips"):
        pretrain(configure(tmp_path / "run", probe_every=1.0), data=skeletons)


def test_training_imports_no_optional_package() -> None:
    code = (
        "import sys\n"
        "for name in ('jsonargparse', 'tensorboard', 'matplotlib', 'sklearn'): sys.modules[name] = None\n"
        "import fastamr.training\n"
        "assert 'fastamr.cli' not in sys.modules and 'fastamr.evaluation' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[2])


def test_a_probe_that_cannot_pool_is_refused_before_the_run(tmp_path: Path, skeletons: Any) -> None:
    short = small("skeleton_mae") | {"frames": 8}
    options = {
        "model": "skeleton_mae",
        "architecture": short,
        "probe_every": 1.0,
        "probe_pooling": "regions+time",
    }
    message = r"pooling='regions\+time' needs at least 3 time patches, the tokens have 2"
    with pytest.raises(ValueError, match=message):
        pretrain(configure(tmp_path / "run", **options), data=skeletons)
    with pytest.raises(ValueError, match=r"unknown probe_pooling 'region': .*did you mean 'regions'"):
        configure(tmp_path / "run", probe_pooling="region")
