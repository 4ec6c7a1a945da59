from __future__ import annotations

import numpy as np
import pytest
import torch

from fastamr.data import to_sequences


def test_sequences_follow_the_clips_and_leave_out_empty_bodies() -> None:
    batch = torch.zeros(3, 3, 5, 4, 2)
    batch[0, :, :, :, 0] = torch.randn(3, 5, 4)
    batch[1, 1, 4, 3, 1] = -2.0
    batch[2] = torch.randn(3, 5, 4, 2)
    clips, index = to_sequences(batch)
    assert clips.shape == (4, 5, 4, 3)
    assert index.tolist() == [0, 1, 2, 2]
    for place, (clip, body) in enumerate([(0, 0), (1, 1), (2, 0), (2, 1)]):
        for frame in range(5):
            for joint in range(4):
                assert torch.equal(clips[place, frame, joint], batch[clip, :, frame, joint, body])


def test_empty_bodies_can_be_kept() -> None:
    clips, index = to_sequences(torch.zeros(2, 2, 5, 4, 3), keep_empty_bodies=True)
    assert clips.shape == (6, 5, 4, 2)
    assert index.tolist() == [0, 0, 0, 1, 1, 1]
    assert index.dtype == torch.int64


def test_values_keep_dtype_and_gradient() -> None:
    batch = torch.ones(2, 3, 5, 4, 1, dtype=torch.float64, requires_grad=True)
    clips, _ = to_sequences(batch)
    assert clips.dtype == torch.float64
    clips.sum().backward()
    assert batch.grad is not None
    assert torch.equal(batch.grad, torch.ones_like(batch))


def test_a_body_of_nan_is_not_mistaken_for_an_empty_one() -> None:
    clips, _ = to_sequences(torch.full((1, 3, 2, 4, 1), float("nan")))
    assert clips.shape[0] == 1


def test_bad_batches() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 5, 4, 2\), expected \(N, C, T, V, M\)"):
        to_sequences(torch.ones(3, 5, 4, 2))
    with pytest.raises(ValueError, match="batch has 25 channels"):
        to_sequences(torch.ones(2, 25, 8, 3, 1))
    with pytest.raises(ValueError, match="holds no body"):
        to_sequences(torch.zeros(2, 3, 5, 4, 2))
    with pytest.raises(ValueError, match="holds no body"):
        to_sequences(torch.zeros(0, 3, 5, 4, 2), keep_empty_bodies=True)
    with pytest.raises(TypeError, match=r"torch\.int64"):
        to_sequences(torch.ones(2, 3, 5, 4, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match="ndarray"):
        to_sequences(np.ones((2, 3, 5, 4, 2)))  # type: ignore[arg-type]
