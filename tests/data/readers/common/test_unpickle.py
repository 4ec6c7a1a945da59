from __future__ import annotations

import collections
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastamr.data.readers.common.unpickle import unpickle

PACKAGE = Path(__file__).parents[4] / "fastamr"
WITNESS = "FASTAMR_TEST_PICKLE_RAN"


def load(tmp_path: Path, content: bytes) -> Any:
    path = tmp_path / "some.pkl"
    path.write_bytes(content)
    return unpickle(path)


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


PLAIN = {
    "numbers": [1, -3, 2.5, 10**12, True, False, None],
    "texts": ["plain", "é", "", b"raw", b""],
    "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    "float16": np.arange(12, dtype=np.float16).reshape(3, 4),
    "fortran": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "big endian": np.arange(3, dtype=">i4"),
    "bools": np.array([[True], [False]]),
    "words": np.array(["ab", "c"]),
    "no elements": np.zeros((0, 2)),
    "no dimension": np.array(2.5),
    "scalar": np.float32(2.5),
    "word": np.str_("hi"),
    "ordered": collections.OrderedDict(a=1, b=[2]),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_survives(tmp_path: Path, protocol: int) -> None:
    content = PLAIN | {"again": PLAIN["fortran"]}
    found = load(tmp_path, pickle.dumps(content, protocol=protocol))
    assert list(found) == list(content)
    for name, value in content.items():
        if isinstance(value, np.ndarray):
            assert found[name].dtype == value.dtype, name
            np.testing.assert_array_equal(found[name], value)
        else:
            assert found[name] == value, name
            assert type(found[name]) in (type(value), dict), name
    assert found["again"] is found["fortran"]


@pytest.mark.parametrize("protocol", [2, 4, 5])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False)
        | st.text()
        | st.binary(),
        lambda inner: (
            st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner)
        ),
        max_leaves=20,
    )
)
def test_any_plain_value_survives(tmp_path: Path, protocol: int, value: Any) -> None:
    assert load(tmp_path, pickle.dumps(value, protocol=protocol)) == value


def test_a_value_that_occurs_twice_is_one_object(tmp_path: Path) -> None:
    shared = [1]
    found = load(tmp_path, pickle.dumps([shared, shared, {"x": shared}]))
    assert found[0] is found[1] is found[2]["x"]


ATTACKS: dict[str, bytes] = {
    "os.system": pickle.dumps(Calls(os.system, f"touch {WITNESS}")),
    "eval": pickle.dumps(Calls(eval, f"open({WITNESS!r}, 'w')")),
    "exec, protocol 2": pickle.dumps(Calls(exec, f"open({WITNESS!r}, 'w')"), protocol=2),
    "getattr chain": pickle.dumps(Calls(getattr, Calls(__import__, "os"), "system")),
    "attribute of an allowed name": b"\x80\x04" + text("numpy") + text("ndarray.tofile") + b"\x93.",
    "subprocess in a list": pickle.dumps([1, {"a": Calls(subprocess.call, ["touch", WITNESS])}]),
    "codec that runs code": b"\x80\x02c_codecs\nencode\n" + text("x") + text("idna") + b"\x86R.",
    "a function as value": b"\x80\x02]cnumpy\nndarray\na.",
    "numpy.load": pickle.dumps(Calls(np.load, WITNESS)),
    "numpy's other functions": b"\x80\x02cnumpy.core.multiarray\nfromfile\n" + text(WITNESS) + b"\x85R.",
    "ctypes": b"\x80\x02cctypes\nCDLL\n" + text("libc.so.6") + b"\x85R.",
    "object array": pickle.dumps(np.array([{"a": 1}, None], dtype=object)),
    "object array with a call": pickle.dumps(np.array([Calls(os.system, f"touch {WITNESS}")], dtype=object)),
    "structured array": pickle.dumps(np.zeros(2, dtype=[("a", "f4"), ("b", "O")])),
    "record of numbers": pickle.dumps(np.zeros(2, dtype=[("a", "f4")])),
    "dates": pickle.dumps(np.array(["2020-01-01"], dtype="datetime64[D]")),
    "masked array": pickle.dumps(np.ma.array([1, 2], mask=[0, 1])),
    "set": pickle.dumps({1, 2}),
    "an instance": pickle.dumps(Path("x")),
    "a class": pickle.dumps(collections.Counter),
    "default dictionary": pickle.dumps(collections.defaultdict(list)),
    "NEWOBJ": b"\x80\x02cnumpy\nndarray\n" + b"K\x05\x85\x85\x81.",
    "INST": b"(X\x01\x00\x00\x00xios\nsystem\n.",
    "OBJ": b"\x80\x02(cos\nsystem\n" + text("true") + b"o.",
    "persistent id": b"\x80\x02" + text("x") + b"Q.",
    "extension registry": b"\x80\x02\x82\x01.",
    "out-of-band buffer": b"\x80\x05\x97.",
    "state for a list": b"\x80\x02]}b.",
    "state for a name": b"\x80\x02cnumpy\nndarray\n}b.",
    "call of a text": b"\x80\x02" + text("os.system") + text("true") + b"\x85R.",
    "a tuple as key": b"\x80\x02}K\x01K\x02\x86K\x01s.",
    "dictionary made of pairs": b"\x80\x02ccollections\nOrderedDict\n]\x85R.",
    "items of a text": b"\x80\x02" + text("x") + text("a") + text("b") + b"s.",
    "appending to a tuple": b"\x80\x02)K\x01a.",
    "unfinished array": b"\x80\x02]cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
    + text("b")
    + b"\x87Ra.",
    "reconstruct another class": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n"
    + text("memmap") + b"K\x00\x85" + text("b") + b"\x87R.",
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_refused_and_run_nothing(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"some\.pkl, byte \d+: the pickle .*; only plain containers"):
        load(tmp_path, ATTACKS[name])
    assert not Path(WITNESS).exists()
    assert not (tmp_path / WITNESS).exists()


def array_pickle(shape: tuple[int, ...], code: str, order: str, raw: bytes, flags: int = 0) -> bytes:
    """A pickle of an array, put together by hand."""
    out = io.BytesIO()
    out.write(
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        + text("b")
        + b"\x87R(K\x01("
    )
    for size in shape:
        out.write(b"\x8a\x09" + size.to_bytes(9, "little", signed=True))
    out.write(
        b"tcnumpy\ndtype\n" + text(code) + b"\x89\x88\x87R(K\x03" + text(order) + b"NNNJ\xff\xff\xff\xff"
    )
    out.write(b"J\xff\xff\xff\xffK" + bytes([flags]) + b"tb\x89c_codecs\nencode\n")
    out.write(text(raw.decode("latin1")) + text("latin1") + b"\x86Rtb.")
    return out.getvalue()


def test_only_whole_names_are_known(tmp_path: Path) -> None:
    """A part of an allowed name, or a chain of attributes behind it, is another name."""
    for module, name in (
        ("numpy", "ndarray.tofile"),
        ("numpy", "ndarra"),
        ("numpy.core", "multiarray.scalar"),
    ):
        with pytest.raises(ValueError, match=f"the pickle names '{module}' '{name}'"):
            load(tmp_path, b"\x80\x04" + text(module) + text(name) + b"\x93.")


def test_fields_hidden_in_the_state_of_a_dtype(tmp_path: Path) -> None:
    sound = array_pickle((1,), "f4", "<", b"1234")
    assert sound.count(b"NNNJ") == 1
    for hidden in (b"N)NJ", b"NN}J", b")NNJ"):
        with pytest.raises(ValueError, match="has a structured dtype"):
            load(tmp_path, sound.replace(b"NNNJ", hidden))


def test_arrays_put_together_by_hand(tmp_path: Path) -> None:
    found = load(tmp_path, array_pickle((2, 1), "f4", "<", np.array([1, 2], "<f4").tobytes()))
    assert found.tolist() == [[1], [2]]
    # Flags that claim objects inside change nothing: the content is never taken for addresses.
    found = load(tmp_path, array_pickle((1,), "u8", "<", b"A" * 8, flags=63))
    assert found.tolist() == [0x4141414141414141]


@pytest.mark.parametrize(
    ("shape", "code", "order", "raw"),
    [
        ((3,), "f4", "<", b"12345678"),
        ((1 << 62, 4), "f4", "<", b""),
        ((10**9,), "f8", "<", b"12345678"),
        ((-1,), "f4", "<", b""),
        ((1,), "O", "|", b"A" * 8),
        ((1,), "O8", "|", b"A" * 8),
        ((1,), "V8", "|", b"A" * 8),
        ((1,), "f4,O", "|", b"A" * 12),
        ((1,), "f4", "x", b"1234"),
        ((1,), "U0", "<", b""),
        ((1,), "U999999999", "<", b"1234"),
        ((1,) * 40, "f4", "<", b"1234"),
    ],
)
def test_arrays_that_do_not_fit_their_bytes(
    tmp_path: Path, shape: tuple[int, ...], code: str, order: str, raw: bytes
) -> None:
    with pytest.raises(ValueError, match=r"some\.pkl"):
        load(tmp_path, array_pickle(shape, code, order, raw))


BOMBS = {
    "text of 4 GB": b"\x80\x04X\xff\xff\xff\xffabc.",
    "bytes of 2^60": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"abc.",
    "byte array of 2^40": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"abc.",
    "frame of 2^62": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
    "whole number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7fabc.",
    "memo entry 2^32": b"\x80\x02]r\xff\xff\xff\xff" + b"j\x00\x00\x00\x01.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_claimed_sizes_allocate_nothing(tmp_path: Path, name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"some\.pkl"):
            load(tmp_path, BOMBS[name])
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_values_that_hold_themselves_many_times_over(tmp_path: Path) -> None:
    """Sixty levels of pairs of the same value: 2^60 leaves, one object each level."""
    layers = b"\x80\x02)" + b"2\x86" * 60
    start = time.process_time()
    with pytest.raises(ValueError, match="uses opcode DUP"):
        load(tmp_path, layers + b".")
    remembered = b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
    with pytest.raises(ValueError, match="lists within lists so often that they would fill the memory"):
        load(tmp_path, b"\x80\x02)" + remembered + b".")
    found = load(tmp_path, b"\x80\x02)" + remembered[:20] + b".")
    assert found[0] is found[1]
    for end in (b"K\x01s.", b"cnumpy\ndtype\nh\x3b\x85R.", b"h\x3bh\x3b\x93.", b"h\x3bb."):
        with pytest.raises(ValueError, match=r"some\.pkl"):
            load(tmp_path, b"\x80\x02})" + remembered + end)
    assert time.process_time() - start < 2


def test_deep_nesting_does_not_end_the_process(tmp_path: Path) -> None:
    found = load(tmp_path, b"\x80\x02)" + b"\x85" * 200_000 + b".")
    assert len(found) == 1
    with pytest.raises(ValueError, match="has a tuple as a key"):
        load(tmp_path, b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.")


NO_PICKLES = [
    *(
        b"",
        b"\n",
        b"PK\x03\x04rest",
        b"\x80\x02",
        b"{}",
        b"\x80\x02h\x00.",
        b"\x80\x02.",
        b"\x80\x02K\x01K\x02.",
    ),
    *(b"\x80\x02(.", b"\x80\x02t.", b"\x80\x02R.", b"\x80\x02(q\x00.", b"\x80\x00N.", b"\x80\x09N."),
]


@pytest.mark.parametrize("content", NO_PICKLES)
def test_what_is_no_pickle(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"some\.pkl"):
        load(tmp_path, content)


def test_old_protocols_are_refused(tmp_path: Path) -> None:
    for protocol in (0, 1):
        with pytest.raises(ValueError, match=r"some\.pkl, byte.*save it again with pickle\.dump.*protocol=4"):
            load(tmp_path, pickle.dumps({"a": [np.ones(3)]}, protocol=protocol))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04more", "zip archive, as torch.save writes it.*np.savez"),
        (b"\x1f\x8bmore", "packed with gzip; unpack it first"),
        (b"\x80\x04cpandas.core.frame\nDataFrame\n.", "table of pandas.*save it with to_csv"),
    ],
)
def test_other_files_are_told(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(tmp_path, content)


def test_a_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match="no pickle file"):
        unpickle("nowhere.pkl")


SAMPLE = pickle.dumps(
    {"a": [np.arange(6, dtype=np.float32).reshape(2, 3), "x", 1.5], "b": {"c": (1, None)}}, protocol=4
)


@pytest.mark.parametrize("size", range(0, len(SAMPLE), 7))
def test_a_truncated_file(tmp_path: Path, size: int) -> None:
    with pytest.raises(ValueError, match=r"some\.pkl"):
        load(tmp_path, SAMPLE[:size])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=8)
)
def test_damage_ends_in_an_error_or_in_plain_data(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    content = bytearray(SAMPLE)
    for place, value in changes:
        content[place] = value
    problem = ""
    try:
        found = load(tmp_path, bytes(content))
    except ValueError as error:
        problem = str(error)
    if problem:
        assert "some.pkl" in problem
        assert "\n" not in problem
    else:
        assert isinstance(
            found, (dict, list, tuple, str, bytes, int, float, np.ndarray, np.generic, type(None))
        )


def test_nothing_else_in_the_package_unpickles() -> None:
    """No module imports pickle, marshal or shelve, or lets NumPy or PyTorch unpickle."""
    words = (
        "import pickle\n",
        "from pickle",
        "import marshal",
        "import shelve",
        "import dill",
        "allow_pickle=True",
    )
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        if path.name == "released.py":
            # It names the error that torch.load(weights_only=True) raises, and nothing else of the module.
            assert source.count("pickle.") == source.count("pickle.UnpicklingError") == 1
            source = source.replace("import pickle\n", "")
        for word in (*words, "weights_only=False"):
            assert word not in source, f"{path}: {word}"


def test_pythons_unpickler_is_not_used() -> None:
    """The interpreter of opcodes stands alone: with Python's unpickler out of order it still reads."""
    code = (
        "import pickle, io, sys, tempfile, pathlib, numpy as np\n"
        "from fastamr.data.readers.common.unpickle import unpickle\n"
        "path = pathlib.Path(tempfile.mkdtemp()) / 'x.pkl'\n"
        "path.write_bytes(pickle.dumps({'a': np.arange(3)}))\n"
        "def refuse(*_, **__): raise SystemExit('unpickled')\n"
        "pickle.loads = pickle.load = pickle.Unpickler = pickle._Unpickler = refuse\n"
        "assert unpickle(path)['a'].tolist() == [0, 1, 2]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_all_opcodes_are_known_or_refused() -> None:
    """A new opcode of a later Python is refused, since only listed ones are carried out."""
    from fastamr.data.readers.common import unpickle as module

    handled = {*module._CONSTANTS, *module._LITERALS, *module._ACTIONS, "STOP", "FRAME", "PROTO"}
    known = {opcode.name for opcode in pickletools.opcodes}
    assert handled <= known
    for name in (
        "INST",
        "OBJ",
        "NEWOBJ",
        "NEWOBJ_EX",
        "EXT1",
        "PERSID",
        "BINPERSID",
        "DUP",
        "ADDITEMS",
        "FROZENSET",
    ):
        assert name in known - handled
