"""The parser of ``.mat`` files beside SciPy's, and what damage does to it."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st

from fastamr.data.readers.array_files.mat_variables import NewerVersionError, variables

TYPES = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")


def saved(content: dict[str, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, content, **options)
    return file.getvalue()


def parsed(content: bytes) -> dict[str, np.ndarray | None]:
    return {variable.name: variable.values for variable in variables(content)}


def random_arrays(seed: int, most_axes: int, types: tuple[str, ...] = TYPES) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        f"{kind}_{place}": (rng.standard_normal(rng.integers(1, 5, axes)) * 50).astype(kind)
        for place, kind in enumerate(types)
        for axes in [int(rng.integers(2, most_axes + 1))]
    }


@given(st.integers(0, 1000), st.booleans())
def test_the_same_as_scipy(seed: int, compressed: bool) -> None:
    content = saved(random_arrays(seed, 4), do_compression=compressed)
    expected = scipy.io.loadmat(io.BytesIO(content))
    for name, values in parsed(content).items():
        assert values is not None
        np.testing.assert_array_equal(values, expected[name])
        assert values.dtype == expected[name].dtype


@given(st.integers(0, 1000))
def test_version_4(seed: int) -> None:
    content = saved(
        random_arrays(seed, 2, ("f8", "f4", "i4", "i2", "u2", "u1")) | {"text": "jump"}, format="4"
    )
    expected = scipy.io.loadmat(io.BytesIO(content))
    found = parsed(content)
    assert len(found) == 7
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("compressed", [False, True])
def test_texts_and_what_is_not_read(compressed: bool) -> None:
    content = saved(
        {
            "word": "tennis serve", "rows": np.array(["ab", "cde"]), "strange": "sürü",
            "flags": np.array([[True, False]]), "cells": np.array([1, "a"], dtype=object), "inner": {"x": 1},
            "wave": np.array([[1 + 2j]]),
        },
        do_compression=compressed,
    )  # fmt: skip
    found = {name: values.tolist() for name, values in parsed(content).items() if values is not None}
    assert found.pop("rows") == ["ab ", "cde"]
    assert found == {"word": ["tennis serve"], "strange": ["sürü"], "flags": [[1, 0]]}
    kinds = {variable.name: variable.kind for variable in variables(content) if variable.values is None}
    assert kinds == {"cells": "cell", "inner": "struct", "wave": "complex double"}


def test_version_7_3() -> None:
    with pytest.raises(NewerVersionError):
        parsed(b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n")


@pytest.mark.parametrize("options", [{"do_compression": True}, {"do_compression": False}, {"format": "4"}])
def test_damage_is_an_error_and_takes_no_memory(options: dict[str, Any]) -> None:
    content = saved({"x": np.ones((5, 13)), "name": "hello", "n": np.arange(6).reshape(2, 3)}, **options)
    rng = random.Random(7)
    for _ in range(1500):
        damaged = bytearray(content)
        for _ in range(rng.choice((1, 2, 5))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if rng.random() < 0.2:
            del damaged[rng.randrange(len(damaged)) :]
        try:
            found = parsed(bytes(damaged))
        except ValueError:
            continue
        assert sum(values.nbytes for values in found.values() if values is not None) < 1 << 20
