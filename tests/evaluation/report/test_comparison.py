from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from fastamr.cli import main
from fastamr.evaluation.report.comparison import (
    Cell,
    average_folds,
    compare_runs,
    find_reports,
    format_csv,
    format_markdown,
    read_report,
)
from fastamr.evaluation.report.latex import format_latex
from fastamr.evaluation.report.published import DATA_SETS, PUBLISHED, data_set_of


def report(run: str = "runs/amr", model: str = "amr", **settings: Any) -> dict[str, Any]:
    """What an evaluation writes, as far as tables read it."""
    config = {
        "checkpoint": run,
        "data": ["ntu60.safetensors"],
        "protocol": "linear",
        "split": "xsub",
    } | settings

    def one(*values: float) -> dict[str, Any]:
        return {"accuracy": sum(values) / len(values), "per_seed": list(values)}

    return {
        "config": config,
        "model": {"name": model},
        "split": {"name": config["split"]},
        "results": {
            "raw": {"linear": one(50.0), "logistic": None},
            "random": {"linear": one(40.0, 42.0), "logistic": one(45.0)},
            "encoder": {"linear": one(81.0, 83.0, 85.0), "logistic": one(84.25)},
        },
    }


class TestGroups:
    def test_by_data_split_and_protocol(self):
        reports = [
            report(),
            report(protocol="finetune"),
            report(split="xview"),
            report(protocol="all"),
            report(data=["a/pku2.safetensors", "b/pku1.st"]),
        ]
        groups = compare_runs(reports)
        assert [(group.data, group.split, group.protocol) for group in groups] == [
            ("ntu60", "xsub", "finetune"),
            ("ntu60", "xsub", "frozen encoder"),
            ("ntu60", "xview", "frozen encoder"),
            ("pku2+pku1", "xsub", "frozen encoder"),
        ]

    def test_baselines_come_first_and_only_once_where_they_are_the_same(self):
        (group,) = compare_runs([report(), report("runs/mae", "skeleton_mae")], published="none")
        assert [(row.method, row.run) for row in group.rows] == [
            ("raw coordinates", ""),
            ("random AMR", "runs/amr"),
            ("random SkeletonMAE", "runs/mae"),
            ("AMR", "runs/amr"),
            ("SkeletonMAE", "runs/mae"),
        ]
        other = report()
        other["results"]["raw"]["linear"] = {"accuracy": 51.0, "per_seed": [51.0]}
        (group,) = compare_runs([report(), other])
        assert [row.method for row in group.rows] == ["raw coordinates"] * 2 + ["random AMR", "AMR"]

    def test_what_another_evaluation_holds_wholly_stands_once(self):
        part = report()
        for scores in part["results"].values():
            del scores["logistic"]
        for given in ([part, report()], [report(), part]):
            (group,) = compare_runs(given)
            assert group.rows == compare_runs([report()])[0].rows
        part["results"]["encoder"]["linear"]["per_seed"] = [1.0]  # of other settings
        (group,) = compare_runs([part, report()])
        assert [row.method for row in group.rows] == ["raw coordinates", "random AMR", "AMR", "AMR"]

    def test_rows_of_one_name_tell_the_settings_that_differ(self):
        """Only those that differ: not the file, the batch size, or a default that one of the files names."""
        first = report(seeds=[0], bodies="existing", out="a.json", batch_size=64)
        second = report(seeds=[0, 1], finetune={"epochs": 7}, standardize=False, out="b.json")
        second["results"]["encoder"]["linear"]["per_seed"] = [1.0]
        (group,) = groups = compare_runs([first, second, report("runs/b")], published="none")
        assert [row.label for row in group.rows if row.method == "AMR"] == [
            "AMR (seeds=0, finetune.epochs=100)",
            "AMR (seeds=0 1, finetune.epochs=7)",
            "AMR",
        ]
        assert [row.label for row in group.rows[:2]] == ["raw coordinates", "random AMR"]
        assert "| AMR (seeds=0 1, finetune.epochs=7) | runs/amr | 1.0 |" in format_markdown(groups)
        assert r"AMR (seeds=0, finetune.epochs=100) & runs/amr & \textbf{83.0" in format_latex(groups)
        rows = list(csv.DictReader(io.StringIO(format_csv(groups))))
        assert {row["settings"] for row in rows if row["method"] == "AMR" and row["run"] == "runs/amr"} == {
            "seeds=0, finetune.epochs=100",
            "seeds=0 1, finetune.epochs=7",
        }

    def test_folds_are_averaged_for_each_setting(self):
        reports = []
        for split in ("fold0", "fold1"):
            for number, bodies in enumerate(("existing", "field")):
                one = report(split=split, bodies=bodies)
                one["results"]["encoder"]["linear"]["per_seed"] = [10.0 * number + (split == "fold1")]
                reports.append(one)
        (group,) = average_folds(compare_runs(reports, published="none"))
        means = {row.label: row.cells["linear"].mean for row in group.rows if row.method == "AMR"}
        assert means == {"AMR (bodies=existing)": 0.5, "AMR (bodies=field)": 10.5}

    def test_mean_and_spread(self):
        (group,) = compare_runs([report()])
        row = group.rows[-1]
        assert row.cells["linear"] == Cell((81.0, 83.0, 85.0))  # deviations -2, 0, 2: sqrt(8 / 2)
        assert str(row.cells["linear"]) == "83.0 ± 2.0"
        assert str(row.cells["logistic"]) == "84.2"
        assert group.rows[0].cells["logistic"] is None

    def test_folds_are_averaged_seed_by_seed(self):
        first, second = report(split="fold0"), report(split="fold1")
        second["results"]["encoder"]["linear"]["per_seed"] = [71.0, 75.0, 79.0]
        second["results"]["raw"]["linear"]["per_seed"] = [55.0]
        alone = report(split="fold1", run="runs/b")
        (group,) = average_folds(compare_runs([first, second, alone], published="none"))
        assert (group.split, [row.method for row in group.rows]) == ("2 folds", ["random AMR", "AMR"])
        # Means 76, 79 and 82 of the three seeds.
        assert group.rows[-1].cells["linear"] == Cell((76.0, 79.0, 82.0))
        assert str(group.rows[-1].cells["linear"]) == "79.0 ± 3.0"
        (group,) = average_folds(compare_runs([first, second]))
        assert group.rows[0].cells == {"linear": Cell((52.5,)), "logistic": None}
        second["results"]["encoder"]["linear"]["per_seed"] = [71.0]
        (group,) = average_folds(compare_runs([first, second]))
        assert group.rows[-1].cells["linear"] is None  # another number of seeds
        assert [one.split for one in average_folds(compare_runs([report(), first]))] == ["fold0", "xsub"]
        other = report(run="runs/c", split="fold1")
        del other["results"]["raw"]
        with pytest.raises(ValueError, match=r"fold0, fold1 have no row in common; evaluate each run"):
            average_folds(compare_runs([first, other]))

    def test_fused_streams(self):
        fused = report(fuse=["runs/bone"])
        fused["streams"] = [
            {"stream": name, "checkpoint": f"runs/{name}", "model": "amr", "results": report()["results"]}
            for name in ("joint", "bone")
        ]
        (group,) = compare_runs([fused], published="none")
        assert [(row.method, row.run) for row in group.rows] == [
            ("raw coordinates", ""),
            ("random AMR, fused", "runs/amr + runs/bone"),
            ("AMR, fused", "runs/amr + runs/bone"),
            ("AMR, joint", "runs/joint"),
            ("AMR, bone", "runs/bone"),
        ]


class TestPublished:
    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("ntu60", "ntu60"),
            ("ntu60_3danno", "ntu60"),
            ("NTU-RGB+D-120.xset", "ntu120"),
            ("ntu600", None),
            ("pku1", "pku1"),
            ("PKU_MMD_II", "pku2"),
            ("pkummd1_k20", "pku1"),
            ("pku_v2", "pku2"),
            ("ucla", None),
            ("not_ntu60", None),
        ],
    )
    def test_files_are_told_by_their_name(self, name, data):
        assert data_set_of(name) == data

    def test_every_value_has_a_source_and_stands_once(self):
        assert len({one[:5] for one in PUBLISHED}) == len(PUBLISHED)
        assert all(one.data in DATA_SETS and 0 < one.value < 100 and one.source for one in PUBLISHED)
        value = {one[:5]: one.value for one in PUBLISHED}
        assert value["AMR", "ntu60", "xsub", "frozen encoder", "linear"] == 87.4
        assert value["GFP", "ntu120", "xset", "frozen encoder", "linear"] == 80.3
        assert value["MAMP", "ntu60", "xview", "finetune", "finetune"] == 97.5
        assert value["AMR", "ntu60", "xview", "semi", "semi_10"] == 92.7

    def test_never_among_the_measured_ones(self):
        (group,) = compare_runs([report()])
        assert all(row.source == "measured" for row in group.rows)
        assert [row.method for row in group.published] == ["SkeletonMAE", "MAMP", "S-JEPA", "GFP", "AMR"]
        assert all("20" in row.source for row in group.published)
        (group,) = compare_runs([report(split="official")])
        assert group.published == []
        (group,) = compare_runs([report(data=["mine.st"])], published="ntu60")
        assert len(group.published) == 5
        with pytest.raises(ValueError, match="unknown published 'ntu61'"):
            compare_runs([report()], published="ntu61")


class TestTexts:
    def test_markdown(self):
        (group,) = groups = compare_runs([report()])
        group.published = group.published[-1:]
        lines = format_markdown(groups).splitlines()
        assert lines[:7] == [
            "### ntu60, split xsub, frozen encoder",
            "",
            "| method | run | linear | logistic | numbers |",
            "| --- | --- | ---: | ---: | --- |",
            "| raw coordinates |  | 50.0 | - | measured |",
            "| random AMR | runs/amr | 41.0 ± 1.4 | 45.0 | measured |",
            "| AMR | runs/amr | 83.0 ± 2.0 | 84.2 | measured |",
        ]
        assert lines[7] == "| AMR |  | 87.4 | - | published [1] |"
        assert lines[-1] == "[1] Sun et al., AMR, CVPR 2026, arXiv 2606.11450"
        assert any(line.startswith("Published: as the papers report them") for line in lines)
        plain = format_markdown(compare_runs([report()], published="none"))
        assert "ublished" not in plain

    def test_csv(self):
        rows = list(csv.DictReader(io.StringIO(format_csv(compare_runs([report(run='a,"b"')])))))
        assert len(rows) == 5 + 5  # raw has no logistic regression
        row = next(row for row in rows if row["method"] == "AMR" and row["numbers"] == "measured")
        assert row == {
            "data": "ntu60", "split": "xsub", "protocol": "frozen encoder", "method": "AMR", "settings": "",
            "run": 'a,"b"', "numbers": "measured", "source": "", "probe": "linear", "mean": "83.0", "deviation": "2.0",
            "seeds": "3",
        }  # fmt: skip
        assert {row["numbers"] for row in rows if row["source"]} == {"published"}


class TestFiles:
    def write(self, path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def test_folders_folders_of_folders_and_files(self, tmp_path):
        one = self.write(tmp_path / "runs" / "a" / "evaluation-ntu60-xsub-all.json", report())
        two = self.write(tmp_path / "runs" / "b" / "evaluation-ntu60-xsub-semi.json", report())
        self.write(tmp_path / "runs" / "b" / "config.json", {})
        mine = self.write(tmp_path / "mine.json", report())
        assert find_reports([tmp_path / "runs"]) == [one, two]
        assert find_reports([tmp_path / "runs" / "b", mine, two]) == [two, mine]
        with pytest.raises(FileNotFoundError, match=r"holds no evaluation\*\.json: run fastamr evaluate"):
            find_reports([self.write(tmp_path / "empty" / "x.txt", "").parent])
        with pytest.raises(FileNotFoundError, match="no file or folder"):
            find_reports([tmp_path / "nowhere"])

    def test_files_of_something_else(self, tmp_path):
        with pytest.raises(ValueError, match=r"is not valid JSON \(.*evaluate the run again"):
            read_report(self.write(tmp_path / "a.json", "{"))
        with pytest.raises(ValueError, match="it lacks model, split, results"):
            read_report(self.write(tmp_path / "a.json", {"config": {}}))
        with pytest.raises(ValueError, match="it lacks config"):
            read_report(self.write(tmp_path / "a.json", "[]"))

    def test_command(self, tmp_path, capsys):
        run = self.write(tmp_path / "a" / "evaluation-ntu60-xsub-all.json", report()).parent
        assert main(["table", str(run)]) == 0
        assert "| AMR | runs/amr | 83.0 ± 2.0 |" in capsys.readouterr().out
        out = tmp_path / "table.tex"
        assert main(["table", str(run), "--format", "latex", "--published", "none", "--out", str(out)]) == 0
        assert r"\toprule" in out.read_text()
        assert "published" not in out.read_text()
        assert main(["table", str(run), "--out", str(tmp_path / "new" / "er" / "x.md")]) == 0
        assert "| AMR |" in (tmp_path / "new" / "er" / "x.md").read_text()
        assert main(["table", str(run), "--out", str(out / "x.md")]) == 1
        assert "is a file: name another folder" in capsys.readouterr().err
        assert main(["table", str(run), "--out", str(tmp_path)]) == 1
        assert "is a folder: name a file" in capsys.readouterr().err
        assert main(["table", str(tmp_path / "nowhere")]) == 1

    def test_reads_what_evaluate_writes(self, tmp_path, make_data):
        from fastamr.evaluation.evaluate import EvaluateConfig, evaluate
        from fastamr.models import build_model

        from ..protocols.test_transfer import TINY

        build_model("amr", layout=make_data(clips=1).layout, **TINY).save_pretrained(tmp_path / "run")
        for protocol, seeds in (("knn", [0, 1]), ("retrieval", [0])):
            config = EvaluateConfig(
                checkpoint=str(tmp_path / "run"), data=["x.st"], protocol=protocol, seeds=seeds, device="cpu"
            )
            written = evaluate(config, data=make_data(), quiet=True)
        groups = compare_runs(map(read_report, find_reports([tmp_path / "run"])))
        assert [group.protocol for group in groups] == ["frozen encoder", "retrieval"]
        assert [row.method for row in groups[0].rows] == [
            "raw coordinates",
            "encoder's input",
            "random AMR",
            "AMR",
        ]
        assert groups[1].rows[-1].cells["map"].mean == written["results"]["encoder"]["map"]["accuracy"]
