from __future__ import annotations

import pytest

from fastamr.errors import check_name, unknown_name


def test_unknown_name_lists_the_valid_names_and_the_nearest() -> None:
    error = unknown_name("layout", "ntu52", ["ntu25", "coco17"])
    assert isinstance(error, ValueError)
    assert str(error) == "unknown layout 'ntu52': expected one of 'coco17', 'ntu25'; did you mean 'ntu25'?"


def test_unknown_name_without_a_near_one_gives_no_hint() -> None:
    assert "did you mean" not in str(unknown_name("layout", "xyz", ["ntu25"]))
    assert "None" in str(unknown_name("layout", None, ["ntu25"]))


def test_check_name() -> None:
    check_name("frame", "first", ("first", "every"))
    with pytest.raises(ValueError, match=r"unknown frame 'frist': .* did you mean 'first'"):
        check_name("frame", "frist", iter(("first", "every")))
