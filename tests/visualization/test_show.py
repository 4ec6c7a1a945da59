"""Animations and strips: what is drawn, where it is written, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fastamr import AMRModel, cli
from fastamr.data import PackedSkeletons, preprocess, synthetic_actions
from fastamr.models import SkeletonMAEModel, SkeletonModel
from fastamr.visualization.clip import Clip, find_clip, read_clip
from fastamr.visualization.overlays import guidance_overlay, mask_overlay, model_clip
from fastamr.visualization.reconstruction import Target, from_patches, predict, rebuild
from fastamr.visualization.skeleton_drawing import Stage, joint_sides, upward

SMALL = {"width": 16, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}


@pytest.fixture(scope="module")
def data() -> PackedSkeletons:
    return synthetic_actions(12, seed=0, frames=(18, 30), drop_joints=0.0)


@pytest.fixture(scope="module")
def file(data: PackedSkeletons, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("show") / "data.safetensors"
    data.save(path)
    return path


def two_bodies(channels: int = 3) -> PackedSkeletons:
    clip = np.random.default_rng(0).normal(size=(9, 2, 17, channels)).astype(np.float32)
    clip[:4, 1] = 0
    return PackedSkeletons.from_clips([clip], layout="coco17", names=["pair"])


def test_clip_is_found_by_name_and_number(data: PackedSkeletons) -> None:
    assert find_clip(data, data.names[3]) == find_clip(data, "3") == 3
    with pytest.raises(ValueError, match="did you mean"):
        find_clip(data, data.names[3][:-1] + "x")
    with pytest.raises(ValueError, match="clips 0 to 11"):
        find_clip(data, "12")


def test_what_is_absent_is_not_drawn() -> None:
    clip = read_clip(two_bodies(), 0)
    assert clip.coords.shape == (9, 2, 17, 3)
    assert np.isnan(clip.coords[:4, 1]).all()
    assert np.isfinite(clip.coords[4:]).all()
    part = clip.part(2, 5)
    assert len(part.coords) == 3
    assert part.times.tolist() == [2, 3, 4]
    with pytest.raises(ValueError, match="frames 7 to 7"):
        clip.part(7, 7)


def test_limits_hold_the_clip_and_up_is_up() -> None:
    clip = read_clip(two_bodies(), 0)
    stage = Stage(clip, up="y")
    points = stage.coords[np.isfinite(stage.coords).all(axis=-1)]
    assert ((points > stage.low - 0.3) & (points < stage.high + 0.3)).all()
    assert np.allclose(stage.coords[0, 0, :, 2], clip.coords[0, 0, :, 1]), "y is drawn upwards"
    assert np.allclose(Stage(clip, up="z").coords[0, 0], clip.coords[0, 0])
    assert np.allclose(Stage(clip, up="-y").coords[0, 0, :, 2], -clip.coords[0, 0, :, 1])
    with pytest.raises(ValueError, match="no frame with a body"):
        Stage(Clip(np.full((3, 1, 17, 3), np.nan, dtype=np.float32), clip.layout))


def test_trunk_tells_what_is_up(data: PackedSkeletons) -> None:
    clip = read_clip(data, 0)
    assert upward(clip) == "y"
    clip.coords[..., 1] *= -1
    assert upward(clip) == "-y"
    clip.coords = clip.coords[..., [0, 2, 1]] * np.array([1, 1, -1], dtype=np.float32)
    assert upward(clip) == "z"


def test_sides() -> None:
    sides = joint_sides(read_clip(two_bodies(), 0).layout)
    assert sides[0] == "trunk"
    assert (sides.count("left"), sides.count("right")) == (8, 8)


@pytest.mark.parametrize("options", [[], ["--mask"], ["--guidance"]], ids=["plain", "mask", "guidance"])
def test_strip(file: Path, tmp_path: Path, options: list[str]) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "clip.svg"
    assert cli.main(["show", str(file), "--clip", "1", "--out", str(out), "--frames", "3", *options]) == 0
    text = out.read_text()
    for word in ("frame 0", "x (m)", "y (m)", "left", "right", "trunk"):
        assert f"<!-- {word}" in text, word
    assert ("visible token" in text) == ("--mask" in options)
    assert ("larger = larger marker" in text) == ("--guidance" in options)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.svg"]


@pytest.mark.parametrize("channels", [2, 3])
def test_two_bodies_in_the_plane_and_in_space(tmp_path: Path, channels: int) -> None:
    pytest.importorskip("matplotlib")
    two_bodies(channels).save(tmp_path / "pair.safetensors")
    arguments = ["show", str(tmp_path / "pair.safetensors"), "--clip", "pair", "--frames", "2", "--unit", ""]
    assert cli.main([*arguments, "--out", str(tmp_path / "pair.svg")]) == 0
    text = (tmp_path / "pair.svg").read_text()
    assert "<!-- pair -->" in text
    assert "second body" in text
    assert ("<!-- z -->" in text or "<!-- -z -->" in text) == (channels == 3)


def test_animation_has_the_asked_frames_and_rate(file: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    out = tmp_path / "clip.gif"
    arguments = ["show", str(file), "--start", "3", "--stop", "8", "--fps", "10", "--out", str(out)]
    assert cli.main(arguments) == 0
    with image.open(out) as movie:
        assert movie.n_frames == 5
        assert movie.info["duration"] == 100
        first = np.asarray(movie.convert("RGB")).copy()
        movie.seek(4)
        assert (np.asarray(movie.convert("RGB")) != first).any()
    assert [path.name for path in tmp_path.iterdir()] == ["clip.gif"]


def test_mp4_without_ffmpeg_is_one_clear_line(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("PATH", "")
    assert cli.main(["show", str(file), "--out", str(tmp_path / "clip.mp4")]) == 1
    error = capsys.readouterr().err
    assert "MP4 needs ffmpeg" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell for the stand-in of ffmpeg")
def test_mp4_goes_through_ffmpeg(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in of ffmpeg writes what it is given, so that frames and target are seen without it."""
    pytest.importorskip("matplotlib")
    tools = tmp_path / "tools"
    tools.mkdir()
    program = tools / "ffmpeg"
    program.write_text('#!/bin/sh\nfor last; do :; done\ncat > "$last"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}:{sys.prefix}/bin:/usr/bin:/bin")
    out = tmp_path / "clip.mp4"
    assert cli.main(["show", str(file), "--stop", "3", "--out", str(out)]) == 0
    assert out.stat().st_size == 3 * 576 * 540 * 4, "three frames of 6.4 by 6 inches at 90 pixels, RGBA"


def test_mask_overlay_is_the_models_choice(data: PackedSkeletons) -> None:
    model = AMRModel(frames=24, target_patches=6, **SMALL)
    seen = model_clip(data, 2, 24)
    seed = torch.tensor([7, 0])
    keep = model.choose_visible(seen.clips, seed=seed, valid=seen.valid)
    mask = mask_overlay(seen, ratio=0.9, patch_frames=4, seed=7).values
    assert mask.shape == (24, len(seen.clips), 25)
    assert mask.sum() == len(seen.clips) * keep.shape[1] * 4
    for body, tokens in enumerate(keep.tolist()):
        for token in tokens:
            assert mask[token // 25 * 4 : token // 25 * 4 + 4, body, token % 25].all()
    with pytest.raises(ValueError, match="patch_frames=5"):
        mask_overlay(seen, patch_frames=5)
    with pytest.raises(ValueError, match=r"ratio=1.0"):
        mask_overlay(seen, ratio=1.0)


def test_guidance_overlay_is_the_models_map(data: PackedSkeletons) -> None:
    model = AMRModel(frames=24, target_patches=6, **SMALL)
    seen = model_clip(data, 2, 24)
    assert model.guidance is not None
    weights = model.guidance(seen.clips, seen.valid)
    assert np.allclose(guidance_overlay(seen).values, weights.transpose(0, 1).numpy())


@pytest.mark.parametrize("model_class", [AMRModel, SkeletonMAEModel])
@pytest.mark.parametrize("target", ["motion", "joints"])
@pytest.mark.parametrize("normalize", ["sequence", "patch", "none"])
def test_a_perfect_prediction_is_the_truth(
    data: PackedSkeletons, model_class: type[SkeletonModel], target: str, normalize: str
) -> None:
    """The target that the loss itself compares with, brought back, is the clip: the loss of it is 0."""
    model = model_class(frames=24, target=target, normalize=normalize, stride=2, **SMALL)
    seen = model_clip(data, 1, 24)
    criterion = model.criterion
    made = Target.of(seen.clips, seen.valid, criterion)
    from fastamr.reference.weighted_reconstruction_loss import reconstruction_target

    patches, _ = reconstruction_target(
        seen.clips, target_frames=criterion.target_frames, target_joints=criterion.target_joints,
        valid=seen.valid, target=target, stride=2, normalize=normalize, eps=criterion.eps,
    )  # fmt: skip
    predicted = from_patches(patches, seen.clips.shape, criterion)
    assert torch.allclose(predicted, made.standardised, atol=1e-4)
    everywhere = torch.ones(seen.clips.shape[:3], dtype=torch.bool)
    assert torch.allclose(rebuild(predicted, seen.clips, made, criterion, everywhere), seen.clips, atol=1e-4)


def test_motion_is_added_up_from_the_start_of_each_patch(data: PackedSkeletons) -> None:
    model = AMRModel(frames=24, target_patches=3, normalize="none", **SMALL)
    seen = model_clip(data, 1, 24)
    made = Target.of(seen.clips, seen.valid, model.criterion)
    everywhere = torch.ones(seen.clips.shape[:3], dtype=torch.bool)
    step = torch.full_like(seen.clips, 0.1)
    result = rebuild(step, seen.clips, made, model.criterion, everywhere)
    for frame in range(24):
        start = frame // 12 * 12
        assert torch.allclose(result[:, frame], seen.clips[:, start] + 0.1 * (frame - start), atol=1e-5)


def test_unseen_joints_are_not_reconstructed() -> None:
    made = synthetic_actions(4, seed=0, frames=(24, 30), drop_joints=0.2)
    assert made.valid is not None
    seen = model_clip(made, 0, 24)
    assert seen.valid is not None
    prediction = predict(AMRModel(frames=24, target_patches=6, **SMALL), seen)
    drawn = np.isfinite(prediction.overlay.values).all(axis=-1)
    hidden = ~seen.valid.transpose(0, 1).numpy()
    assert hidden.any()
    assert not (drawn & hidden).any()
    assert drawn.any()
    assert "Mean distance 0." in prediction.overlay.text
    assert "(a prediction of 0: 0." in prediction.overlay.text


def test_skeleton_mae_shows_the_truth_in_visible_tokens(data: PackedSkeletons) -> None:
    model = SkeletonMAEModel(frames=24, **SMALL)
    seen = model_clip(data, 1, 24)
    prediction = predict(model, seen, seed=3)
    mask = mask_overlay(seen, seed=3, keep=prediction.keep).values
    apart = np.abs(prediction.overlay.values - seen.clips.transpose(0, 1).numpy()).max(axis=-1)
    assert apart[mask].max() < 1e-5
    assert apart[~mask].mean() > 1e-3


def test_reconstruction_by_command(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    AMRModel(frames=24, target_patches=6, **SMALL).save_pretrained(tmp_path / "run")
    out = tmp_path / "clip.svg"
    arguments = ["show", str(file), "--out", str(out), "--frames", "2"]
    assert cli.main([*arguments, "--checkpoint", str(tmp_path / "run")]) == 0
    text = out.read_text()
    for word in ("reconstruction", "prediction", "standardised motion a frame"):
        assert word in text, word
    assert cli.main([*arguments, "--reconstruction"]) == 2
    assert cli.main([*arguments, "--mask", "--guidance"]) == 2
    AMRModel("kinect20", frames=24, target_patches=6, **SMALL).save_pretrained(tmp_path / "other")
    assert cli.main([*arguments, "--checkpoint", str(tmp_path / "other")]) == 1
    assert "kinect20" in capsys.readouterr().err


def test_a_model_of_another_kind_is_refused(data: PackedSkeletons) -> None:
    with pytest.raises(ValueError, match="cannot be brought back to coordinates"):
        predict(SkeletonModel("ntu25", 24), model_clip(data, 0, 24))


def test_wrong_names_are_told(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["show", str(file), "--out", str(tmp_path / "clip.gfi")]) == 1
    assert "did you mean 'gif'" in capsys.readouterr().err
    assert cli.main(["show", str(file), "--out", str(file / "clip.gif")]) == 1
    assert f"{file} is a file: name another folder" in capsys.readouterr().err


def test_missing_folders_are_made_when_there_is_something_to_draw(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("clip.gif", "clip.png"):
        out = tmp_path / f"new {name}" / "er" / name
        assert cli.main(["show", str(file), "--clip", "none", "--out", str(out)]) == 1
        assert not out.parent.parent.exists()
        assert cli.main(["show", str(file), "--stop", "4", "--frames", "2", "--out", str(out)]) == 0
        assert out.stat().st_size > 0


def test_without_matplotlib_one_clear_line(file: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib.figure'] = None\n"
        "from fastamr import cli\n"
        f"sys.exit(cli.main(['show', {str(file)!r}, '--out', {str(tmp_path / 'a.png')!r}]))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr == "error: pictures need matplotlib: pip install 'fastamr[viz]'\n"
    assert run.returncode == 1


def gymnast(y: float = 1.0) -> np.ndarray:
    """A person upside down in an image ``(T, M, V, 2)``: the hips above the shoulders."""
    clip = np.random.default_rng(0).uniform(100, 110, (4, 1, 17, 2)).astype(np.float32)
    clip[..., [11, 12], 1] = 60
    return clip * np.array([1, y], dtype=np.float32)


class TestPointsOfImages:
    @pytest.mark.parametrize(
        ("steps", "up", "unit"),
        [
            ([], "-y", "px"),
            (["center"], "-y", "px"),
            (["flip"], "y", "px"),
            (["flip", "flip"], "-y", "px"),
            (["flip:axes=x"], "-y", "px"),
            (["flip", "center", "scale:unit=torso"], "y", ""),
            (["scale:factor=0.5"], "-y", ""),
            (["align_body"], "y", "px"),
            (["fit_box"], "-y", ""),
        ],
    )
    def test_up_and_unit(self, steps: list[str], up: str, unit: str) -> None:
        data = preprocess(PackedSkeletons.from_clips([gymnast()], layout="coco17"), steps)
        clip = read_clip(data, 0)
        assert (upward(clip), clip.up, clip.unit) == (up, up, unit)
        assert model_clip(data, 0, 8).shown.up == up

    def test_shares_of_an_image_are_no_pixels(self) -> None:
        clip = read_clip(PackedSkeletons.from_clips([gymnast() / 640], layout="coco17"), 0)
        assert (clip.up, clip.unit) == ("-y", "")

    def test_space_is_metres_and_goes_by_the_trunk(self, data: PackedSkeletons) -> None:
        assert (read_clip(data, 0).up, read_clip(data, 0).unit) == ("", "m")
        assert read_clip(preprocess(data, ["scale:unit=torso"]), 0).unit == ""
        millimetres = dataclasses.replace(data, coords=data.coords.float() * 1000)
        assert read_clip(millimetres, 0).unit == "", "no unit is told that cannot be right"

    def test_by_command(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        PackedSkeletons.from_clips([gymnast()], layout="coco17").save(tmp_path / "a.safetensors")
        words = ["show", str(tmp_path / "a.safetensors"), "--frames", "1", "--out", str(tmp_path / "a.svg")]
        for more, shown in (
            ([], ("x (px)", "-y (px)")),
            (["--up", "y", "--unit", "cm"], ("x (cm)", "y (cm)")),
        ):
            assert cli.main([*words, *more]) == 0
            text = (tmp_path / "a.svg").read_text()
            for word in shown:
                assert f"<!-- {word} -->" in text, word
