"""The tool that compares a step with its products alone."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

TOOL = Path(__file__).resolve().parents[2] / "tools" / "measure_floor.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_floor", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(TOOL.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(TOOL.parent))
    return module


def event(name: str, shapes: list[list[int]], seconds: float, parent: object = None) -> SimpleNamespace:
    return SimpleNamespace(name=name, input_shapes=shapes, cpu_time_total=seconds * 1e6, cpu_parent=parent)


def test_products_are_found_by_shape(tool: ModuleType) -> None:
    outer = event("fastamr::visible_attention", [], 4.0)
    events = [
        event("aten::mm", [[6, 3], [3, 5]], 1.0),
        event("aten::addmm", [[5], [6, 3], [3, 5]], 1.0),
        event("mkldnn::_linear_pointwise", [[2, 3, 3], [5, 3]], 0.5),
        event("aten::bmm", [[8, 3, 3], [8, 3, 3]], 9.0),
        outer,
        event("aten::_scaled_dot_product_flash_attention_for_cpu", [], 3.0, outer),
    ]
    shapes, seconds, attention = tool.found_products(events)
    assert shapes == {tool.Product(6, 3, 5): 3}
    assert (seconds, attention) == (pytest.approx(2.5), pytest.approx(4.0))
    assert tool.Product(6, 3, 5).operations == 180


def test_every_form_is_the_product(tool: ModuleType) -> None:
    torch.manual_seed(0)
    ways = tool.forms(tool.Product(6, 3, 5), torch.float32)
    assert len(ways) >= 4
    found = [way() for way in ways]
    assert all(one.shape == (6, 5) for one in found)
    for one in found[1:]:
        torch.testing.assert_close(one, found[0])


def test_a_step_is_measured(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    tool.main(["--sizes", "tiny", "--rounds", "1"])
    row = capsys.readouterr().out.strip().splitlines()[-1].split("|")
    step, floor, rate = (float(cell) for cell in row[2:5])
    assert 0 < floor <= step
    assert rate > 0
