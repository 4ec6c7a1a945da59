from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

import pytest

from fastamr.data.readers.common import sources
from fastamr.data.readers.common.sources import DamagedFile, list_files


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.filename = name  # ZipInfo would mend some names
            info.compress_type = compression
            file.writestr(info, content)
    return path


def test_a_folder_an_archive_and_both(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "3.txt").write_bytes(b"three")
    (tmp_path / "a" / "1.TXT").write_bytes(b"one")
    (tmp_path / "a" / "._1.txt").write_bytes(b"of macOS")
    (tmp_path / "a" / "other.7z").write_bytes(b"")
    zipped = archive(
        tmp_path / "a" / "z.zip", {"in/2.txt": b"two", "in/x.csv": b"", "in/": b"", "__MACOSX/._2.txt": b""}
    )
    listing = list_files(tmp_path / "a", [".txt"])
    assert [(entry.base, entry.read()) for entry in listing.entries] == [
        ("1.TXT", b"one"),
        ("2.txt", b"two"),
        ("3.txt", b"three"),
    ]
    assert [entry.read(2) for entry in listing.entries] == [b"on", b"tw", b"th"]
    assert [entry.size for entry in listing.entries] == [3, 3, 5]
    assert str(listing.entries[1]) == f"{zipped}/in/2.txt"
    assert sorted(listing.others) == ["other.7z", "x.csv"]
    assert listing.refused == {}
    assert [entry.base for entry in list_files(zipped, [".txt"]).entries] == ["2.txt"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "1.txt").write_bytes(b"one")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "there")
    (tmp_path / "a" / "circle").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "nowhere.txt").symlink_to(tmp_path / "missing")
    os.mkfifo(tmp_path / "a" / "pipe.txt")
    listing = list_files(tmp_path / "a", [".txt"])
    assert [entry.base for entry in listing.entries] == ["1.txt"]
    assert sorted(listing.refused.values()) == [
        "cannot be read (No such file or directory)",
        "is not a plain file",
    ]


@pytest.mark.parametrize(
    "name", ["../up.txt", "a/../../up.txt", "/etc/up.txt", "C:\\up.txt", "..\\up.txt", "C:up.txt"]
)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "z.zip", {name: b"evil", "good.txt": b"good"})
    listing = list_files(path, [".txt"])
    assert [entry.name for entry in listing.entries] == ["good.txt"]
    assert list(listing.refused.values()) == ["its name leads out of the archive"]


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "z.zip", {f"{place}.txt": bytes(8 << 20) for place in range(9)})
    assert path.stat().st_size < 100_000
    with pytest.raises(
        ValueError, match=r"holds 75497472 bytes in \d+, more than 200 to 1: this looks like a zip bomb"
    ):
        list_files(path, [".txt"])


def test_a_member_that_lies_about_its_size(tmp_path: Path) -> None:
    path = archive(tmp_path / "z.zip", {"1.txt": bytes(1 << 20)})
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02")
    content[place + 24 : place + 28] = struct.pack("<I", 100)
    path.write_bytes(content)
    (entry,) = list_files(path, [".txt"]).entries
    assert entry.size == 100
    with pytest.raises(DamagedFile, match="cannot be read"):
        entry.read()


def test_damaged_and_encrypted_members_cost_themselves_only(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "z.zip", {"1.txt": b"x" * 1000, "2.txt": b"two", "3.txt": b"three"}, zipfile.ZIP_STORED
    )
    content = bytearray(path.read_bytes())
    content[content.index(b"xxxx") + 5] = ord("y")
    third = content.rindex(b"PK\x01\x02")
    content[third + 8] |= 1
    path.write_bytes(content)
    listing = list_files(path, [".txt"])
    first, second = listing.entries
    with pytest.raises(DamagedFile, match=r"cannot be read \(Bad CRC-32"):
        first.read()
    assert second.read() == b"two"
    assert listing.refused == {f"{path}/3.txt": "is encrypted"}


def test_archives_cut_off(tmp_path: Path) -> None:
    whole = archive(tmp_path / "whole.zip", {"1.txt": b"one" * 1000}).read_bytes()
    path = tmp_path / "z.zip"
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"z.zip is no zip archive, or is truncated"):
            list_files(path, [".txt"])


def test_an_archive_that_was_exchanged_is_opened_anew(tmp_path: Path) -> None:
    path = archive(tmp_path / "z.zip", {"1.txt": b"one"})
    (old,) = list_files(path, [".txt"]).entries
    archive(path, {"1.txt": b"other", "2.txt": b"two"})
    first, _ = list_files(path, [".txt"]).entries
    assert first.read() == b"other"
    archive(path, {"2.txt": b"two"})
    with pytest.raises(DamagedFile, match="no longer in the archive"):
        old.read()


def test_files_too_large_and_files_that_went(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.txt").write_bytes(b"12345")
    (entry,) = list_files(tmp_path, [".txt"]).entries
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 4)
    with pytest.raises(DamagedFile, match="has 5 bytes, more than the 4"):
        entry.read()
    monkeypatch.undo()
    (tmp_path / "1.txt").unlink()
    with pytest.raises(DamagedFile, match="cannot be read"):
        entry.read()


def test_no_source(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder or zip archive"):
        list_files(tmp_path / "nothing", [".txt"])
    (tmp_path / "x.7z").write_bytes(b"7z")
    with pytest.raises(ValueError, match="is no zip archive"):
        list_files(tmp_path / "x.7z", [".txt"])
