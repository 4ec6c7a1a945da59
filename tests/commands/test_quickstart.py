"""From a folder of one's own clips to a classifier: tiny for each source; slowly as people would."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from pathlib import Path

import pytest

from fastamr.cli import main
from fastamr.commands import quickstart
from fastamr.data import PackedSkeletons

from ..data.readers.writers_motion import write_actions

pytest.importorskip("sklearn")
TINY = ["--updates", "2", "--epochs", "1", "--device", "cpu"]


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"width": 8, "depth": 1, "heads": 1, "decoder_width": 8, "decoder_heads": 1, "frames": 16}
    monkeypatch.setattr(quickstart, "MODEL", quickstart.MODEL | small)


def commands_of(text: str) -> list[list[str]]:
    return [shlex.split(line[2:]) for line in text.splitlines() if line.startswith("$ fastamr ")]


class TestTiny:
    def test_csv(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_actions(tmp_path / "moves", "csv", clips=5)
        out = tmp_path / "made"
        assert main(["quickstart", str(tmp_path / "moves"), "--out", str(out), "--fps", "30", *TINY]) == 0
        said = capsys.readouterr().out
        names = ["import", "split", "pretrain", "finetune", "evaluate", "plot"]
        assert [words[1] for words in commands_of(said)] == names
        assert re.search(r"pre-training: 2 updates of a small model, about \d+ s; --checkpoint RUN", said)
        assert re.search(
            r"classifier: [\d.]+ % of 2 test clips .* raw coordinates: [\d.]+ % \(\w+\), chance: 50.0 %", said
        )
        assert said.endswith(f"  fastamr predict FILE --model {out / 'classifier'}\n")
        assert (out / "confusion.png").read_bytes()[:4] == b"\x89PNG"
        data = PackedSkeletons.load(out / "data.safetensors")
        assert data.label_names == ("squat", "wave")
        clip = next((tmp_path / "moves" / "wave").iterdir())
        assert main(["predict", str(clip), "--model", str(out / "classifier"), "--fps", "30"]) == 0
        assert re.search("wave|squat", capsys.readouterr().out)

        # The printed commands do the same in another folder.
        first = json.loads((out / "classifier" / "classifier.json").read_text())
        for words in commands_of(said):
            again = [word.replace(str(out), str(tmp_path / "typed")) for word in words[1:]]
            assert main(again) == 0
        second = json.loads((tmp_path / "typed" / "classifier" / "classifier.json").read_text())
        assert first["accuracy"] == second["accuracy"]
        assert first["data"]["fingerprint"] == second["data"]["fingerprint"]

    @pytest.mark.parametrize("kind", ["openpose", "coco", "yolo", "mediapipe"])
    def test_other_sources(self, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
        write_actions(tmp_path / "moves", kind, clips=3)
        assert main(["quickstart", str(tmp_path / "moves"), "--out", str(tmp_path / "made"), *TINY]) == 0
        said = capsys.readouterr().out
        steps = next(words for words in commands_of(said) if words[1] == "pretrain")
        assert ("flip" in steps) == (kind != "mediapipe")
        data = PackedSkeletons.load(tmp_path / "made" / "data.safetensors")
        assert (data.num_clips, data.label_names) == (6, ("squat", "wave"))

    def test_rates_that_differ_are_resampled(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_actions(tmp_path / "moves", "coco", clips=3)
        for path in sorted((tmp_path / "moves").glob("*/0001.json")):
            path.write_text(path.read_text().replace('"fps": 25', '"fps": 50'))
        assert main(["quickstart", str(tmp_path / "moves"), "--out", str(tmp_path / "made"), *TINY]) == 0
        assert "resample:fps=25" in capsys.readouterr().out

    def test_a_checkpoint_and_a_table_of_labels(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_actions(tmp_path / "moves", "csv", clips=3)
        assert main(["quickstart", str(tmp_path / "moves"), "--out", str(tmp_path / "made"), *TINY]) == 0
        paths = sorted((tmp_path / "moves").rglob("*.csv"))
        (tmp_path / "flat").mkdir()
        for number, path in enumerate(paths):
            shutil.copy(path, tmp_path / "flat" / f"{number}.csv")
        rows = [f"{number},{path.parent.name}" for number, path in enumerate(paths)]
        (tmp_path / "labels.csv").write_text("clip,action\n" + "\n".join(rows) + "\n")
        words = [
            "--checkpoint",
            str(tmp_path / "made" / "pretrained"),
            "--labels",
            str(tmp_path / "labels.csv"),
        ]
        capsys.readouterr()
        assert (
            main(["quickstart", str(tmp_path / "flat"), "--out", str(tmp_path / "other"), *words, *TINY]) == 0
        )
        assert "pretrain" not in [words[1] for words in commands_of(capsys.readouterr().out)]

    def test_it_continues_and_does_not_overwrite(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_actions(tmp_path / "moves", "csv", clips=3)
        words = ["quickstart", str(tmp_path / "moves"), "--out", str(tmp_path / "made"), *TINY]
        assert main(words) == 0
        assert main(words) == 1
        assert "already holds a classifier; pass --overwrite" in capsys.readouterr().err
        shutil.rmtree(tmp_path / "made" / "classifier")
        assert main(words) == 0
        assert main([*words, "--overwrite"]) == 0

    def test_other_training_clips_are_pretrained_on_anew(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_actions(tmp_path / "moves", "csv", clips=4)
        words = ["quickstart", str(tmp_path / "moves"), "--out", str(tmp_path / "made"), *TINY]
        assert main(words) == 0
        shutil.rmtree(tmp_path / "made" / "classifier")
        capsys.readouterr()
        assert main([*words, "--test", "0.5"]) == 0
        assert "was begun with other training clips; its pre-training begins anew" in capsys.readouterr().out
        shutil.rmtree(tmp_path / "made" / "classifier")
        assert main([*words, "--test", "0.5"]) == 0
        assert "begins anew" not in capsys.readouterr().out

    def test_a_split_of_the_data_is_used(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for half, clips in (("train", 4), ("test", 2)):
            write_actions(tmp_path / "my moves" / half, "csv", clips=clips)
        words = ["quickstart", str(tmp_path / "my moves"), *TINY, "--out"]
        assert main([*words, str(tmp_path / "made here")]) == 0
        said = capsys.readouterr().out
        assert "split 'official' comes with the data and is used" in said
        assert said.endswith(f"  fastamr predict FILE --model '{tmp_path / 'made here' / 'classifier'}'\n")
        report = tmp_path / "made here" / "classifier" / "classifier.json"
        assert json.loads(report.read_text())["clips"] == {"train": 8, "test": 4}
        assert main([*words, str(tmp_path / "random"), "--by", "random"]) == 0
        assert "split 'mine' by random" in capsys.readouterr().out

    def test_a_checkpoint_of_other_channels(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for kind in ("csv", "coco"):
            write_actions(tmp_path / kind, kind, clips=3)
        assert main(["quickstart", str(tmp_path / "csv"), "--out", str(tmp_path / "made"), *TINY]) == 0
        capsys.readouterr()
        words = [
            "--out",
            str(tmp_path / "flat"),
            "--checkpoint",
            str(tmp_path / "made" / "pretrained"),
            *TINY,
        ]
        assert main(["quickstart", str(tmp_path / "coco"), *words]) == 1
        assert "is for 3 channels, the data has 2" in capsys.readouterr().err


class TestErrors:
    def run(self, capsys: pytest.CaptureFixture[str], *words: object) -> str:
        assert main(["quickstart", *map(str, words), *TINY]) in (1, 2)
        return capsys.readouterr().err.splitlines()[-1]

    def test_what_a_folder_must_hold(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        top, out = tmp_path / "moves", tmp_path / "made"
        assert "no folder" in self.run(capsys, top, "--out", out)
        write_actions(top, "csv", actions=("wave",), clips=3)
        assert (
            "all 3 clips are of one class, a classifier needs two; expected a folder a class: "
            in self.run(capsys, top, "--out", out)
        )
        assert "no clip lies in a folder" in self.run(capsys, top / "wave", "--out", out)
        for path in sorted((top / "wave").iterdir())[1:]:
            path.unlink()
        write_actions(top, "csv", actions=("squat",), clips=1)
        assert "each of the 2 classes has one clip; at least two are needed" in self.run(
            capsys, top, "--out", out
        )

    def test_out(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_actions(tmp_path / "moves", "csv", clips=1)
        assert "which is read; name a folder outside" in self.run(
            capsys, tmp_path / "moves", "--out", tmp_path / "moves" / "x"
        )
        (tmp_path / "file").touch()
        assert "is a file; name a folder" in self.run(capsys, tmp_path / "moves", "--out", tmp_path / "file")


@pytest.mark.slow
def test_five_classes_of_twenty_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In under two minutes on two idle cores, and far better than chance."""
    monkeypatch.undo()
    actions = ("wave", "kick", "squat", "jump", "bow")
    write_actions(tmp_path / "moves", "csv", actions=actions, clips=20, frames=(40, 120))
    start = time.monotonic()
    assert (
        main(
            [
                "quickstart",
                str(tmp_path / "moves"),
                "--out",
                str(tmp_path / "made"),
                "--fps",
                "30",
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    assert time.monotonic() - start < 240, "two minutes on two idle cores; twice that where others work, too"
    found = json.loads((tmp_path / "made" / "classifier" / "classifier.json").read_text())
    assert found["clips"] == {"train": 80, "test": 20}
    assert found["accuracy"] >= 60
    assert "raw coordinates:" in capsys.readouterr().out
