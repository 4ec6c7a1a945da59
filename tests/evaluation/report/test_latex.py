"""LaTeX tables: what is bold, and that any names compile."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastamr.cli import main
from fastamr.evaluation.report.comparison import Cell, Group, Row, compare_runs
from fastamr.evaluation.report.latex import format_latex
from fastamr.evaluation.report.seeds import group_seeds

from .test_comparison import report

# All that a table may hold; anything else is an error here, as an unknown command is one of TeX.
COMMANDS = {
    *("begin", "end", "centering", "toprule", "midrule", "bottomrule", "caption", "label", "textbf"),
    *("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar", "pm"),
}
RULES = (r"\toprule", r"\midrule", r"\bottomrule")


class Tables:
    """Reads LaTeX as strictly as TeX does, for the little of it that tables use.

    Attributes:
        rows: of each ``tabular``, its cells.
        labels: of the tables.
    """

    def __init__(self, text: str) -> None:
        self.rows: list[list[list[str]]] = []
        self.labels = re.findall(r"\\label\{([^}]*)\}", text)
        assert all(re.fullmatch(r"tab:[a-z0-9-]+", label) for label in self.labels)
        assert len(set(self.labels)) == len(self.labels)
        body = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("%"))
        self._braces_and_commands(body)
        self._environments(body)

    def _braces_and_commands(self, text: str) -> None:
        """Braces match, commands are known, ``$`` comes in pairs within a line, nothing special stands bare."""
        depth, place, math = 0, 0, False
        while place < len(text):
            letter = text[place]
            if letter == "\\":
                name = re.compile(r"\\([a-zA-Z]+|.)", re.DOTALL).match(text, place)
                assert name is not None
                assert name[1] in COMMANDS or name[1] in "\\&%$#_{}", name[0]
                if name[1] == "\\":
                    after = text[name.end() :].lstrip()
                    assert after[:1] not in ("[", "*"), "an option of the line's end"
                place = name.end()
                continue
            assert letter not in "%#_^~", (letter, text[place - 20 : place + 20])
            depth += (letter == "{") - (letter == "}")
            assert depth >= 0
            math ^= letter == "$"
            assert not (math and letter == "\n")
            place += 1
        assert depth == 0
        assert not math
        assert "\n\n\n" not in text

    def _environments(self, text: str) -> None:
        open_: list[str] = []
        for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
            if kind == "begin":
                open_.append(name)
            else:
                assert open_.pop() == name
        assert open_ == []
        for columns, inside in re.findall(
            r"\\begin\{tabular\}\{([lr]+)\}\n(.*?)\\end\{tabular\}", text, re.DOTALL
        ):
            lines = [line for line in inside.splitlines() if line not in RULES]
            assert all(line.endswith(r" \\") for line in lines)
            rows = [re.split(r"(?<!\\) & ", line.removesuffix(r" \\")) for line in lines]
            assert {len(row) for row in rows} == {len(columns)}
            assert all(rows[0]), "a column without a name"
            self.rows.append(rows)


def row(name: str, **cells: Cell | None) -> Row:
    return Row(name, "runs/x", "measured", dict(cells))


def test_of_evaluations() -> None:
    groups = compare_runs([report(run="runs/my_amr", data=["a&b.st"], protocol="semi")], published="ntu60")
    text = format_latex(groups)
    assert r"AMR & runs/my\_amr & \textbf{83.0 $\pm$ 2.0} & \textbf{84.2} & - & - & measured \\" in text
    assert r"AMR &  & - & - & 72.2 & 89.0 & published [1] \\" in text
    assert r"\caption{a\&b, split xsub, few labels; percent" in text
    assert text.startswith("% \\usepackage{booktabs}\n\\begin{table}\n")
    assert text.index("measured") < text.rindex(r"\midrule") < text.index("published")
    tables = Tables(text)
    assert tables.labels == ["tab:a-b-xsub-semi"]
    assert tables.rows[0][0] == [
        "method",
        "run",
        "linear",
        "logistic",
        r"1 \% labels",
        r"10 \% labels",
        "numbers",
    ]


def test_best_measured_values_are_bold() -> None:
    rows = [
        row("a", knn_1=Cell((80.0, 82.0)), linear=Cell((70.04,)), map=None),
        row("b", knn_1=Cell((79.0,)), linear=Cell((70.0,)), map=Cell((50.0,))),
        row("c", knn_1=None, linear=Cell((69.9,)), map=None),
    ]
    published = [Row("d", "", "a paper", {"knn_1": Cell((99.0,))})]
    text = format_latex([Group("x", "official", "frozen encoder", rows, published)])
    bold = [[cell.startswith(r"\textbf{") for cell in line[2:5]] for line in Tables(text).rows[0][1:]]
    # 70.04 and 70.0 read the same; a single value is not the best of anything; published ones are not compared.
    assert bold == [[True, False, True], [False, False, True], [False] * 3, [False] * 3]
    assert "Bold: the best measured one." in text
    assert "Bold" not in format_latex([Group("x", "official", "frozen encoder", rows[:1])])


def test_runs_that_differ_in_their_seed_are_one_row() -> None:
    reports = []
    for seed, accuracy in ((0, 80.0), (1, 84.0), (2, 82.0)):
        one = copy.deepcopy(report(run=f"runs/amr/seed-{seed}"))
        one["results"] = {"encoder": {"linear": {"accuracy": accuracy, "per_seed": [accuracy]}}}
        one["pretraining"] = {f"runs/amr/seed-{seed}": {"model": "amr", "seed": seed}}
        reports.append(one)
    text = format_latex(group_seeds(compare_runs(reports, published="none")))
    (rows,) = Tables(text).rows
    assert rows[1:] == [
        ["AMR", r"runs/amr/\{seed-0, seed-1, seed-2\} (n = 3)", r"82.0 $\pm$ 2.0", "measured"],
    ]


def test_tables_of_one_document_have_labels_of_their_own() -> None:
    groups = [Group(name, "official", "semi", [row("a")]) for name in ("Übung", "ubung", "姿勢", "!", "?")]
    assert Tables(format_latex(groups)).labels == [
        "tab:u-bung-official-semi", "tab:ubung-official-semi", "tab:official-semi", "tab:official-semi-2",
        "tab:official-semi-3",
    ]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(names=st.lists(st.text(max_size=12), min_size=4, max_size=4))
def test_any_names_make_a_sound_table(names: list[str]) -> None:
    method, run, data, source = names
    rows = [Row(method, run, "measured", {"knn_1": Cell((1.0,)), f"probe {data}": None}), row(run)]
    groups = [Group(data, run, method, rows, [Row(source, "", source, {"knn_1": Cell((2.0,))})])] * 2
    text = format_latex(groups)
    tables = Tables(text)
    assert [len(rows) for rows in tables.rows] == [4, 4]


def test_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    path = tmp_path / "evaluation-linear.json"
    path.write_text(json.dumps(report()))
    assert main(["table", str(path), "--latex"]) == 0
    shown = capsys.readouterr().out
    assert Tables(shown).labels == ["tab:ntu60-xsub-frozen-encoder"]
    assert main(["table", str(path), "--format", "latex"]) == 0
    assert capsys.readouterr().out == shown
    assert main(["table", str(path), "--latex", "--format", "csv"]) == 2
    assert "--latex and --format csv differ" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_pdflatex_takes_it(tmp_path: Path) -> None:
    special = "".join(chr(code) for code in range(32, 127)) + "äÖßé±"
    rows = [
        Row(special, special, "measured", {"knn_1": Cell((1.0, 2.0))}),
        row("[a]"),
        row("*b", knn_1=Cell((3.0,))),
    ]
    table = format_latex([Group(special, "official", "semi", rows, [Row(special, "", special, {})])])
    document = (
        "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage{booktabs}\n\\begin{document}\n"
    )
    (tmp_path / "a.tex").write_text(f"{document}{table}\\end{{document}}\n", encoding="utf-8")
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    made = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert made.returncode == 0, made.stdout[-2000:]
    assert (tmp_path / "a.pdf").stat().st_size > 0
