"""The pages' template: whatever a part holds is text, and drawings share no ids."""

from __future__ import annotations

import re

import pytest

from fastamr.pages import Cell, Chart, Key, Part, Table, Text, render_page
from fastamr.pages.svg import INK, inline_svg

NASTY = "<script>alert(1)</script>\"' \x1b[2J\x00\r\n\u202e\ud800\udcff&amp;</style>{{ 7 * 7 }}{% raw %}"


def test_every_text_of_every_part_is_escaped() -> None:
    rows = [[NASTY, Cell(NASTY, "worse")], [NASTY, NASTY]]
    parts = [
        Part("", [Text(NASTY, "warning"), Table(rows, title=NASTY, folded=True, numbers=[1.0])]),
        Part(NASTY, [Table(rows, title=NASTY), Chart(NASTY, "<svg></svg>", [Key(NASTY, "")], NASTY, NASTY)]),
        Part(NASTY, []),
    ]
    page = render_page(NASTY, parts, contents=True, about=NASTY)
    assert "<script" not in page
    assert page.count("</style>") == 1
    assert not set(page) & set("\x1b\x00\r\u202e\ud800\udcff")
    assert "{{ 7 * 7 }}{% raw %}" in page
    assert "49" not in page
    assert page.count("&lt;script&gt;") >= 14
    assert page.count("<h2>") == 1  # parts without a block are left out
    for attribute in re.findall(r'aria-label="([^"]*)"', page):
        assert "<" not in attribute


def test_bars_are_shares_of_the_largest() -> None:
    table = Table([["name", "count"], ["a", "2"], ["b", "1"], ["c", "0"]], numbers=[2, 1, 0])
    assert [table.bar(row) for row in range(4)] == ["", "100.0", "50.0", "0.0"]
    assert Table([["a", "b"]]).bar(0) is None
    assert render_page("t", [Part("p", [table])]).count('<div style="width: ') == 3


def test_charts_stand_side_by_side_and_tables_alone() -> None:
    chart = Chart("c", "<svg></svg>")
    page = render_page("t", [Part("p", [chart, chart, Text("x"), chart])])
    assert page.count('<div class="charts">') == 2


def test_drawings_share_no_ids_and_load_nothing() -> None:
    pytest.importorskip("matplotlib")
    import io

    from fastamr.visualization.figures import new_figure

    figure = new_figure(2, 2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=INK, marker="o")
    axes.set_title("</svg> & <b>")
    text = io.StringIO()
    figure.savefig(text, format="svg")
    first, second = (inline_svg(text.getvalue(), prefix) for prefix in ("a-", "b-"))
    ids = [re.findall(r'id="([^"]*)"', one) for one in (first, second)]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])
    for one, known in zip((first, second), ids, strict=True):
        wanted = re.findall(r'(?:href="#|url\(#)([^")]*)', one)
        assert wanted
        assert set(wanted) <= set(known)
        assert "http" not in one
        assert "<style" not in one
        assert "currentColor" in one
        assert INK not in one
        assert one.count("<svg") == one.count("</svg>") == 1


def test_links_of_a_drawing_that_lead_elsewhere_are_dropped() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="9">'
        '<script>x</script><a xlink:href="javascript:x"/><use xlink:href="#k"/><path id="k"/><path id="unused"/></svg>'
    )
    assert inline_svg(svg, "p-") == '<svg><a /><use href="#p-k" /><path id="p-k" /><path /></svg>'
