"""Files made to run code, to hang or to fill the memory: each loader refuses them at once, and nothing of them runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastamr import cli
from fastamr.data import PackedSkeletons, read
from fastamr.data.readers.registry import READERS
from fastamr.export.description import read_text
from fastamr.models import ActionClassifier, MAMPModel
from fastamr.models.registry import load_pretrained
from fastamr.skeleton import LAYOUTS, SkeletonLayout, get_layout
from fastamr.training.checkpoint import load_checkpoint
from fastamr.training.config import PretrainConfig, read_yaml

from . import seeds

ENDINGS = sorted(
    {suffix for reader in READERS for suffix in getattr(reader, "suffixes", ())} | {".safetensors", ".zip"}
)


class Evil:
    """Writes a file when Python's own unpickler reads it."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def hostile(canary: Path) -> dict[str, bytes]:
    """Contents that run code where somebody unpickles them."""
    evil = Evil(canary)
    found = {f"protocol {number}": pickle.dumps(evil, number) for number in range(6)}
    found["in a dictionary"] = pickle.dumps({"annotations": [evil], "split": {}})
    found["in text"] = f"cos\nmkdir\n(S'{canary}'\ntR.".encode()
    for name, save in (("npz", np.savez), ("npy", np.save)):
        file = io.BytesIO()
        objects = np.array([evil, 1], dtype=object)
        save(file, x=objects, offsets=objects, positions=objects) if name == "npz" else save(file, objects)
        found[name] = file.getvalue()
    file = io.BytesIO()
    torch.save({"model": {"x": torch.ones(2), "y": evil}, "args": evil}, file)
    found["torch"] = file.getvalue()
    file = io.BytesIO()
    torch.save({"model": evil}, file, _use_new_zipfile_serialization=False)
    found["old torch"] = file.getvalue()
    found["yaml"] = f"!!python/object/apply:os.mkdir ['{canary}']\n".encode()
    return found


def refused(load: Any, *given: Any) -> None:
    with pytest.raises((ValueError, OSError)):
        load(*given)


def test_the_file_would_run(tmp_path: Path) -> None:
    pickle.loads(hostile(tmp_path / "canary")["protocol 2"])
    assert (tmp_path / "canary").is_dir()


@pytest.mark.parametrize("kind", sorted(hostile(Path("x"))))
def test_nothing_is_run(kind: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    content = hostile(canary)[kind]
    for ending in ENDINGS:
        path = tmp_path / f"a{ending}"
        path.write_bytes(content)
        refused(lambda path: read(path, say=lambda line: None), path)
        for layout in (".yaml", ".json"):
            (tmp_path / f"layout{layout}").write_bytes(content)
            refused(get_layout, str(tmp_path / f"layout{layout}"))
    for name in ("released.pth", "config.yaml", "config.json", "model.safetensors", "state.safetensors"):
        (tmp_path / name).write_bytes(content)
    refused(MAMPModel.from_released, tmp_path / "released.pth")
    refused(read_yaml, tmp_path / "config.yaml")
    for load in (load_pretrained, ActionClassifier.from_pretrained, load_checkpoint):
        refused(load, tmp_path)
    refused(read_text, content.decode("latin-1"), "model.onnx")
    assert not canary.exists()


def array_with(header: bytes, body: bytes = b"") -> bytes:
    header = header.ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def packed(**members: np.ndarray | bytes) -> bytes:
    """An archive of sound arrays, some of them replaced."""
    layout = LAYOUTS["sbu15"]
    sound: dict[str, Any] = {"x": np.ones((12, 1, 15, 3), "f4"), "offsets": np.array([0, 12])}
    sound["parents"] = np.array(layout.parents)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, value in {**sound, **members}.items():
            if not isinstance(value, bytes):
                member = io.BytesIO()
                np.save(member, value)
                value = member.getvalue()
            archive.writestr(f"{name}.npy", value)
    return file.getvalue()


def bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x", "offsets"):
            archive.writestr(f"{name}.npy", claim("(9, 3)") + bytes(200 << 20))
    return file.getvalue()


def claim(shape: str, code: str = "<f4") -> bytes:
    """A ``.npy`` file that holds nothing of what its header claims."""
    return array_with(f"{{'descr': '{code}', 'fortran_order': False, 'shape': {shape}, }}".encode())


def of_label(label: Any) -> bytes:
    keypoint = np.ones((1, 4, 17, 2), "f4")
    return pickle.dumps({"annotations": [{"frame_dir": "a", "label": label, "keypoint": keypoint}]})


FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "claims.npz": ("claims", lambda: packed(x=claim("(1000000000000, 1, 15, 3)"))),
    "claims.npy": ("claims", lambda: claim("(1000000000000, 25, 3)")),
    "empty_text.npz": ("which is none", lambda: packed(joint_names=claim("(1000000, 0, 150)", "<U4"))),
    "bracket.npz": ("is damaged", lambda: packed(x=array_with(b"{'descr': ("))),
    "parents.npz": ("whole numbers", lambda: packed(parents=np.array([float("inf")] * 15))),
    "fold.npz": ("whole numbers", lambda: packed(fold=np.array([float("inf")]))),
    "bomb.npz": ("zip bomb", lambda: bomb()),
    "keys.pkl": ("numbers of more than 64 bits as keys", lambda: colliding()),
    "shared.pkl": ("fill the memory", lambda: shared()),
    "label.pkl": ("no class index", lambda: of_label(2**64)),
}


def colliding() -> bytes:
    """A dictionary of 60,000 numbers of one hash, written without one: 2 bytes of marks, then keys and values."""
    keys = [((2**61 - 1) << 70) * place + 1 for place in range(1, 60_001)]
    items = b"".join(pickle.dumps(key, 2)[2:-1] + b"K\x00" for key in keys)
    return b"\x80\x02}(" + items + b"u."


def shared() -> bytes:
    value: list[Any] = [1]
    for _ in range(40):
        value = [value, value]
    return pickle.dumps(
        {"annotations": [{"frame_dir": "a", "label": value, "keypoint": np.ones((1, 4, 17, 2))}]}
    )


@pytest.mark.parametrize("name", list(FILES))
def test_small_files_that_claim_much(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message, make = FILES[name]
    (tmp_path / name).write_bytes(make())
    start = time.process_time()
    assert cli.main(["import", str(tmp_path / name), str(tmp_path / "out.safetensors")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert name in error
    assert message in error
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 10**12}, "depth=1000000000000 is too large"),
        ({"width": 2**14, "heads": 1, "depth": 500}, "weights"),
        ({"width": 256, "depth": 8}, "belongs to another architecture"),
        ({"frames": 2**16, "patch_frames": 1}, "another architecture|time_embed"),
        ({"frames": 10**9}, "frames=1000000000 is too large"),
        ({"patch_frames": 0}, "patch_frames=0"),
        ({"mlp_ratio": 1e9}, "mlp_ratio"),
        ({"width": "wide"}, "width is 'wide', expected int"),
        ({"layout": {"name": "x", "joints": ["a"], "parents": [float("inf")]}}, "expected joint indices"),
    ],
)
def test_a_configuration_of_a_giant(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    for name, content in seeds.model_files()["encoder"].items():
        (tmp_path / name).write_bytes(content)
    description = json.loads((tmp_path / "config.json").read_text())
    description["config"] |= change
    (tmp_path / "config.json").write_text(json.dumps(description))
    start = time.process_time()
    with pytest.raises(ValueError, match=message) as error:
        load_pretrained(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert time.process_time() - start < 5


def test_a_released_checkpoint_of_strange_blocks(tmp_path: Path) -> None:
    content = torch.load(io.BytesIO(seeds.released()), weights_only=True)
    content["model"]["blocks.999999999.x"] = torch.ones(1)
    torch.save(content, tmp_path / "far.pth")
    with pytest.raises(ValueError, match=r"far\.pth holds the unexpected 'blocks\.999999999\.x'"):
        MAMPModel.from_released(tmp_path / "far.pth", layout="sbu15", heads=2, decoder_heads=2)
    content["model"]["joints_embed.proj.weight"] = torch.ones(0, 3, 2, 1)
    torch.save(content, tmp_path / "thin.pth")
    with pytest.raises(ValueError, match=r"thin\.pth: .* a size of 0"):
        MAMPModel.from_released(tmp_path / "thin.pth", layout="sbu15")


@pytest.mark.parametrize("what", ["label", "start", "step", "word"])
def test_a_data_file_of_strange_numbers(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = seeds.data()
    if what == "label":
        data.label_names = ()
        data.labels[0] = 10**9
    elif what == "start":
        data.body_start[0] = 10**15
    elif what == "step":
        data.steps = ({"x": 1},)
    else:
        data.label_names = (5, 6)  # type: ignore[assignment]
    path = tmp_path / f"{what}.safetensors"
    data.save(path)
    assert cli.main(["check", str(path)]) == 1
    assert path.name in capsys.readouterr().err


def test_one_bad_archive_of_many_costs_itself_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(seeds.files()["ntu.zip"])
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.zip").write_bytes(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        second = archive.infolist()[1]
    for place in range(40):
        content[second.header_offset + 90 + place] ^= 0x5A
    (tmp_path / "lzma.zip").write_bytes(content)
    out = tmp_path / "out.safetensors"
    assert (
        cli.main(
            ["prepare", "ntu60", str(tmp_path / "lzma.zip"), str(out), "--workers", "1", "--no-progress"]
        )
        == 3
    )
    assert PackedSkeletons.load(out).num_clips == 3
    out.unlink()
    (tmp_path / "raw" / "b.zip").write_bytes(b"PK\x03\x04rest")
    assert (
        cli.main(
            [
                "prepare",
                "ntu60",
                str(tmp_path / "raw"),
                str(out),
                "--workers",
                "1",
                "--no-progress",
            ]
        )
        == 3
    )
    assert PackedSkeletons.load(out).num_clips == 4
    assert "b.zip" in capsys.readouterr().err
    (tmp_path / "raw" / "c.npz").write_bytes(FILES["bracket.npz"][1]())
    (tmp_path / "raw" / "d.csv").write_bytes(seeds.files()["wide.csv"])
    notes: list[str] = []
    assert read([tmp_path / "raw" / "c.npz", tmp_path / "raw" / "d.csv"], say=notes.append).num_clips == 1
    assert any("c.npz" in note for note in notes)


def test_a_layout_of_too_many_joints() -> None:
    with pytest.raises(ValueError, match="joints has 5000 names, expected at most 4096"):
        SkeletonLayout("x", tuple(map(str, range(5000))), (-1,) * 5000)


def test_settings_of_nested_aliases(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "seed: &a [x, x, x, x, x, x, x]\n" + "preprocess: &b [*a, *a]\nlr: [*b, *b]\n"
    )
    with pytest.raises((TypeError, ValueError)) as error:
        PretrainConfig.load(tmp_path / "a.yaml")
    assert len(str(error.value)) < 400


def test_memory_that_runs_out_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (
        MemoryError("Unable to allocate"),
        ZeroDivisionError("by zero"),
        KeyError("x"),
        RecursionError("deep"),
    ):

        def fail(words: list[str], error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("fastamr.commands.info.run", fail)
        assert cli.main(["info"]) == 1
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert told.count("\n") == 1


SPECIAL: dict[str, Callable[[Path], Any]] = {
    "pipe": os.mkfifo,
    "zeros": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("ending", ["npz", "json", "bvh", "c3d", "skeleton", "zip", "yaml", "safetensors"])
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_refused_at_once(
    kind: str, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"a.{ending}"
    SPECIAL[kind](path)
    words = {"yaml": ["layouts", str(path)], "zip": ["prepare", "ntu60", str(path), str(tmp_path / "o")]}
    words["safetensors"] = ["check", str(path)]
    code = cli.main(words.get(ending, ["import", str(path), str(tmp_path / "o.safetensors")]))
    assert code in (1, 2)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert path.name in line


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipes_in_the_folder_of_a_run(tmp_path: Path) -> None:
    from fastamr.folders.manifest import MANIFEST, written
    from fastamr.training.checkpoint import COMPLETE_FILE, STATE_FILE, is_complete
    from fastamr.training.metrics.metrics import METRICS_FILE, _lines_until

    for name in (MANIFEST, COMPLETE_FILE, STATE_FILE, METRICS_FILE, "config.json"):
        os.mkfifo(tmp_path / name)
    assert written(tmp_path) == []
    assert not is_complete(tmp_path, 1)
    assert _lines_until(tmp_path / METRICS_FILE, 1)[0] == []
    refused(load_checkpoint, tmp_path)
    refused(load_pretrained, tmp_path)


@pytest.mark.parametrize("rate", [-30.0, float("inf"), 1e300])
def test_a_rate_that_is_none_is_refused(rate: float, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(packed(fps=np.array(rate)))
    with pytest.raises(ValueError, match=r"a\.npz.*fps holds"):
        read(tmp_path / "a.npz", say=lambda line: None)


def test_a_rate_of_0_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(packed(fps=np.array(0.0)))
    assert bool(read(tmp_path / "a.npz", say=lambda line: None).fps.isnan().all())


def test_a_library_that_quotes_a_whole_header_is_cut_short(tmp_path: Path) -> None:
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 4000 + ")" * 4000 + "}"
    (tmp_path / "a.npy").write_bytes(array_with(text.encode()))
    with pytest.raises(ValueError, match=r"a\.npy") as error:
        read(tmp_path / "a.npy", say=lambda line: None)
    assert len(str(error.value)) < 700


def test_joints_of_a_layout_are_shown_safely(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(
        json.dumps({"name": "a", "joints": ["\x1b[31mx", "b"], "parents": [-1, 0]})
    )
    assert cli.main(["layouts", str(tmp_path / "a.json")]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert r"\x1b[31mx" in shown


def test_a_number_of_frames_beyond_all_bounds() -> None:
    from fastamr.data.preprocessing.apply import parse_steps

    with pytest.raises(ValueError, match="expected at most"):
        parse_steps(["resample:frames=99999999999999999999"])
