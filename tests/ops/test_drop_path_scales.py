"""Which branches a sequence keeps: the rule written out, what a choice depends on, shares, and refusals."""

from __future__ import annotations

import pytest
import torch

from fastamr import ops
from fastamr.reference.philox import STREAM_DROP_PATH, philox_words

RATES = [0.0, 0.1, 0.5, 0.99, 1 - 1e-12]


def seed(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def test_the_rule_written_out() -> None:
    words = philox_words(seed(5, 3), torch.arange(40), len(RATES), STREAM_DROP_PATH)
    found = ops.drop_path_scales(seed(5, 3), RATES, 40)
    assert found.dtype == torch.float32
    for row in range(40):
        for branch, rate in enumerate(RATES):
            stays = words[row, branch].item() / 2**32 >= rate
            expected = torch.tensor(1 / (1 - rate) if stays else 0.0, dtype=torch.float64).float()
            assert found[branch, row] == expected


def test_nothing_is_dropped_at_rate_0_and_everything_near_1() -> None:
    found = ops.drop_path_scales(seed(1, 0), RATES, 2000)
    assert (found[0] == 1).all()
    assert (found[-1] == 0).all()


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_shares_and_mean(rate: float) -> None:
    """Within four standard deviations: the mean factor is 1, over sequences and over seeds."""
    count = 20_000
    rows = ops.drop_path_scales(seed(7, 0), [rate, rate], count)
    steps = torch.stack(
        [ops.drop_path_scales(seed(7, step), [rate, rate], 10) for step in range(count // 10)]
    )
    error = 4 * (rate / (1 - rate) / count) ** 0.5
    for values in (rows[0], rows[1], steps[:, 0], steps[:, 1]):
        assert values.double().mean() == pytest.approx(1, abs=error)
    both = ((rows[0] == 0) & (rows[1] == 0)).double().mean()
    assert both == pytest.approx(rate**2, abs=4 * (rate**2 / count) ** 0.5), "branches are independent"


def test_what_a_choice_depends_on() -> None:
    """Neither on other branches' rates nor on the number of sequences; a part draws what the whole draws."""
    whole = ops.drop_path_scales(seed(3, 8), [0.5] * 6, 64)
    assert torch.equal(whole, ops.drop_path_scales(seed(3, 8), [0.5] * 6, 64))
    assert torch.equal(whole[1:3, :5], ops.drop_path_scales(seed(3, 8), [0.0, 0.5, 0.5, 0.2], 5)[1:3])
    assert torch.equal(whole[:, 48:], ops.drop_path_scales(seed(3, 8, 48), [0.5] * 6, 16))
    for other in (seed(3, 9), seed(4, 8)):
        assert not torch.equal(whole, ops.drop_path_scales(other, [0.5] * 6, 64))
    assert len({tuple(row.tolist()) for row in whole}) == 6


def test_empty() -> None:
    assert ops.drop_path_scales(seed(0, 0), [], 4).shape == (0, 4)
    assert ops.drop_path_scales(seed(0, 0), [0.1], 0).shape == (1, 0)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"rates holds 1.0: each must be at least 0 and below 1"):
        ops.drop_path_scales(seed(0, 0), [0.1, 1.0], 4)
    with pytest.raises(ValueError, match=r"rates holds nan"):
        ops.drop_path_scales(seed(0, 0), [float("nan")], 4)
    with pytest.raises(ValueError, match="sequences=-1 must be at least 0"):
        ops.drop_path_scales(seed(0, 0), [0.1], -1)
    with pytest.raises(TypeError, match="seed must be of dtype int64"):
        ops.drop_path_scales(seed(0, 0).int(), [0.1], 4)
    with pytest.raises(ValueError, match="seed"):
        ops.drop_path_scales(seed(0), [0.1], 4)
