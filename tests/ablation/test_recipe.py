"""Recipes are read strictly, and the hash of the warm start is of what decides its weights."""

from __future__ import annotations

import pytest
from ablation.toy_ablation import write_toy_ablation

from mmi.ablation.hashing import canonical_hash
from mmi.ablation.recipe import CONDITIONS, condition_name, evaluation_tree, read_recipe
from mmi.config import ConfigError
from mmi_eval.results import Condition


@pytest.fixture
def folder(tmp_path):
    return write_toy_ablation(tmp_path) / "recipes" / "toy"


def edit(file, old, new):
    text = file.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file.name}"
    file.write_text(text.replace(old, new))


def test_a_recipe_holds_what_its_file_says(folder):
    recipe = read_recipe(folder)
    assert (recipe.name, recipe.config, recipe.stop_after_minutes) == ("toy", folder / "cell.yaml", 5.0)
    assert recipe.prepare[0].command == ("data", "microworld", "--out", "w", "--size", "8")
    assert recipe.evaluation is not None
    assert recipe.evaluation.labels == ("micro_quiz", "coco_caption")
    assert list(recipe.columns) == ["accuracy", "blank", "cider"]
    assert recipe.columns["blank"].condition == "blank"
    assert recipe.columns["cider"].paper == "coco_karpathy_cider"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("title: Toy cells", "titel: Toy cells", "unknown key titel; did you mean title?"),
        ("schema_version: 1", "schema_version: 2", "schema_version is 2; this version reads 1."),
        ("schema_version: 1\n", "", "schema_version is missing"),
        ("config: cell.yaml", "config: sell.yaml", "config is sell.yaml, which is not in"),
        ("suite: cells", "suite: cels", 'no suite "cels" in'),
        ("score: cider", "scor: cider", "unknown key columns.cider.scor; did you mean score?"),
        ("task: coco_caption", "task: coco_captions", "did you mean coco_caption?"),
        ("condition: blank", "condition: swapped", "under which micro_quiz is not asked; expected one of blank, tra"),
        ("conditions: true", "conditions: false", "expected one of trained (evaluation.conditions is false)"),
        ("paper: okvqa_acc", "paper: okvqa_ac", "columns.accuracy.paper: no metric okvqa_ac; did you mean okvqa_acc?"),
        ("command: [data,", "command: [mmi, data,", "expected the words after mmi"),
        ("stop_after_minutes: 5", "stop_after_minutes: 0", "stop_after_minutes is 0.0; expected more than 0"),
        ("label: CIDEr", "label: [CIDEr]", "columns.cider.label is ['CIDEr']; expected text."),
        ("columns:", "columns: {", "recipe.yaml line"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_and_key(folder, old, new, sentence):
    edit(folder / "recipe.yaml", old, new)
    with pytest.raises(ConfigError) as caught:
        read_recipe(folder)
    assert str(folder / "recipe.yaml") in str(caught.value)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_without_an_evaluation_are_refused_and_none_are_fine(folder):
    file = folder / "recipe.yaml"
    text = file.read_text()
    start = text.index("evaluation:")
    file.write_text(text[:start] + "evaluation: null\n" + text[text.index("stop_after") :])
    with pytest.raises(ConfigError, match=r"columns\.accuracy needs an evaluation"):
        read_recipe(folder)
    file.write_text(file.read_text()[: file.read_text().index("columns:")])
    recipe = read_recipe(folder)
    assert recipe.evaluation is None
    assert not recipe.columns


def test_a_folder_without_a_recipe_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no recipe: it has no recipe\.yaml"):
        read_recipe(tmp_path)


def test_the_warm_start_hash_moves_with_weights_and_data_and_with_nothing_else(folder):
    before = read_recipe(folder).warm_start_hash()
    assert before is not None
    assert len(before) == 64
    edit(folder / "warm_start.yaml", "name: toy-warm-start", "name: another, loggers: [csv, wandb], folder: elsewhere")
    edit(folder / "recipe.yaml", "title: Toy cells", "title: Another title")
    edit(folder / "cell.yaml", "max_steps: 4", "max_steps: 8")
    assert read_recipe(folder).warm_start_hash() == before
    edit(folder / "warm_start.yaml", "max_steps: 4", "max_steps: 6")
    longer = read_recipe(folder).warm_start_hash()
    assert longer != before
    edit(folder / "recipe.yaml", "--size, 8", "--size, 9")
    assert read_recipe(folder).warm_start_hash() not in (before, longer)


def test_a_preparation_that_does_not_count_is_in_no_hash(folder):
    before = read_recipe(folder).warm_start_hash()
    spare = "  - {makes: w/spare, command: [data, microworld, --out, w/spare]COUNTS}\n"
    edit(folder / "recipe.yaml", "warm_start: warm", spare.replace("COUNTS", ", counts: false") + "warm_start: warm")
    recipe = read_recipe(folder)
    assert [entry.counts for entry in recipe.prepare] == [True, False]
    assert recipe.warm_start_hash() == before
    edit(folder / "recipe.yaml", ", counts: false", "")
    assert read_recipe(folder).warm_start_hash() != before


def test_no_warm_start_has_no_hash(folder):
    edit(folder / "recipe.yaml", "warm_start: warm_start.yaml", "warm_start: null")
    assert read_recipe(folder).warm_start_hash() is None


def test_only_the_tasks_of_the_suite_are_what_is_asked(folder):
    edit(folder / "evaluation.yaml", "[micro_quiz, coco_caption]", "[micro_quiz]")
    edit(
        folder / "recipe.yaml",
        "task: coco_caption, score: cider, paper: coco_karpathy_cider",
        "task: micro_quiz, score: x",
    )
    spec = read_recipe(folder).evaluation
    assert spec is not None
    asked = evaluation_tree(spec)
    assert list(asked["tasks"]) == ["micro_quiz"]
    assert asked["tasks"]["micro_quiz"]["images"] == "w/conversations/images"
    assert asked["conditions"] == [{"control": "blank", "tasks": ["micro_quiz"]}]


def test_each_condition_of_an_evaluation_has_a_name():
    conditions = [Condition(), Condition("blank"), Condition("swapped"), Condition(mmfs=False)]
    conditions.append(Condition(weights="untrained"))
    assert tuple(condition_name(c.control, c.mmfs, c.weights) for c in conditions) == CONDITIONS


def test_hashes_see_values_and_not_spelling():
    assert canonical_hash({"a": [1, 2.5], "b": 1e3}) == canonical_hash({"b": 1000, "a": (1.0, 2.5)})
    assert canonical_hash({"a": True}) != canonical_hash({"a": 1})
    assert canonical_hash({"a": "1"}) != canonical_hash({"a": 1})
    assert canonical_hash({"a": None}) != canonical_hash({})
