from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastamr.data
from fastamr.data import PackedSkeletons, Split, concatenate, import_file, load
from fastamr.skeleton import get_layout


def make(seed: int, clips: int = 2, **fields: Any) -> PackedSkeletons:
    rng = np.random.default_rng(seed)
    arrays = [rng.uniform(-1, 1, size=(3 + place, 1 + place, 17, 3)) for place in range(clips)]
    return PackedSkeletons.from_clips(arrays, layout="coco17", **fields)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An npz file of two sequences with 3 and 5 frames, 3 m in front of the camera."""
    layout = get_layout("kinect20")
    path = tmp_path / "motion.npz"
    np.savez(
        path,
        x=np.random.default_rng(0).normal(size=(8, 1, 20, 3)) * 0.3 + 3.0,
        offsets=np.array([0, 3, 8]),
        label=np.array([1, 0]),
        joint_names=np.array(layout.joints),
        parents=np.array(layout.parents),
    )
    return path


class TestConcatenate:
    def test_everything_follows(self) -> None:
        one = make(0, names=["a", "b"], fps=30.0)
        two = dataclasses.replace(make(1, 3), body_start=torch.arange(6), dropped={"gone": "no frames"})
        both = concatenate([one, two])
        assert (both.num_clips, both.num_bodies) == (5, 9)
        assert torch.equal(both.coords, torch.cat([one.coords, two.coords]))
        assert both.offsets.tolist() == [0, 3, 7, 11, 14, 18, 22, 27, 32, 37]
        assert both.body_clip.tolist() == [0, 1, 1, 2, 3, 3, 4, 4, 4]
        assert both.body_start.tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5]
        assert both.names == ["a", "b", "clip0", "clip1", "clip2"]
        assert both.fps[:2].tolist() == [30, 30]
        assert both.fps[2:].isnan().all()
        assert both.dropped == {"gone": "no frames"}
        assert torch.equal(both.select([2, 3, 4]).coords, two.coords)

    def test_classes_are_unified_by_name(self) -> None:
        one = make(0, labels=[0, 1], label_names=["sit", "walk"])
        two = make(1, labels=[1, 0], label_names=["walk", "run"])
        both = concatenate([one, two])
        assert both.label_names == ("sit", "walk", "run")
        assert both.labels.tolist() == [0, 1, 2, 1]

    def test_unnamed_classes_beside_named_ones_are_unknown_on_request(self) -> None:
        sets = [make(0, labels=[0, -1], label_names=["sit"]), make(1, labels=[0, 1])]
        both = concatenate(sets, unnamed="unknown")
        assert both.labels.tolist() == [0, -1, -1, -1]

    def test_unnamed_classes_keep_their_numbers(self) -> None:
        both = concatenate([make(0, labels=[4, 2]), make(1, labels=[2, -1])])
        assert both.labels.tolist() == [4, 2, 2, -1]
        assert both.label_names == ()

    def test_columns_and_splits_are_the_union(self) -> None:
        mask = torch.tensor([True, False])
        one = make(
            0, columns={"subject": ["x", "y"], "view": [1, 2]}, splits={"official": Split(mask, ~mask)}
        )
        two = make(
            1, columns={"subject": ["y", "z"], "speed": [0.5, 2.0]}, splits={"fold0": Split(~mask, mask)}
        )
        both = concatenate([one, two])
        assert both.columns["subject"].tolist() == [0, 1, 1, 2]
        assert both.column_names == {"subject": ("x", "y", "z")}
        assert both.columns["view"].tolist() == [1, 2, -1, -1]
        assert both.columns["speed"].tolist() == [-1, -1, 0.5, 2.0]
        assert both.splits["official"].train.tolist() == [True, False, False, False]
        assert both.splits["official"].test.tolist() == [False, True, False, False]
        assert both.splits["fold0"].test.tolist() == [False, False, True, False]

    def test_missing_joints(self) -> None:
        one, two = make(0), make(1)
        seen = torch.rand(two.num_frames, 17) < 0.5
        both = concatenate([one, dataclasses.replace(two, valid=seen)])
        assert both.valid is not None
        assert both.valid[: one.num_frames].all()
        assert torch.equal(both.valid[one.num_frames :], seen)

    def test_dtype(self) -> None:
        one, two = make(0), make(1)
        assert concatenate([one.half(), two.half()]).coords.dtype == torch.float16
        assert concatenate([one.half(), two]).coords.dtype == torch.float32

    def test_steps(self) -> None:
        center, scale = {"name": "center"}, {"name": "scale"}
        one, two = (dataclasses.replace(make(seed), steps=(center,)) for seed in (0, 1))
        assert concatenate([one, two]).steps == (center,)
        mixed = concatenate([one, dataclasses.replace(two, steps=(center, scale))])
        assert mixed.steps == ({"name": "concatenate", "steps": [[center], [center, scale]]},)

    def test_what_does_not_fit(self) -> None:
        clip = np.ones((2, 1, 17, 3))
        with pytest.raises(ValueError, match=r"layouts 'coco17' .17 joints. and 'h36m17' .17 joints. differ"):
            concatenate([make(0), PackedSkeletons.from_clips([clip], layout="h36m17")])
        with pytest.raises(ValueError, match="3 and 2 channels"):
            concatenate([make(0), PackedSkeletons.from_clips([clip[..., :2]], layout="coco17")])
        with pytest.raises(ValueError, match="sets is empty"):
            concatenate([])


class TestLoad:
    def test_a_data_set_passes_through(self) -> None:
        data = make(0)
        assert load(data) is data
        assert load([data]) is data

    def test_files_and_lists_of_them(self, tmp_path: Path) -> None:
        one, two = make(0), make(1, 3)
        one.save(tmp_path / "one.safetensors")
        assert load(tmp_path / "one.safetensors").fingerprint() == one.fingerprint()
        assert load(str(tmp_path / "one.safetensors")).num_clips == 2
        both = load([tmp_path / "one.safetensors", two])
        assert both.fingerprint() == concatenate([one, two]).fingerprint()

    def test_synthetic(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from fastamr.data.synthetic import dataset as synthetic

        data = make(0)
        monkeypatch.setattr(synthetic, "synthetic_actions", lambda: data)
        assert load("synthetic") is data

    def test_what_cannot_be_opened(self, source: Path) -> None:
        with pytest.raises(FileNotFoundError, match="did you mean 'synthetic'"):
            load("syntetic")
        with pytest.raises(FileNotFoundError, match="no packed data file"):
            load("nothing.safetensors")
        with pytest.raises(ValueError, match=r"not a packed data file.*fastamr import"):
            load(source)
        with pytest.raises(ValueError, match="empty"):
            load([])


class TestImportFile:
    def test_steps_and_summary(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.safetensors"
        summary = import_file(source, out, steps=["center:frame=every", "align_body"])
        assert summary["clips"] == 2
        assert [step["name"] for step in summary["steps"]] == ["center", "align_body"]
        data = load(out)
        assert data.layout.name == "kinect20"
        assert data.coords[:, 0].abs().max() == 0
        assert data.summary() == summary

    def test_float16(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.safetensors"
        with pytest.raises(ValueError, match=r"clip 0 \('clip0'\), frame 0: .* does not fit float16"):
            import_file(source, out, dtype="float16")
        assert not out.exists()
        summary = import_file(source, out, steps=["center:frame=every"], dtype="float16")
        assert summary["dtype"] == "float16"
        with pytest.raises(ValueError, match=r"unknown dtype 'float61'.*did you mean 'float16'"):
            import_file(source, out, dtype="float61")

    def test_the_kind_is_told_from_the_arrays(self, tmp_path: Path) -> None:
        path = tmp_path / "ntu.npz"
        np.savez(
            path,
            x_train=np.ones((2, 4, 150), dtype=np.float32),
            y_train=np.eye(2),
            x_test=np.ones((1, 4, 150), dtype=np.float32),
            y_test=np.eye(2)[:1],
        )
        assert import_file(path, tmp_path / "out.safetensors")["splits"] == {
            "official": {"train": 2, "test": 1}
        }

    def test_bad_files(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.safetensors"
        with pytest.raises(FileNotFoundError, match=r"no file .*none\.npz to import"):
            import_file(tmp_path / "none.npz", out)
        foreign = tmp_path / "foreign.npz"
        np.savez(foreign, weights=np.ones(3))
        with pytest.raises(
            ValueError, match=r"holds the arrays weights \(3,\); expected x, offsets or x_train"
        ):
            import_file(foreign, out)
        foreign.write_text("frame,joint,x\n")
        with pytest.raises(ValueError, match="no npz archive"):
            import_file(foreign, out)
        with pytest.raises(ValueError, match="did you mean 'center'"):
            import_file(source, out, steps=["centre"])
        assert not out.exists()

    @pytest.mark.parametrize("name", ["nw_ucla", "hdm05_11class", "sbu_interaction"])
    def test_real_data_sets(self, shared_data: Path, tmp_path: Path, name: str) -> None:
        out = tmp_path / "out.safetensors"
        import_file(shared_data / name / f"{name}.npz", out, steps=["center", "align_body"])
        data = load(out)
        layout = data.layout
        assert layout.hips is not None
        assert layout.spine is not None
        first = data.coords[data.offsets[:-1]]
        hips = first[:, layout.hips[0]] - first[:, layout.hips[1]]
        spine = first[:, layout.spine[1]] - first[:, layout.spine[0]]
        assert first[:, layout.root].abs().max() < 1e-6
        # A few clips of NW-UCLA begin with both hips in one place; a later frame decides for them.
        sound = hips.norm(dim=1) > 0.1 * spine.norm(dim=1)
        assert sound.float().mean() > 0.99
        assert hips[sound, 1:].abs().max() < 1e-5
        assert hips[sound, 0].min() > 0
        assert spine[sound, 2].abs().max() < 1e-5
        assert spine[sound, 1].min() > 0


def test_reading_files_does_not_load_the_generator() -> None:
    code = "import sys, fastamr.data; assert 'fastamr.data.synthetic.dataset' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_public_names() -> None:
    for name in fastamr.data.__all__:
        assert callable(getattr(fastamr.data, name))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = fastamr.data.lode
