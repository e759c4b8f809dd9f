"""Plots: axes of numbers and names, lines apart, error bars inside the picture, words for those who do not see them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from ablation.toy_results import ACCURACY, CIDER, COLUMNS, experiment, measured

from mmi.ablation.design import PlotSpec
from mmi.ablation.plot_series import horizontal_axis, panels
from mmi.ablation.plots import draw

MEANS = {"print": 0.5, "cider": 1.0, "loss": 0.2}
TOKENS = PlotSpec("Token efficiency", "tokens", "mmfs", (ACCURACY,))
SVG = "{http://www.w3.org/2000/svg}"


def everywhere(of):
    return {row.label: MEANS for row in of.rows}


def drawn(spec=TOKENS, labels=("4", "8", "16"), means=None, **settings):
    of = experiment(dict.fromkeys(labels), plots=[spec], **settings)
    return draw(measured(of, everywhere(of) if means is None else means))


@pytest.mark.parametrize(
    ("labels", "is_numeric", "log", "places"),
    [
        (("4", "8", "16"), True, True, [4, 8, 16]),
        (("16", "4"), True, True, [4, 16]),
        (("1", "2", "3"), True, False, [1, 2, 3]),
        (("0.5", "1"), True, True, [0.5, 1]),
        (("0", "1"), True, True, [0, 1]),
        (("all", "nearest"), False, False, [0, 1]),
        (("4", "many"), False, False, [0, 1]),
        (("4",), False, False, [0]),
    ],
)
def test_an_axis_is_one_of_numbers_where_its_labels_are(labels, is_numeric, log, places):
    axis = horizontal_axis(experiment(dict.fromkeys(labels)), TOKENS)
    assert axis.is_numeric is is_numeric
    assert axis.log is (log and places[0] > 0)
    assert [place for place, _ in axis.ticks] == places


def test_every_score_becomes_a_point_of_its_line():
    of = experiment({"4": None, "8": None}, plots=[TOKENS])
    (panel,) = panels(measured(of, {"4, with MMFS": MEANS, "8, with MMFS": MEANS, "8, without MMFS": MEANS}), TOKENS)
    assert {s.name: [(p.x, p.name) for p in s.points] for s in panel.series} == {
        "without MMFS": [(8.0, "8")],
        "with MMFS": [(4.0, "4"), (8.0, "8")],
    }
    assert panel.absent == ("4, without MMFS",)


def test_an_axis_that_is_neither_x_nor_line_divides_lines():
    spec = PlotSpec("MMFS", "mmfs", None, (ACCURACY,))
    of = experiment({"4": None, "8": None}, plots=[spec])
    (panel,) = panels(measured(of, everywhere(of)), spec)
    assert [s.name for s in panel.series] == ["visual tokens: 4", "visual tokens: 8"]


def test_a_plot_over_a_cost_stands_at_what_cells_took():
    spec = PlotSpec("Quality and cost", "step_seconds", "mmfs", (ACCURACY,))
    of = experiment({"4": None}, plots=[spec])
    (panel,) = panels(measured(of, everywhere(of)), spec)
    assert [(p.x, p.name) for s in panel.series for p in s.points] == [(0.25, "visual tokens: 4")] * 2
    (plot,) = draw(measured(of, everywhere(of)))
    assert "seconds per step" in plot.svg.text


def test_lines_differ_in_colour_and_form_also_beyond_six():
    spec = PlotSpec("MMFS", "mmfs", None, (ACCURACY,))
    (plot,) = drawn(spec, [str(2**i) for i in range(8)])
    tree = ElementTree.fromstring(plot.file())
    forms = [
        (mark.get("class"), mark.get("d", "circle")) for mark in tree.iter() if "form" in (mark.get("class") or "")
    ]
    assert len(set(forms)) == 8


def test_error_bars_stay_inside_the_picture_and_beside_each_other():
    (plot,) = drawn(PlotSpec("All", "tokens", "mmfs", COLUMNS))
    tree = ElementTree.fromstring(plot.file())
    width, height = (float(x) for x in tree.get("viewBox").split()[2:])
    bars = [b for b in tree.iter(f"{SVG}line") if "bar" in b.get("class")]
    assert len(bars) == 3 * 3 * 2 * 3, "a line and two caps for each of 6 points in 3 panels"
    for bar in bars:
        assert all(0 <= float(bar.get(name)) <= width for name in ("x1", "x2"))
        assert all(0 <= float(bar.get(name)) <= height for name in ("y1", "y2"))
    upright = [(bar.get("x1"), min(bar.get("y1"), bar.get("y2"))) for bar in bars if bar.get("x1") == bar.get("x2")]
    assert len({x for x, _ in upright}) == 2 * 2 * 3, "six places in each of two columns of panels"


def test_words_say_what_a_picture_shows():
    (plot,) = drawn(labels=("4",), means={"4, with MMFS": MEANS})
    assert re.search(r"small print \(%\), with MMFS: 4: \d+\.\d \[\d+\.\d, \d+\.\d\]\.", plot.words)
    assert "Not drawn, without a score: 4, without MMFS." in plot.notes
    tree = ElementTree.fromstring(plot.file())
    assert tree.find(f"{SVG}desc").text == plot.words
    assert tree.find(f"{SVG}title").text == "Token efficiency"
    shown = {text.text for text in tree.iter(f"{SVG}text")}
    assert {"Token efficiency", "small print (%)", "visual tokens", "percent", "4", "with MMFS"} <= shown


def test_one_seed_is_hollow_and_said():
    of = experiment(plots=[TOKENS])
    (plot,) = draw(measured(of, everywhere(of), seeds=(0,)))
    assert plot.svg.text.count("hollow") == 4
    assert any("preliminary" in note for note in plot.notes)
    (whole,) = draw(measured(of, everywhere(of)))
    assert "hollow" not in whole.svg.text


def test_a_file_holds_its_own_colours_for_light_and_dark():
    text = drawn()[0].file()
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    used = set(re.findall(r"var\((--\w+)\)", text))
    assert used <= set(re.findall(r"(--\w+):", text))


def test_nothing_measured_draws_nothing():
    assert drawn(means={}) == []


def test_labels_are_escaped():
    (plot,) = drawn(replace(TOKENS, title="a < b & c"))
    assert "a &lt; b &amp; c" in plot.svg.text
    ElementTree.fromstring(plot.file())


def test_columns_of_cider_are_no_percent():
    (plot,) = drawn(replace(TOKENS, columns=(CIDER,)))
    assert "CIDEr (x100)" in plot.svg.text


def test_rows_that_are_not_drawn_are_told_apart_though_their_names_have_commas():
    of = experiment()
    (plot, *_) = draw(measured(of, {of.rows[0].label: {"print": 0.6, "cider": 1.0, "loss": 0.2}}))
    assert f"Not drawn, without a score: {'; '.join(row.label for row in of.rows[1:])}." in plot.notes
