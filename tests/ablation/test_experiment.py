"""Experiments: one file for three scales, rows beside those of the paper, and mistakes said in one sentence."""

from __future__ import annotations

import pytest
from ablation.toy_ablation import write_toy_ablation

from mmi.ablation.experiment import choose, find_experiments, read_experiment, read_outline
from mmi.config import ConfigError
from mmi.errors import UsageError

TOKENS = "model.network.vision.resampler.n_tokens"
MMFS = "model.network.language.mmfs.enabled"


@pytest.fixture
def root(tmp_path):
    return write_toy_ablation(tmp_path)


def edit(file, old, new):
    text = file.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file.name}"
    file.write_text(text.replace(old, new))


def tokens(root):
    return read_experiment(root / "tokens", "small")


def test_rows_are_the_product_of_the_axes_in_their_order(root):
    rows = tokens(root).rows
    assert [row.values for row in rows] == [
        {"tokens": "few", "mmfs": "off"},
        {"tokens": "few", "mmfs": "on"},
        {"tokens": "many", "mmfs": "off"},
        {"tokens": "many", "mmfs": "on"},
    ]
    assert rows[0].label == "visual tokens 2, MMFS without"
    assert rows[0].settings[TOKENS] == 2
    assert rows[0].settings[MMFS] is False
    assert rows[3].settings == {TOKENS: 4}


def test_rows_stand_beside_those_of_the_paper(root):
    experiment = tokens(root)
    beside = [experiment.paper_row(row) for row in experiment.rows]
    assert [row.values["coco_karpathy_cider"] for row in beside if row] == [107.0, 110.6, 110.7, 110.9]
    without = read_experiment(root / "loss_weights", "small")
    assert [without.paper_row(row) for row in without.rows] == [None] * 4


def test_claims_and_plots_name_rows_axes_and_columns(root):
    experiment = tokens(root)
    (claim,) = experiment.claims
    assert (claim.better, claim.than) == (experiment.rows[1], experiment.rows[0])
    assert [column.name for column in claim.columns] == ["accuracy"]
    (plot,) = experiment.plots
    assert (plot.x, plot.line) == ("tokens", "mmfs")
    assert experiment.seeds == 2
    assert [value.label for value in experiment.axis("tokens").values] == ["2", "4"]


def test_listed_rows_may_have_label_factors_and_settings_of_their_own(root):
    file = root / "tokens" / "experiment.yaml"
    listed = """\
rows:
  - {tokens: few, mmfs: "on", label: ours}
  - {tokens: few, mmfs: "off", paper: null, set: {small: {model.loss.image_weight: 3}}}
"""
    edit(file, "rows: all\n", listed)
    experiment = tokens(root)
    assert [row.label for row in experiment.rows] == ["ours", "visual tokens 2, MMFS without"]
    assert experiment.rows[1].paper is None
    assert experiment.rows[1].settings["model.loss.image_weight"] == 3
    assert [value.name for value in experiment.axis("tokens").values] == ["few"]


def test_a_value_needs_a_label_only_at_scales_whose_rows_use_it(root):
    file = root / "tokens" / "experiment.yaml"
    edit(file, 'label: {small: "4"}', 'label: {full: "256"}')
    with pytest.raises(ConfigError, match=r"axes\.tokens\.values\.many\.label has no text for the scale small"):
        tokens(root)
    rows = 'rows:\n  small: [{tokens: few, mmfs: "on"}, {tokens: few, mmfs: "off"}]\n  full: all\n'
    edit(file, "rows: all\n", rows)
    assert len(tokens(root).rows) == 2


def test_settings_of_a_scale_win_over_those_for_all(root):
    file = root / "tokens" / "experiment.yaml"
    edit(file, f"set: {{small: {{{TOKENS}: 2}}}}", f"set: {{all: {{{TOKENS}: 9, a.b: 1}}, small: {{{TOKENS}: 3}}}}")
    assert tokens(root).rows[1].settings == {TOKENS: 3, "a.b": 1}


def test_columns_that_only_another_scale_has_are_left_out_and_said(root):
    file = root / "tokens" / "experiment.yaml"
    edit(file, "columns: [accuracy, blank, cider]", "columns: [accuracy, okvqa]")
    edit(file, 'columns: [accuracy], text: "Table', 'columns: [okvqa], text: "Table')
    with pytest.raises(ConfigError, match="columns: no recipe has okvqa; known columns: accuracy, blank, cider"):
        tokens(root)
    edit(file, "recipe: {small: toy}", "recipe: {small: toy, full: big}")
    (root / "recipes" / "big").mkdir()
    (root / "recipes" / "big" / "recipe.yaml").write_text("columns: {okvqa: {}}")
    experiment = tokens(root)
    assert [column.name for column in experiment.columns] == ["accuracy"]
    assert experiment.missing_columns == ("okvqa",)
    assert experiment.claims == ()


def test_a_claim_may_be_for_other_scales(root):
    edit(
        root / "tokens" / "experiment.yaml", "columns: [accuracy], text:", "columns: [accuracy], scales: [full], text:"
    )
    assert tokens(root).claims == ()


MISTAKES = {
    "misspelt key": ("question:", "qestion:", "unknown key qestion; did you mean question?"),
    "misspelt key inside": ("x: tokens, line:", "x: tokens, lines:", "unknown key plots[0].lines; did you mean line?"),
    "newer layout": ("schema_version: 1", "schema_version: 9", "schema_version is 9; this version reads 1."),
    "no such table": ('paper_table: "5a"', 'paper_table: "5d"', "no ablation of the paper; expected one of 5a, 5b, 5c"),
    "a table of results": ('paper_table: "5a"', "paper_table: 1", 'paper_table is "1", which is no ablation'),
    "factors without a table": ('paper_table: "5a"', "paper_table: null", "rows[0] has factors of the paper but paper"),
    "factors of no row": ("num_tokens: 32", "num_tokens: 33", "num tokens 33, mmfs no fit no row of table 5a"),
    "a tick is no number": ("paper: {mmfs: true}", "paper: {mmfs: 1}", "num tokens 32, mmfs 1 fit no row"),
    "misspelt factor": (
        "num_tokens: 32",
        "n_tokens: 32",
        "no factor n_tokens in table 5a of the paper; did you mean num",
    ),
    "factors of two rows": ("paper: {num_tokens: 32}", "paper: {}", "mmfs no fit 2 rows of table 5a of the paper"),
    "settings of no scale": (f"set: {{small: {{{TOKENS}: 2}}}}", f"set: {{{TOKENS}: 2}}", "is for no scale; put it"),
    "misspelt scale": (f"set: {{small: {{{TOKENS}: 2}}}}", f"set: {{smal: {{{TOKENS}: 2}}}}", "did you mean small?"),
    "label of a misspelt scale": ('label: {small: "2"}', 'label: {smal: "2"}', "no scale smal; did you mean small?"),
    "an empty part": (f"small: {{{TOKENS}: 2}}", "small: {a..b: 2}", "'a..b' is no setting"),
    "no settings": (f"small: {{{TOKENS}: 2}}", "small: 2", "axes.tokens.values.few.set"),
    "no such scale of a recipe": ("recipe: {small: toy}", "recipe: {tiny: toy}", "recipe: no scale tiny"),
    "seeds of another scale": ("seeds: {small: 2}", "seeds: {full: 1}", "seeds has no number for the scale small"),
    "no seeds": ("seeds: {small: 2}", "seeds: 0", "seeds is 0 at the scale small; expected at least 1."),
    "misspelt column": (
        "[accuracy, blank, cider]",
        "[acuracy, blank]",
        "no recipe has acuracy; did you mean accuracy?",
    ),
    "claim of another column": ("columns: [accuracy], text", "columns: [cidre], text", "did you mean cider?"),
    "claim of no value": ("better: {tokens: few", "better: {tokens: fewer", "claims[0].better.tokens: no value fewer"),
    "claim of no axis": ("better: {tokens: few", "better: {token: few", "no axis token; did you mean tokens?"),
    "claim of two rows": ('better: {tokens: few, mmfs: "on"}', "better: {tokens: few}", "fits 2 rows (visual tokens 2"),
    "claim against itself": ('than: {tokens: few, mmfs: "off"}', 'than: {tokens: few, mmfs: "on"}', "against itself"),
    "claim of a scale nobody has": (
        "columns: [accuracy], text",
        "columns: [accuracy], scales: [big], text",
        "no scale",
    ),
    "plot over nothing": (
        "x: tokens, line",
        "x: token, line",
        "plots[0].x: no axis or cost token; did you mean tokens?",
    ),
    "plot of an unknown line": ("line: mmfs", "line: mfs", "plots[0].line: no axis mfs; did you mean mmfs?"),
    "plot of one axis twice": ("line: mmfs", "line: tokens", "plots[0].line is tokens, as is x"),
    "plot of nothing": ("line: mmfs, columns: [accuracy]", "line: mmfs, columns: []", "plots[0].columns is empty"),
    "rows of an unknown axis": ("rows: all", "rows: [{token: few}]", "rows[0]: no axis token; did you mean tokens?"),
    "rows without an axis": ("rows: all", "rows: [{tokens: few}]", "rows[0] says nothing of the axis mmfs"),
    "no rows": ("rows: all", "rows: every", "rows is 'every'; expected all, or a list of rows"),
    "rows of another scale": ("rows: all", "rows: {full: all}", "rows has nothing for the scale small"),
    "the same row twice": (
        "rows: all",
        'rows: [{tokens: few, mmfs: "on"}, {tokens: few, mmfs: "on", label: again}]',
        "rows[1] has the values of rows[0]",
    ),
    "a row that does not exist": (
        "rows: all",
        'rows: [{tokens: few, mmfs: "on"}, {tokens: many, mmfs: "on"}]',
        "claims[0].than is {tokens: few, mmfs: off}, which fits no row; expected the values of one row.",
    ),
    "truth as a name": ('"off":', "off:", "name a value off, no or false without quotes, which YAML reads as false"),
    "truth in a claim": (
        'better: {tokens: few, mmfs: "on"}',
        "better: {tokens: few, mmfs: on}",
        "which YAML reads as true",
    ),
    "truth in a row": ("rows: all", "rows: [{tokens: few, mmfs: on}]", "which YAML reads as true"),
    "two axes that disagree": (
        f"set: {{small: {{{TOKENS}: 2}}}}",
        f"set: {{small: {{{MMFS}: true}}}}",
        f"rows[0]: two axes set {MMFS}, to True and False",
    ),
    "no text": ("question: Can MMFS replace visual tokens?", "question: [a]", "question is ['a']; expected text."),
    "a key twice": ("rows: all", "rows: all\nclaims: 3", "the key claims is given twice"),
}


@pytest.mark.parametrize(("old", "new", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence_with_the_file(root, old, new, sentence):
    file = root / "tokens" / "experiment.yaml"
    edit(file, old, new)
    with pytest.raises(ConfigError) as caught:
        tokens(root)
    said = str(caught.value)
    assert sentence in said
    assert str(file) in said
    assert "\n" not in said


def test_a_scale_the_experiment_does_not_have_is_refused(root):
    with pytest.raises(ConfigError, match="recipe has nothing for the scale full; expected one of small"):
        read_experiment(root / "tokens", "full")


def test_a_recipe_that_is_not_there_is_named(root):
    edit(root / "tokens" / "experiment.yaml", "recipe: {small: toy}", "recipe: {small: toys}")
    with pytest.raises(ConfigError, match=r"recipes/toys is no recipe"):
        tokens(root)


def test_an_outline_needs_no_recipe(root):
    edit(root / "tokens" / "experiment.yaml", "recipe: {small: toy}", "recipe: {small: toys, full: big}")
    outline = read_outline(root / "tokens")
    assert (outline.name, outline.paper_table, dict(outline.recipes)) == (
        "tokens",
        "5a",
        {"small": "toys", "full": "big"},
    )


def test_experiments_are_found_the_papers_tables_first(root):
    for name, table in (("aaa", "null"), ("resampler", "8"), ("two_shot", '"10"')):
        (root / name).mkdir()
        text = (
            (root / "loss_weights" / "experiment.yaml")
            .read_text()
            .replace("paper_table: null", f"paper_table: {table}")
        )
        (root / name / "experiment.yaml").write_text(text)
    (root / "overfit").mkdir()
    (root / "overfit" / "experiment.yaml").write_text("trainer: {max_steps: 3}\n")
    (root / "stages").mkdir()
    assert [f.name for f in find_experiments(root)] == ["tokens", "resampler", "two_shot", "aaa", "loss_weights"]
    assert [f.name for f in choose(root, ["8", "tokens", "5a"])] == ["resampler", "tokens"]
    assert [f.name for f in choose(root, ["paper"])] == ["tokens", "resampler", "two_shot"]
    assert [f.name for f in choose(root, ["aaa", "all"])] == ["aaa", "tokens", "resampler", "two_shot", "loss_weights"]


def test_a_misspelt_experiment_is_named_with_the_nearest(root):
    with pytest.raises(UsageError, match=r'no experiment "token" in .*; did you mean tokens\?'):
        choose(root, ["token"])
    with pytest.raises(ConfigError, match="is no folder; expected the folder of experiments"):
        choose(root / "nowhere", ["all"])
