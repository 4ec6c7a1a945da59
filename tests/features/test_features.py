from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastamr.data import PackedSkeletons
from fastamr.evaluation import extract_features
from fastamr.features import cache as feature_cache
from fastamr.skeleton import get_layout


def _by_hand(encoder, data, frames=8):
    """Features of each clip: central 95 %, linear resize with numpy, mean over the bodies."""
    found = []
    for clip in range(data.num_clips):
        vectors = []
        for body in (data.body_clip == clip).nonzero()[:, 0].tolist():
            x = data.coords[data.offsets[body] : data.offsets[body + 1]].double().numpy()
            skip = int(0.05 * len(x) / 2)
            x = x[skip : len(x) - skip]
            place = np.clip((np.arange(frames) + 0.5) * len(x) / frames - 0.5, 0, len(x) - 1)
            left = np.floor(place).astype(int)
            share = (place - left)[:, None, None]
            x = x[left] * (1 - share) + x[np.minimum(left + 1, len(x) - 1)] * share
            mean = torch.tensor(x.mean(0).reshape(-1))
            vectors.append(encoder.linear.weight.double() @ mean + encoder.linear.bias.double())
        found.append(torch.stack(vectors).mean(0))
    return torch.stack(found)


@pytest.mark.parametrize("batch_size", [1, 5, 256])
def test_features_are_means_over_frames_and_bodies(encoder, make_data, batch_size):
    data = make_data(clips=11, lengths=(5, 9, 1, 45))
    features = extract_features(encoder, data, batch_size=batch_size)
    assert features.dtype == torch.float32
    assert features.shape == (11, 5)
    torch.testing.assert_close(features.double(), _by_hand(encoder, data), rtol=1e-5, atol=1e-5)


def test_no_autograd_and_the_mode_comes_back(encoder, make_data):
    for training in (True, False):
        encoder.train(training)
        assert not extract_features(encoder, make_data(clips=3)).requires_grad
        assert encoder.training is training
        assert encoder.calls[-1][2] is False


def test_mode_comes_back_after_an_error(encoder, make_data, monkeypatch):
    encoder.train()
    monkeypatch.setattr(encoder, "features", lambda clips: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        extract_features(encoder, make_data(clips=3))
    assert encoder.training


def test_field_averages_the_empty_body_too(encoder, make_data):
    data = make_data(clips=4, bodies=(1, 2, 3))
    existing, field = (extract_features(encoder, data, bodies=kind) for kind in ("existing", "field"))
    empty = encoder.linear.bias.detach()  # the features of an all-zero clip
    torch.testing.assert_close(field[0], (existing[0] + empty) / 2)
    torch.testing.assert_close(field[1:3], existing[1:3])


def test_missing_joints_reach_the_model(encoder, make_data):
    valid = [np.ones((5, 1, 4), bool) for _ in range(2)]
    valid[0][2, 0, 3] = False
    data = make_data(clips=2, bodies=(1,), lengths=(5,), valid=valid)
    encoder.frames = 10
    extract_features(encoder, data)
    seen = encoder.calls[-1][1]
    assert seen.dtype == torch.bool
    # Five frames become ten: new frame t lies at t/2 - 1/4, so frame 2 takes part in new frames 3, 4, 5 and 6.
    expected = torch.ones(2, 10, 4, dtype=torch.bool)
    expected[0, 3:7, 3] = False
    assert torch.equal(seen, expected)


def test_without_missing_joints_no_mask_is_passed(encoder, make_data):
    extract_features(encoder, make_data(clips=2))
    assert encoder.calls[-1][1] is None


def test_half_precision_autocast_is_close_and_float32(encoder, make_data):
    data = make_data(clips=5)
    plain, half = extract_features(encoder, data), extract_features(encoder, data, dtype=torch.bfloat16)
    assert half.dtype == torch.float32
    assert not torch.equal(plain, half)
    torch.testing.assert_close(half, plain, rtol=0.03, atol=0.03)


class TestCache:
    def test_second_call_does_not_encode(self, encoder, make_data, tmp_path):
        data = make_data(clips=5)
        first = extract_features(encoder, data, cache=tmp_path / "features")
        count = len(encoder.calls)
        assert torch.equal(extract_features(encoder, data, cache=tmp_path / "features"), first)
        assert len(encoder.calls) == count
        assert len(list((tmp_path / "features").iterdir())) == 1

    @pytest.mark.parametrize("what", ["weights", "data", "labels", "bodies", "crop", "frames", "dtype"])
    def test_every_dependence_changes_the_key(self, encoder, make_data, tmp_path, what):
        data, settings = make_data(clips=5), {}
        extract_features(encoder, data, cache=tmp_path)
        if what == "weights":
            with torch.no_grad():
                encoder.linear.bias[0] += 1e-3
        elif what == "data":
            data.coords[3, 1, 2] += 1e-3
        elif what == "labels":
            data = dataclasses.replace(data, labels=data.labels.flip(0))
        elif what == "frames":
            encoder.frames = 4
        else:
            settings = {what: {"bodies": "field", "crop": 0.9, "dtype": torch.bfloat16}[what]}
        extract_features(encoder, data, cache=tmp_path, **settings)
        assert len(list(tmp_path.iterdir())) == 2

    @pytest.mark.parametrize("damage", ["truncated", "empty", "foreign", "other clips", "other type"])
    def test_a_damaged_file_is_computed_anew(self, encoder, make_data, tmp_path, damage):
        data = make_data(clips=5)
        expected = extract_features(encoder, data, cache=tmp_path)
        (path,) = tmp_path.iterdir()
        header = {"format": feature_cache.FORMAT}
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:-9])
        elif damage == "empty":
            path.write_bytes(b"")
        elif damage == "foreign":
            save_file({"weights": torch.zeros(3)}, path)
        elif damage == "other clips":
            save_file({"features": torch.zeros(4, 5)}, path, header)
        else:
            save_file({"features": torch.zeros(5, 5, dtype=torch.float64)}, path, header)
        with pytest.warns(UserWarning, match="damaged"):
            again = extract_features(encoder, data, cache=tmp_path)
        assert torch.equal(again, expected)
        assert torch.equal(load_file(path)["features"], expected)

    def test_a_folder_that_cannot_be_written_costs_only_a_warning(self, encoder, make_data, tmp_path):
        (tmp_path / "file").write_text("in the way")
        with pytest.warns(UserWarning, match="could not be cached"):
            features = extract_features(encoder, make_data(clips=3), cache=tmp_path / "file" / "features")
        assert features.shape == (3, 5)

    def test_nothing_is_left_beside_the_file(self, encoder, make_data, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            extract_features(encoder, make_data(clips=3), cache=tmp_path)
        assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_layouts_must_agree(encoder, make_data):
    encoder.layout = get_layout("ntu25")
    message = (
        r"layout 'ntu25' \(25 joints\), the data has 'cross4' \(4 joints\): .*convert IN OUT --layout ntu25"
    )
    with pytest.raises(ValueError, match=message):
        extract_features(encoder, make_data(clips=2))


def test_channels_must_agree(encoder, make_data):
    data = make_data(clips=2)
    encoder.config = type("Config", (), {"channels": 3, "to_dict": lambda self: {}})()
    flat = dataclasses.replace(data, coords=data.coords[..., :2].contiguous())
    for layout in ("cross4", "ntu25"):  # channels are told first: no command maps them
        encoder.layout = encoder.layout if layout == "cross4" else get_layout(layout)
        with pytest.raises(ValueError, match="built for 3 channels, the data has 2"):
            extract_features(encoder, flat)


def test_a_clip_without_a_body_is_named(encoder, make_data):
    data: PackedSkeletons = make_data(clips=3, bodies=(1,))
    data.body_clip[1] = 0  # past the checks of the constructor
    with pytest.raises(ValueError, match=r"clip 1 \('clip1'\) has no body"):
        extract_features(encoder, data)


@pytest.mark.parametrize(
    ("setting", "message"), [({"bodies": "al"}, "unknown bodies"), ({"batch_size": 0}, "batch_size=0")]
)
def test_options_are_checked(encoder, make_data, setting, message):
    with pytest.raises(ValueError, match=message):
        extract_features(encoder, make_data(clips=2), **setting)
