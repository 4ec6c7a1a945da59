"""The cases of array files beside the checkout: small inputs on which the product once did the wrong thing."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastamr.data import PackedSkeletons, Split, read

pytestmark = pytest.mark.slow

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


def case(name: str) -> Path:
    """The file of a case; skips where the cases are not beside the checkout."""
    if not CASES.is_dir():
        pytest.skip("no folder ../shared/cases beside the checkout")
    return CASES / name


def told(name: str) -> tuple[PackedSkeletons, str]:
    notes: list[str] = []
    return read(case(name), say=notes.append), "\n".join(notes)


def halves(split: Split) -> tuple[int, int]:
    return int(split.train.sum()), int(split.test.sum())


def test_case_08_npz_label_column() -> None:
    data, _ = told("08_npz_label_column/col.npz")
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]


def test_case_14_split_names() -> None:
    for name in ("Train_Test", "trainset_valset"):
        data, _ = told(f"14_split_names/{name}.pkl")
        assert {split: halves(part) for split, part in data.splits.items()} == {"official": (2, 2)}
    with pytest.raises(ValueError, match=r"matches no clip: it names 'v0\.mp4', the annotations 'v0'"):
        told("14_split_names/other_names.pkl")
    with pytest.raises(ValueError, match="both have frame_dir 'v'"):
        told("14_split_names/one_name.pkl")


@pytest.mark.parametrize("given", ["train_data_joint.npy", "train_label.pkl", ""])
def test_case_22_stgcn_arrays(given: str) -> None:
    data, notes = told(f"22_stgcn_npy_pkl/{given}")
    assert (data.num_clips, data.num_bodies, data.offsets.diff().tolist()) == (3, 3, [4, 4, 4])
    assert data.labels.tolist() == [0, 1, 2]
    assert data.names[0] == "S001C001P001R001A001.skeleton"
    assert "test half is empty" in notes


def test_case_23_list_of_annotations() -> None:
    data, _ = told("23_mmaction2_list_pickle/train.pkl")
    assert (data.num_clips, data.layout.name, data.splits) == (4, "coco17", {})


def test_case_29_mocap_files() -> None:
    data, notes = told("29_mocap_files/000001.npy")
    assert (data.layout.name, data.fps.tolist(), data.num_frames) == ("smpl22", [20], 4)
    assert "HumanML3D" in notes
    with pytest.raises(ValueError, match="compute the joints"):
        told("29_mocap_files/amass.npz")


def test_case_31_nan_is_a_joint_not_seen() -> None:
    data, notes = told("31_nan_in_pickle/nan.pkl")
    assert (data.num_clips, data.summary()["missing_joints"]) == (4, 1)
    assert "1 joints are NaN: marked as not seen" in notes


def test_case_34_text_labels() -> None:
    data, _ = told("34_text_label_pickle/text.pkl")
    assert (data.label_names, data.labels.tolist()) == (("run", "walk"), [1, 0, 1, 0])
