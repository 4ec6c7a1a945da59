"""Splits of one's own: balanced, never a subject or a recording on both sides, the same for any order of clips."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastamr.cli import main
from fastamr.data import PackedSkeletons, Split, make_split
from fastamr.data.labelling.groups import recording_of


def make(labels: list[int], names: list[str] | None = None, **columns: list[object]) -> PackedSkeletons:
    clips = np.random.default_rng(0).normal(size=(len(labels), 2, 1, 20, 3))
    names = names or [f"clip{place}" for place in range(len(labels))]
    classes = [f"c{code}" for code in range(max(labels) + 1)]
    return PackedSkeletons.from_clips(
        list(clips), layout="kinect20", labels=labels, label_names=classes, names=names, columns=columns
    )


def split_of(data: PackedSkeletons, *args: object, **options: object) -> tuple[Split, str]:
    notes: list[str] = []
    split = make_split(data, *args, say=notes.append, **options).split("mine")  # type: ignore[arg-type]
    return split, "\n".join(notes)


def counts(data: PackedSkeletons, half: torch.Tensor) -> list[int]:
    return torch.bincount(data.labels[half], minlength=int(data.labels.max()) + 1).tolist()


class TestBalance:
    def test_each_class_has_its_share(self) -> None:
        data = make([0] * 50 + [1] * 20 + [2] * 10 + [3] * 2)
        split, notes = split_of(data)
        assert counts(data, split.test) == [10, 4, 2, 1]
        assert bool((split.train ^ split.test).all())
        assert notes == "split 'mine' by random: 65 clips train, 17 test (20.7 %); 17 of 82 recordings test"

    def test_many_clips(self) -> None:
        data = make([place % 7 for place in range(3000)])
        split, _ = split_of(data, test=0.3)
        assert all(abs(count - 0.3 * 3000 / 7) <= 1 for count in counts(data, split.test))

    def test_subjects_of_unequal_size(self) -> None:
        subjects = [s for s, n in enumerate((30, 5, 5, 5, 5, 6, 6, 6, 6, 6)) for _ in range(n)]
        data = make([place % 3 for place in range(80)], subject=subjects)
        split, _ = split_of(data, "subject", test=0.2)
        assert not set(data.columns["subject"][split.test].tolist()) & set(
            data.columns["subject"][split.train].tolist()
        )
        assert abs(int(split.test.sum()) - 16) <= 2

    def test_a_class_of_one_group_is_trained_on_and_said(self) -> None:
        data = make(
            [0] * 10 + [1] * 10 + [2] * 3, [f"r{place}" for place in range(20)] + ["v#1", "v#2", "v#3"]
        )
        split, notes = split_of(data)
        assert counts(data, split.test) == [2, 2, 0]
        assert "1 of 3 classes only in training, so it is never tested: c2" in notes
        assert "told by their names up to '@', '#' or '_clip3': 21" in notes

    def test_unlabelled_clips_are_parted_too(self) -> None:
        data = make([0] * 10 + [-1] * 10)
        split, notes = split_of(data)
        assert int(split.test[10:].sum()) == 2
        assert "10 clips of the split have no label" in notes


class TestGroups:
    @pytest.mark.parametrize(
        ("name", "recording"),
        [
            ("wave_0001", "wave_0001"),
            ("wave/0001@120", "wave/0001"),
            ("wave/0001#2", "wave/0001"),
            ("video3_clip12", "video3"),
            ("video3-seg_2", "video3"),
            ("video3.person1", "video3"),
            ("clip7", "clip7"),
            ("S001C002P003R002A013", "S001C002P003R002A013"),
            ("#3", "#3"),
        ],
    )
    def test_recordings_by_name(self, name: str, recording: str) -> None:
        assert recording_of(name) == recording

    @pytest.mark.parametrize("column", ["recording", "video", "file"])
    def test_recordings_by_column(self, column: str) -> None:
        values = [f"v{place // 4}" for place in range(40)]
        data = make([place % 2 for place in range(40)], **{column: values})
        split, notes = split_of(data)
        sides = [
            {value for value, here in zip(values, half, strict=True) if here}
            for half in (split.train, split.test)
        ]
        assert not sides[0] & sides[1]
        assert f"recordings, whose parts stay together, are told by column '{column}': 10" in notes
        assert make_split(data, "clip", say=lambda text: None).num_clips == 40

    def test_random_keeps_subjects_together(self) -> None:
        data = make([place % 2 for place in range(40)], subject=[place // 8 for place in range(40)])
        split, notes = split_of(data)
        assert int(split.test.sum()) == 8
        assert "the 5 subjects stay together, too; --by recording" in notes
        split, _ = split_of(make([0, 1] * 20, subject=[3] * 40))
        assert int(split.test.sum()) == 8

    def test_a_recording_of_two_subjects_joins_them(self) -> None:
        names = [f"r{place}" for place in range(7)] + ["r0#1"]
        data = make([0, 1] * 4, names, subject=[0, 0, 1, 1, 2, 2, 3, 3])
        split, _ = split_of(data, "subject", test=0.4)
        assert bool(split.test[0]) == bool(split.test[1]) == bool(split.test[7]) == bool(split.test[6])

    def test_unknown_subjects_are_in_neither_half(self) -> None:
        data = make([0, 1] * 5, subject=[0, 0, 1, 1, 2, 2, 3, 3, -1, -1])
        split, notes = split_of(data, "subject", test=0.25)
        assert not bool((split.train | split.test)[8:].any())
        assert "2 clips without subject are in neither half" in notes

    def test_values_of_a_column(self) -> None:
        data = make([0, 1] * 3, view=["left", "left", "front", "front", "right", "right"])
        split, notes = split_of(data, "view", values=["left", "right"])
        assert split.test.tolist() == [True, True, False, False, True, True]
        assert "2 of 3 values of view test" in notes
        _, notes = split_of(
            make([0, 1] * 2, ["a@0", "a@1", "b@0", "b@1"], view=[0, 1, 0, 1]), "view", values=[1]
        )
        assert "2 recordings lie on both sides, because the chosen values say so: a, b" in notes


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"test": 0}, "test is 0, expected a share"),
            ({"test": 1.5}, r"test is 1\.5, expected a share"),
            ({"by": "sujet"}, "unknown by 'sujet'.*did you mean 'subject'"),
            ({"by": "subject"}, "hang together as one subject"),
            ({"by": "subject", "values": [4]}, "no clip has subject '4'; it has 3"),
            ({"by": "subject", "values": [3]}, "the test half has every subject"),
            ({"name": ""}, "name of the split is ''"),
            (
                {"by": "session"},
                r"the data has no column 'session': fastamr convert DATA OUT --labels FILE\.csv",
            ),
        ],
    )
    def test_errors(self, options: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make_split(make([0, 1] * 4, subject=[3] * 8), **options)  # type: ignore[arg-type]

    def test_an_existing_name(self) -> None:
        data = make_split(make([0, 1] * 4), say=lambda text: None)
        with pytest.raises(ValueError, match=r"split 'mine' exists already; .*--overwrite"):
            make_split(data)
        assert list(make_split(data, name="other", say=lambda text: None).splits) == ["mine", "other"]
        with pytest.raises(ValueError, match="split 'mine' exists already"):
            make_split(data, name="MINE")
        assert list(make_split(data, name="Mine", overwrite=True, say=lambda text: None).splits) == ["Mine"]

    def test_a_column_that_is_lacking_is_not_offered(self) -> None:
        with pytest.raises(
            ValueError, match="expected one of 'clip', 'random', 'recording'; the data has no column"
        ):
            make_split(make([0, 1] * 4), "subject")


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_order_of_clips_does_not_matter(draw: st.DataObject) -> None:
    """The same clips in another order get the same split; no group is on both sides; every class is tested."""
    count = draw.draw(st.integers(4, 60))
    labels = [place % draw.draw(st.integers(1, 4)) for place in range(count)]
    subjects = draw.draw(st.lists(st.integers(0, 8), min_size=count, max_size=count))
    by = draw.draw(st.sampled_from(["subject", "recording", "random", "clip"]))
    seed = draw.draw(st.integers(0, 5))
    names = [f"r{place // 2}#{place}" for place in range(count)]
    data = make(labels, names, subject=list(subjects))
    order = torch.tensor(draw.draw(st.permutations(range(count))))
    try:
        split, _ = split_of(data, by, seed=seed, test=0.3)
    except ValueError as error:
        if "hang together" not in str(error):
            raise
        return
    other, _ = split_of(data.select(order), by, seed=seed, test=0.3)
    assert torch.equal(other.test, split.test[order])
    assert torch.equal(other.train, split.train[order])
    assert bool(split.test.any() and split.train.any())
    groups = {"subject": subjects, "recording": [place // 2 for place in range(count)]}
    for key in {
        "subject": ("subject", "recording"),
        "recording": ("recording",),
        "random": ("recording",),
    }.get(by, ()):
        column = torch.tensor(groups[key])
        assert not set(column[split.test].tolist()) & set(column[split.train].tolist())


def test_seeds_differ() -> None:
    data = make([0, 1] * 30)
    assert not torch.equal(split_of(data, seed=0)[0].test, split_of(data, seed=1)[0].test)


class TestCommand:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        make([0, 1] * 10, subject=[place // 4 for place in range(20)]).save(tmp_path / "a.safetensors")
        return tmp_path / "a.safetensors"

    def run(self, *words: object) -> int:
        return main(["split", *map(str, words)])

    def test_it_is_written_into_the_file(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = PackedSkeletons.load(path)
        assert self.run(path, "--by", "subject", "--test", "3", "4", "--name", "own") == 0
        assert (
            "split 'own' by subject: 12 clips train, 8 test (40.0 %); 2 of 5 subjects test"
            in capsys.readouterr().out
        )
        after = PackedSkeletons.load(path)
        assert after.split("own").test.nonzero()[:, 0].tolist() == list(range(12, 20))
        assert torch.equal(before.coords, after.coords)
        assert self.run(path, "--name", "own") == 1
        assert "split 'own' exists already" in capsys.readouterr().err
        assert self.run(path, "--name", "own", "--overwrite", "--out", path.with_name("b.safetensors")) == 0
        assert torch.equal(PackedSkeletons.load(path).split("own").test, after.split("own").test)
        assert self.run(path, "--by", "subject", "--test-values", "0", "--name", "zero") == 0
        assert list(PackedSkeletons.load(path).splits) == ["own", "zero"]

    def test_a_failure_leaves_the_file(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = path.read_bytes()

        def full(*_: object) -> None:
            raise OSError("no space left")

        monkeypatch.setattr(os, "fsync", full)
        assert self.run(path) == 1
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]

    def test_usage(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(path, "--test", "3", "4") == 2
        assert "--test 3 4: --by random takes a share between 0 and 1" in capsys.readouterr().err
        assert self.run(path.with_name("no.safetensors")) == 1
        (path.parent / "x.csv").write_text("frame")
        assert self.run(path.parent / "x.csv") == 1
        assert self.run(path.parent) == 1
        assert "is a folder" in (said := capsys.readouterr().err)
        assert said.count("\n") == 3
        assert "result.json" not in said
