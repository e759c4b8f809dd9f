"""Cells: one for whatever table asks, told apart by what decides their scores and by nothing else."""

from __future__ import annotations

import pytest
from ablation.toy_ablation import write_toy_ablation

from mmi.ablation.experiment import read_experiment
from mmi.ablation.hashing import canonical_hash
from mmi.ablation.matrix import as_arguments, cells_of, fit_overrides, merged_config, plan
from mmi.ablation.recipe import read_recipe
from mmi.compose import Override, compose, parse_override
from mmi.config import ConfigError

TOKENS = "model.network.vision.resampler.n_tokens"
LANGUAGE = "model.network.language.mmfs.enabled"
DRAWING = "model.network.image_decoder.mmfs.enabled"


@pytest.fixture
def root(tmp_path):
    return write_toy_ablation(tmp_path)


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def both(root):
    return [read_experiment(root / name, "small") for name in ("tokens", "loss_weights")]


def ids(root, name="tokens"):
    return [cells[0].id for _, cells in cells_of(read_experiment(root / name, "small"), seeds=1)]


def test_settings_that_say_what_holds_anyway_are_dropped(root):
    tokens, weights = both(root)
    settings = [dict(cells[0].settings) for _, cells in cells_of(tokens)]
    # Four tokens stand in the config; MMFS "on" and the weight of ten are defaults of the classes.
    assert settings == [
        {DRAWING: False, LANGUAGE: False, TOKENS: 2},
        {TOKENS: 2},
        {DRAWING: False, LANGUAGE: False},
        {},
    ]
    assert next(dict(cells[0].settings) for _, cells in cells_of(weights)) == {}


def test_cells_of_two_tables_are_the_same_cell(root):
    tokens, weights = both(root)
    of_tokens = {cells[0].id: cells[0] for _, cells in cells_of(tokens)}
    of_weights = {cells[0].id: cells[0] for _, cells in cells_of(weights)}
    shared = of_tokens.keys() & of_weights.keys()
    assert {name.rpartition("_seed-0-")[0] for name in shared} == {"default", "mmfs-off"}
    assert all(of_tokens[name] == of_weights[name] for name in shared)
    assert len({*of_tokens.values(), *of_weights.values()}) == 6


def test_the_plan_holds_every_cell_once_and_whole_seeds_first(root):
    planned = plan(both(root))
    assert [one.cell.seed for one in planned] == [0] * 6 + [1] * 4
    assert len({one.cell.id for one in planned}) == 10
    asked = {one.cell.id.rpartition("-")[0]: one.experiments for one in planned}
    assert asked["default_seed-0"] == ("tokens", "loss_weights")
    assert asked["default_seed-1"] == ("tokens",)
    assert asked["image_weight-1_seed-0"] == ("loss_weights",)
    assert len(plan(both(root), seeds=3)) == 18
    assert len(plan([*both(root), *both(root)])) == 10


def test_a_cell_is_named_by_its_settings_and_its_hash(root):
    experiment = read_experiment(root / "tokens", "small")
    cells = cells_of(experiment)[0][1]
    assert [cell.seed for cell in cells] == [0, 1]
    for cell in cells:
        assert cell.id == f"mmfs-off_n_tokens-2_seed-{cell.seed}-{cell.config_hash[:8]}"
    assert cells[0].config_hash != cells[1].config_hash


def test_the_hash_is_of_what_is_written_so_that_new_defaults_change_none(root):
    recipe = read_recipe(root / "recipes" / "toy")
    cell = cells_of(read_experiment(root / "tokens", "small"))[1][1][0]
    changes = [Override("run.start_from", "the warm start"), Override("seed_everything", 0), Override(TOKENS, 2)]
    fit = compose([recipe.config], changes)
    del fit["run"]["name"]
    assert "compat" not in fit["model"]
    asked = compose([root / "recipes" / "toy" / "evaluation.yaml"])
    content = {
        "fit": fit,
        "seed": 0,
        "warm_start": recipe.warm_start_hash(),
        "prepare": [["w/tokenizer", "data", "microworld", "--out", "w", "--size", "8"]],
        "evaluation": {"tasks": asked["tasks"], "conditions": asked["conditions"]},
    }
    assert cell.config_hash == canonical_hash(content)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("cell.yaml", "name: toy-cell", "name: other, loggers: [csv, wandb], wandb: {project: x}, folder: here"),
        ("recipe.yaml", "stop_after_minutes: 5", "stop_after_minutes: 50"),
        ("recipe.yaml", "label: CIDEr", "label: C"),
        ("recipe.yaml", "breakdown: true", "breakdown: false"),
        (
            "cell.yaml",
            "trainer: {max_steps: 4, log_every_n_steps: 2}",
            "trainer: {log_every_n_steps: 2, max_steps: 4.0}",
        ),
        ("evaluation.yaml", "conditions:\n", "  spare: {task: micro_quiz, prompt: x}\nconditions:\n"),
    ],
    ids=["places", "fail-safe", "labels", "printing", "spelling", "tasks outside the suite"],
)
def test_what_changes_no_score_changes_no_cell(root, file, old, new):
    before = ids(root)
    path = root / "recipes" / "toy" / file
    if new.startswith("name: other"):
        old = "  name: toy-cell\n"
        new = "  name: other\n  loggers: [csv, wandb]\n  wandb: {project: x}\n  folder: here\n"
    edit(path, old, new)
    assert ids(root) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("cell.yaml", "max_steps: 4", "max_steps: 5"),
        ("warm_start.yaml", "max_steps: 4", "max_steps: 5"),
        ("recipe.yaml", "--size, 8", "--size, 9"),
        ("evaluation.yaml", "n: 6", "n: 7"),
        ("evaluation.yaml", "control: blank", "control: blank, mmfs: true"),
    ],
    ids=["training", "warm start", "data", "questions", "conditions"],
)
def test_what_may_change_scores_changes_every_cell(root, file, old, new):
    before = ids(root)
    edit(root / "recipes" / "toy" / file, old, new)
    assert not set(ids(root)) & set(before)


def test_a_changed_row_changes_no_other_cell(root):
    before = ids(root)
    edit(root / "tokens" / "experiment.yaml", f"{TOKENS}: 2", f"{TOKENS}: 3")
    after = ids(root)
    assert after[2:] == before[2:]
    assert not set(after[:2]) & set(before)


def test_settings_that_need_each_other_are_kept(root):
    # The trunk's size follows the picture's, so that saying the config's number is a change once the picture is larger.
    edit(
        root / "recipes" / "toy" / "cell.yaml",
        "data:\n",
        "model: {network: {vision: {trunk: {image_size: 32}}}}\ndata:\n",
    )
    edit(
        root / "recipes" / "toy" / "cell.yaml",
        "trunk: {image_size: 32}",
        'trunk: {image_size: "${model.network.vision.image_size}"}',
    )
    size, trunk = "model.network.vision.image_size", "model.network.vision.trunk.image_size"
    edit(root / "tokens" / "experiment.yaml", f"{TOKENS}: 2", f"{size}: 64, {trunk}: 32")
    assert dict(cells_of(read_experiment(root / "tokens", "small"))[1][1][0].settings) == {size: 64, trunk: 32}


def test_a_setting_that_another_cannot_do_without_is_kept(root):
    lora, frozen = "model.network.language.lora", "model.network.language.frozen"
    edit(root / "tokens" / "experiment.yaml", f"{TOKENS}: 2", f"{lora}: {{rank: 2}}, {frozen}: true")
    assert set(cells_of(read_experiment(root / "tokens", "small"))[1][1][0].settings) == {lora, frozen}


def test_names_of_cells_are_names_of_files(root):
    given = '"model.optimizer.betas": [0.9, 0.98], model.loss.image_weight: 100.0, data.train: '
    given += '{"a/b": {format: folder, path: x}}'
    edit(root / "tokens" / "experiment.yaml", f"{TOKENS}: 2", given)
    cell = cells_of(read_experiment(root / "tokens", "small"))[1][1][0]
    assert cell.id == f"train_image_weight-100_betas-0.9+0.98_seed-0-{cell.config_hash[:8]}"


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            "model.network.vision.resampler.n_token: 2",
            "unknown key model.network.vision.resampler.n_token; did you mean",
        ),
        ("modle.network: 2", "unknown key modle; did you mean model?"),
        (f"{TOKENS}: two", 'n_tokens is the text "two"; expected a whole number.'),
        (f"{TOKENS}.x: 2", "is 4, not a mapping"),
        ("run.name: mine", "run.name is set by mmi ablate itself; take it out of set."),
        ("seed_everything: 3", "seed_everything is set by mmi ablate itself"),
        (
            "data.train.conversatoins: {weight: 2}",
            "data.train.conversatoins has neither format nor path, so no config knows that source; did you mean "
            "conversations?",
        ),
        ("data.train.new: {format: vqqa, path: x}", "data.train.new.format"),
        (
            "data.train.new: {format: vqa, path: x, wieght: 2}",
            "unknown key data.train.new.wieght; did you mean weight?",
        ),
        ("data.train.new: {format: vqa, path: x, weight: -1}", "data.train.new: weight of source x is -1"),
        ("data.val: [a]", "data.val is ['a']; expected sources by name."),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence_with_row_and_config(root, setting, sentence):
    edit(root / "tokens" / "experiment.yaml", f"{TOKENS}: 2", setting)
    with pytest.raises(ConfigError) as caught:
        ids(root)
    said = str(caught.value)
    assert sentence in said
    assert said.startswith("tokens, row visual tokens 2, MMFS without, on ")
    assert "cell.yaml" in said
    assert "\n" not in said


def test_arguments_are_read_back_as_the_same_settings(root):
    recipe = read_recipe(root / "recipes" / "toy")
    settings = {
        "run.start_fresh": ["*.mmfs.*", "a b"],
        "model.optimizer.learning_rate": 1e-4,
        "model.network.language.mmfs.levels": [1, 2, 3],
        "data.train": {"stories": {"format": "mmc4", "path": "a: b.zip", "weight": 2.0}},
        "run.generation.text.stop": "yes",
        "trainer.max_time": None,
    }
    overrides = fit_overrides(recipe, settings, seed=2, warm_start="runs/ablation/toy/warm_start")
    arguments = as_arguments(overrides)
    read = [parse_override(key.removeprefix("--"), text) for key, _, text in (a.partition("=") for a in arguments)]
    assert read == overrides
    assert not any("\n" in argument for argument in arguments)
    tree = merged_config(recipe, overrides)
    assert tree["run"]["start_from"] == "runs/ablation/toy/warm_start"
    assert tree["seed_everything"] == 2
    assert list(tree["data"]["train"]) == ["stories"]


def test_a_row_may_leave_the_warm_start_out(root):
    edit(root / "tokens" / "experiment.yaml", f"{TOKENS}: 2", "run.start_from: null, run.start_fresh: []")
    cell = cells_of(read_experiment(root / "tokens", "small"))[1][1][0]
    tree = merged_config(cell.recipe, fit_overrides(cell.recipe, cell.settings, 0, "warm"))
    assert tree["run"]["start_from"] is None


def test_a_recipe_without_a_warm_start_starts_where_its_config_says(root):
    edit(root / "recipes" / "toy" / "recipe.yaml", "warm_start: warm_start.yaml", "warm_start: null")
    edit(root / "recipes" / "toy" / "cell.yaml", "  name: toy-cell\n", "  name: toy-cell\n  start_from: weights\n")
    cell = cells_of(read_experiment(root / "tokens", "small"))[1][1][0]
    tree = merged_config(cell.recipe, fit_overrides(cell.recipe, cell.settings, 0, None))
    assert tree["run"]["start_from"] == "weights"
