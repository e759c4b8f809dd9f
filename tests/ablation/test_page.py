"""The page of an experiment is whole, self-contained and usable; the overview names every experiment and scale."""

from __future__ import annotations

import json

import pytest
from ablation.toy_ablation import write_toy_ablation
from ablation.toy_results import COLUMNS, experiment, measured
from html_page import Page, is_usable, is_whole, needs_nothing

from mmi.ablation.blocks import BEGIN, END
from mmi.ablation.design import PlotSpec
from mmi.ablation.experiment import read_experiment
from mmi.ablation.page import results_page, write_overview
from mmi.ablation.plots import draw
from mmi.ablation.records import Store
from mmi.ablation.tables import write_results
from mmi.ablation.verdicts import judge
from mmi.config import ConfigError

SCORES = {"print": 0.6, "cider": 1.0, "loss": 0.2}
PLOTS = (PlotSpec("Tokens", "tokens", "mmfs", COLUMNS), PlotSpec("Cost", "step_seconds", "mmfs", COLUMNS[:1]))


def page_of(means, **settings):
    of = experiment(plots=PLOTS)
    made = measured(of, means(of), **settings)
    return Page(results_page(made, judge(made), draw(made)))


@pytest.mark.parametrize(
    "means",
    [
        pytest.param(lambda of: {row.label: SCORES for row in of.rows}, id="whole"),
        pytest.param(lambda of: {of.rows[0].label: SCORES}, id="one-row"),
        pytest.param(lambda of: {}, id="nothing-yet"),
    ],
)
def test_a_page_is_whole_and_self_contained_and_usable(means):
    page = page_of(means)
    for check in (is_whole, needs_nothing, is_usable):
        check(page)


def test_a_page_shows_plots_verdicts_and_where_it_comes_from():
    page = page_of(lambda of: {row.label: SCORES for row in of.rows}, seeds=(0,))
    assert len(page.all("svg")) == 2
    for words in ("Preliminary: every row has one seed.", "undecided (preliminary: one seed)", "warm start", "22.5"):
        assert words in page.text
    assert "mmi ablate tokens --scale small" in page.text


def test_titles_cannot_change_a_page():
    of = experiment(plots=[PlotSpec("<script>alert(1)</script>", "tokens", "mmfs", COLUMNS)])
    made = measured(of, {row.label: SCORES for row in of.rows})
    needs_nothing(Page(results_page(made, judge(made), draw(made))))


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_toy_ablation(tmp_path)


def lines(root):
    return [line for line in (root / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| [")]


def test_the_overview_names_experiments_that_were_not_run(root):
    path = write_overview(root)
    assert path == root / "README.md"
    tokens, weights = lines(root)
    assert "[tokens](tokens/README.md)" in tokens
    assert "table 5a" in tokens
    assert "not run" in tokens
    assert "[loss_weights](loss_weights/README.md)" in weights
    assert "would be written by `mmi ablate loss_weights --scale small`" in weights


def test_the_overview_counts_cells_and_verdicts_and_keeps_prose(root):
    (root / "README.md").write_text(f"My words.\n\n{BEGIN}\n{END}\n\nMore words.\n", encoding="utf-8")
    write_results(read_experiment(root / "tokens", "small"), Store(root, root / "runs"))
    results = root / "tokens/results/small.json"
    tree = json.loads(results.read_text(encoding="utf-8"))
    tree["cells"] = {"planned": 8, "finished": 5, "failed": 2}
    tree["verdicts"] = {"holds": 3, "contradicted": 1, "undecided": 0, "not run": 4}
    tree["preliminary"] = True
    results.write_text(json.dumps(tree), encoding="utf-8")
    write_overview(root)
    cells = [cell.strip() for cell in lines(root)[0].strip("|").split("|")]
    assert cells[3:] == [
        "small",
        "5 of 8, 2 failed",
        "3",
        "1",
        "-",
        "4",
        "[table](tokens/results/small.md) (preliminary)",
    ]
    text = (root / "README.md").read_text(encoding="utf-8")
    assert text.startswith("My words.")
    assert text.endswith("More words.\n")
    before = text
    write_overview(root)
    assert (root / "README.md").read_text(encoding="utf-8") == before


def test_results_that_cannot_be_read_are_named(root):
    broken = root / "tokens/results/small.json"
    broken.parent.mkdir(parents=True)
    for text in ("{", "[]", "{}"):
        broken.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"small\.json"):
            write_overview(root)
