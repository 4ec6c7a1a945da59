"""Curves, embeddings, attention maps and confusion matrices."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastamr import AMRModel, cli
from fastamr.data import PackedSkeletons, synthetic_actions
from fastamr.evaluation import extract_features, knn_accuracy
from fastamr.models import SkeletonModel, SLiMModel
from fastamr.probes import linear_probe
from fastamr.visualization.attention_maps import attention_weights, received
from fastamr.visualization.confusion import confusion_matrix, draw_confusion
from fastamr.visualization.curves import draw_curves, read_metrics
from fastamr.visualization.embedding import project

SMALL = {"width": 16, "depth": 2, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as pretrain leaves it: model, configuration with data, metrics."""
    folder = tmp_path_factory.mktemp("plot") / "run"
    AMRModel(frames=24, target_patches=6, **SMALL).save_pretrained(folder)
    data = folder.parent / "data.safetensors"
    synthetic_actions(40, seed=0, frames=(18, 30), drop_joints=0.0).save(data)
    (folder / "config.yaml").write_text(f"data: ['{data}']\nsteps: [center]\n")
    records = [
        {
            "kind": "header",
            "update": 0,
            "device_name": "some GPU",
            "precision": "bfloat16",
            "split": "official",
        },
        *(
            {
                "kind": "train",
                "update": k,
                "epoch": k / 10,
                "loss": 1 / k,
                "lr": 1e-3,
                "sequences_per_second": 100.0 * k,
            }
            for k in range(1, 30)
        ),
        {"kind": "probe", "update": 10, "epoch": 1.0, "knn_1": 41.0},
        {"kind": "probe", "update": 20, "epoch": 2.0, "knn_1": 47.5},
    ]
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "metrics.jsonl").write_text(text + '{"kind": "train", "upda')
    return folder


def test_records_are_read_and_a_cut_line_is_left_out(run_folder: Path, tmp_path: Path) -> None:
    records = read_metrics(run_folder)
    assert [len(records[kind]) for kind in ("header", "train", "probe")] == [1, 29, 2]
    with pytest.raises(FileNotFoundError, match=r"holds no metrics.jsonl"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"kind": "header"}\n')
    with pytest.raises(ValueError, match="no record of the training yet"):
        read_metrics(tmp_path)
    train = {"kind": "train", "epoch": 1, "loss": 0.5, "lr": 0.1, "sequences_per_second": 9}
    (tmp_path / "metrics.jsonl").write_text(f'{{"kind": "header"}}\nrubbish\n{json.dumps(train)}\n')
    with pytest.warns(UserWarning, match="line 2"):
        assert list(read_metrics(tmp_path)) == ["header", "train"]


@pytest.mark.parametrize(
    "spoiled",
    [{"epoch": None}, {"loss": "0.5"}, {"lr": [1]}, {"sequences_per_second": 10**400}, {"kind": ["x"]}],
)
def test_a_record_without_the_numbers_of_the_curves_is_left_out(
    spoiled: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "metrics.jsonl"
    train = {"kind": "train", "epoch": 1, "loss": float("nan"), "lr": 0.1, "sequences_per_second": 9}
    lines = [{**train, **spoiled}, {"kind": "probe", "epoch": 1, "knn_1": "x"}, train]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.warns(UserWarning, match="is no record of a run and is left out"):
        records = read_metrics(tmp_path)
    assert list(records) == ["train"]
    assert len(records["train"]) == 1


def test_curves(run_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["plot", str(run_folder), "--out", str(tmp_path / "new"), "--format", "svg"]) == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["curves.svg"]
    text = (tmp_path / "new" / "curves.svg").read_text()
    for word in (
        "pre-training loss",
        "learning rate",
        "sequences / s",
        "some GPU, bfloat16",
        "accuracy (%)",
        "47.5",
    ):
        assert word in text, word


@pytest.mark.parametrize("together", [True, False])
def test_a_curve_for_each_set(tmp_path: Path, together: bool) -> None:
    """Of the loss and of the probe; a set that no batch of a window held has a gap."""
    pytest.importorskip("matplotlib")
    train = {"kind": "train", "epoch": 1, "loss": 0.5, "lr": 0.1, "sequences_per_second": 9}
    probe = {"kind": "probe", "epoch": 1, "probe/held": 61.5} | ({"knn_1": 33.0} if together else {})
    lines = [{**train, "loss/ntu_$1$": 0.25, "loss/ucla": 0.75}, {**train, "epoch": 2, "loss/ucla": 0.5}]
    lines += [probe, {**probe, "epoch": 2}, {**train, "loss/ucla": "x"}, {"kind": "probe", "epoch": 3}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "\n")
    with pytest.warns(UserWarning, match="is no record of a run and is left out"):
        records = read_metrics(tmp_path)
    assert [len(records[kind]) for kind in ("train", "probe")] == [2, 2]
    draw_curves(tmp_path / "curves.svg", records)
    text = (tmp_path / "curves.svg").read_text()
    for word in ("ntu_$1$", "ucla", "held", *(["33.0", "all training sets"] if together else [])):
        assert word in text, word
    assert ("all training sets" in text) == together


def test_all_figures_of_a_run(run_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    asked = [
        "--embedding",
        "pca",
        "--attention",
        "--clip",
        "2",
        "--confusion",
        "knn",
        "--pooling",
        "mean+max",
        "--format",
        "svg",
    ]
    assert cli.main(["plot", str(run_folder), "--out", str(tmp_path), *asked]) == 0
    texts = {path.stem: path.read_text() for path in tmp_path.iterdir()}
    assert sorted(texts) == ["attention", "confusion", "curves", "embedding"]
    data = PackedSkeletons.load(run_folder.parent / "data.safetensors")
    for name in data.label_names:
        assert name in texts["embedding"]
    assert "% of the variance" in texts["embedding"]
    assert "1-NN of the frozen encoder" in texts["confusion"]
    assert "attention / even share" in texts["attention"]
    assert "mean over 2 blocks and 2 heads" in texts["attention"]


def test_confusion_agrees_with_the_accuracy(run_folder: Path) -> None:
    from fastamr.evaluation import knn_predict, labelled_split

    data = PackedSkeletons.load(run_folder.parent / "data.safetensors")
    features = extract_features(AMRModel.from_pretrained(run_folder), data)
    train, test = labelled_split(data, "official")
    sets = features[train], data.labels[train], features[test]
    tested = data.labels[test]
    linear = linear_probe(*sets, tested, epochs=5)
    for predicted, accuracy in (
        (knn_predict(*sets).numpy(), knn_accuracy(*sets, tested)),
        (np.array(linear.predicted), linear.accuracy),
    ):
        counts = confusion_matrix(tested.numpy(), predicted, len(data.label_names))
        assert counts.sum() == len(tested)
        assert 100 * np.trace(counts) / counts.sum() == pytest.approx(accuracy)


def test_confusion_rows_are_true_classes(tmp_path: Path) -> None:
    counts = confusion_matrix(np.array([0, 0, 1, 3]), np.array([0, 1, 1, 0]), 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    pytest.importorskip("matplotlib")
    draw_confusion(tmp_path / "a.svg", counts, ["a0", "b1", "c2", "d3"])
    text = (tmp_path / "a.svg").read_text()
    assert "50.0 % of 4 test clips right" in text
    assert "<!-- d3 (1) -->" in text
    assert "<!-- c2" not in text
    with pytest.raises(ValueError, match="no test clip"):
        draw_confusion(tmp_path / "a.svg", np.zeros((2, 2), dtype=np.int64), ["a", "b"])


def test_attention_is_the_one_that_the_model_uses() -> None:
    """The weights times the values are what the fused attention returns, before its projection."""
    model = AMRModel(frames=24, target_patches=6, **{**SMALL, "depth": 1}).eval()
    clips = torch.randn(2, 24, 25, 3)
    weights = attention_weights(model, clips)
    assert weights.shape == (2, 150, 150)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 150), atol=1e-5)
    block = model.encoder.blocks[0]
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        block.attn.qkv.register_forward_hook(lambda *a: seen.update(qkv=a[2])),
        block.attn.proj.register_forward_pre_hook(lambda *a: seen.update(out=a[1][0])),
    ]
    with torch.inference_mode():
        model.encode(clips)
    for hook in hooks:
        hook.remove()
    query, key, value = seen["qkv"].unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    each = (query @ key.transpose(-1, -2) / 8**0.5).softmax(-1)
    assert torch.allclose(
        (each @ value).transpose(1, 2).flatten(2), seen["out"].reshape(2, 150, 16), atol=1e-5
    )
    assert torch.allclose(weights, each.mean(1), atol=1e-6)


def test_attention_leaves_the_model_as_it_was() -> None:
    model = AMRModel(frames=24, target_patches=6, **SMALL).train()
    attention_weights(model, torch.randn(1, 24, 25, 3))
    assert model.training
    assert all(not block.attn.qkv._forward_hooks for block in model.encoder.blocks)
    with pytest.raises(ValueError, match="cannot be read"):
        attention_weights(SkeletonModel("ntu25", 24), torch.randn(1, 24, 25, 3))


def test_attention_that_turns_with_time_is_refused() -> None:
    model = SLiMModel(frames=24, width=16, depth=1, heads=2, prototypes=8, head_hidden=8, bottleneck=8)
    with pytest.raises(
        ValueError, match="attention of a SLiMModel cannot be read: its queries and keys turn"
    ):
        attention_weights(model, torch.randn(1, 24, 25, 3))


def test_even_attention_is_one_everywhere() -> None:
    even = received(torch.full((1, 50, 50), 1 / 50), 25)
    assert even.shape == (1, 2, 25)
    assert np.allclose(even, 1)
    first = torch.zeros(1, 50, 50)
    first[..., 30] = 1
    assert received(first, 25)[0, 1, 5] == 50


def test_principal_components() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 8)) * np.array([5, 3, 1, 1, 0.5, 0.5, 0.1, 0.1])
    points, names = project(features, "pca")
    centred = features - features.mean(0)
    values = np.linalg.eigvalsh(centred.T @ centred)[::-1]
    assert np.allclose((points**2).sum(0), values[:2])
    assert names[0] == f"principal component 1 ({100 * values[0] / values.sum():.1f} % of the variance)"
    with pytest.raises(ValueError, match="expected at least 5"):
        project(features[:4], "pca")
    with pytest.raises(ValueError, match="unknown method 'umap'"):
        project(features, "umap")


def test_tsne_is_seeded() -> None:
    pytest.importorskip("sklearn")
    features = np.random.default_rng(0).normal(size=(24, 6)).astype(np.float32)
    assert np.array_equal(project(features, "tsne", seed=1)[0], project(features, "tsne", seed=1)[0])


def test_wrong_use_is_told_in_one_line(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["plot", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()
    assert cli.main(["plot", str(run_folder), "--out", str(tmp_path), "--attention", "--clip", "99"]) == 1
    assert (
        cli.main(["plot", str(run_folder), "--out", str(tmp_path), "--confusion", "knn", "--split", "xsub"])
        == 1
    )
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3
    assert "holds no metrics.jsonl" in lines[0]
    assert "clips 0 to 39" in lines[1]
    assert "unknown split 'xsub'" in lines[2]
    assert cli.main(["plot", str(run_folder), "--out", str(tmp_path), "--embedding", "umap"]) == 2


def test_without_matplotlib_one_clear_line(run_folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib.figure'] = None\n"
        "from fastamr import cli\n"
        f"sys.exit(cli.main(['plot', {str(run_folder)!r}, '--out', {str(tmp_path / 'out')!r}]))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr == "error: pictures need matplotlib: pip install 'fastamr[viz]'\n"
    assert not (tmp_path / "out").exists()
