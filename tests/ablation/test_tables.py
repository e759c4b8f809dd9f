"""Results on disk: numbers, missing and failed cells, the paper beside them, the README, the same bytes each time."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from ablation.toy_ablation import write_toy_ablation
from ablation.toy_results import ACCURACY, CIDER, COLUMNS, experiment, measured, record

from mmi.ablation.blocks import BEGIN, END, write_block
from mmi.ablation.experiment import read_experiment
from mmi.ablation.matrix import cells_of
from mmi.ablation.records import Store, WarmStart
from mmi.ablation.tables import markdown, results_tree, write_results
from mmi.ablation.verdicts import judge

MEANS = {"accuracy": 0.5, "blank": 0.1, "cider": 0.8}
ON, OFF = "4, with MMFS", "4, without MMFS"
SCORES = {"print": 0.6, "cider": 1.0, "loss": 0.2}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = write_toy_ablation(tmp_path)
    return read_experiment(root / "tokens", "small"), Store(root, tmp_path / "runs")


def save(of, store, cells, means=MEANS, **changes):
    columns = tuple(of.recipe.columns.values())
    for cell in cells:
        made = record(cell.id, cell.seed, means, columns)
        store.save(replace(made, recipe=of.recipe.name, config_hash=cell.config_hash, **changes))


def results(of, suffix="json"):
    text = (of.folder / "results" / f"small.{suffix}").read_text(encoding="utf-8")
    return json.loads(text) if suffix == "json" else text


def text_of(made):
    return markdown(made, judge(made), [])


def test_a_table_without_a_cell_says_so_everywhere(toy):
    of, store = toy
    paths = write_results(of, store)
    assert [path.name for path in paths] == ["small.json", "small.md", "small.html", "README.md"]
    tree = results(of)
    assert tree["cells"] == {"planned": 8, "finished": 0, "failed": 0}
    assert tree["verdicts"]["not run"] == 1
    assert "0 of 8 cells have finished" in results(of, "md")


def test_a_page_without_a_cell_says_what_to_run_and_has_no_empty_table(toy):
    of, store = toy
    weights = read_experiment(store.root / "loss_weights", "small")
    save(weights, store, [cell for _, cells in cells_of(weights) for cell in cells][:1])
    alone = replace(of, rows=of.rows[:2], claims=())
    write_results(alone, store)
    text, page = results(of, "md"), results(of, "html")
    assert "no such score" not in text
    assert "|" not in text, "neither a table nor a row of one"
    assert "<svg" not in page
    assert "<table" not in page
    for words in (
        "Can MMFS replace visual tokens?",
        "mmi ablate tokens --scale small",
        "one thread of a CPU",
        "4 cells of 2 minutes each, about 8 minutes one after the other, as other cells of the recipe took",
        "visual tokens 2, MMFS with",
        "quiz (%)",
    ):
        assert words in text
        assert words in page


def test_without_a_finished_cell_of_the_recipe_the_time_is_a_limit_and_failures_are_shown(toy):
    of, store = toy
    (_, (cell, *_)), *_ = cells_of(of)
    save(of, store, [cell], status="failed", error="the loss became NaN")
    write_results(of, store)
    text = results(of, "md")
    assert "about how long: 8 cells of at most 5 minutes each" in text
    assert "claims it would judge: Table 5a: better" in text
    assert "the loss became NaN" in text
    assert "not run" not in text


def test_finished_failed_and_missing_cells_are_told_apart(toy):
    of, store = toy
    (_, few_off), (_, few_on), *_ = cells_of(of)
    save(of, store, few_on)
    save(of, store, few_off[:1])
    save(of, store, few_off[1:], status="failed", error="the loss became NaN at step 3\nTraceback of many lines")
    paths = write_results(of, store)
    assert "small-plot-1.svg" in {path.name for path in paths}
    tree, text = results(of), results(of, "md")
    assert tree["cells"] == {"planned": 8, "finished": 3, "failed": 1}
    assert tree["rows"][0]["failed_seeds"] == {"1": "the loss became NaN at step 3"}
    assert tree["rows"][2]["missing_seeds"] == [0, 1]
    assert "1 of 2, 1 failed (preliminary)" in text
    assert "the loss became NaN at step 3" in text
    assert "Traceback" not in text
    assert tree["claims"][0]["difference"]["n_seeds"] == 1, "only the seed that both have"
    assert tree["claims"][0]["preliminary"] is True
    assert tree["preliminary"] is True


def test_numbers_are_the_means_of_the_records(toy):
    of, store = toy
    _, (_, cells), *_ = cells_of(of)
    save(of, store, cells)
    write_results(of, store)
    found = results(of)["rows"][1]["scores"]["accuracy"]
    by_seed = [100 * store.find(cell).score("micro_quiz", "accuracy").value for cell in cells]
    assert [found["by_seed"]["0"], found["by_seed"]["1"]] == pytest.approx(by_seed, rel=1e-5)
    assert found["value"] == pytest.approx(sum(by_seed) / 2, rel=1e-5)
    assert found["low"] < found["value"] < found["high"]
    assert results(of)["rows"][1]["cost"]["training (minutes)"] == pytest.approx(100.5 / 60, rel=1e-5)


def test_the_same_records_give_the_same_bytes_and_touch_nothing(toy):
    of, store = toy
    save(of, store, [cell for _, cells in cells_of(of) for cell in cells])
    paths = write_results(of, store)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}
    assert write_results(of, store) == paths
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths} == before
    for path in paths:
        assert str(store.root.parent) not in path.read_text(encoding="utf-8")


def test_seeds_beyond_the_plan_count(toy):
    of, store = toy
    cells = [cells for _, cells in cells_of(of, 3)][1]
    save(of, store, cells)
    write_results(of, store)
    assert results(of)["rows"][1]["finished_seeds"] == [0, 1, 2]
    assert results(of)["cells"]["finished"] == 2, "of those planned"


def test_a_plot_that_is_no_longer_drawn_is_taken_away(toy):
    of, store = toy
    save(of, store, [cell for _, cells in cells_of(of) for cell in cells])
    write_results(of, store)
    assert (of.folder / "results/small-plot-1.svg").is_file()
    write_results(replace(of, plots=()), store)
    assert not (of.folder / "results/small-plot-1.svg").exists()


def test_the_readme_keeps_what_people_wrote_and_has_every_scale_apart(toy):
    of, store = toy
    write_results(of, store)
    readme = of.folder / "README.md"
    made = readme.read_text(encoding="utf-8")
    assert made.startswith("# Visual tokens with and without MMFS\n\nCan MMFS replace visual tokens?\n")
    assert made.count("Can MMFS replace visual tokens?") == 1
    readme.write_text(f"My own title\n\n{made}\nWhat I think of it.\n", encoding="utf-8")
    save(of, store, [cell for _, cells in cells_of(of) for cell in cells])
    write_results(of, store)
    write_results(replace(of, scale="medium"), store)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("My own title\n")
    assert text.endswith("What I think of it.\n")
    assert text.count(BEGIN) == text.count(END) == 1
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Small", "Medium"]
    assert re.findall(r"\]\((\S+?)\)", text) == ["results/small-plot-1.svg", "results/medium-plot-1.svg"]
    assert all((of.folder / path).is_file() for path in re.findall(r"\]\((\S+?)\)", text))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, f"# T\n\n{BEGIN}\n\nnew\n\n{END}\n"),
        ("Mine.\n", f"Mine.\n\n{BEGIN}\n\nnew\n\n{END}\n"),
        (f"Mine.\n{BEGIN}\nold\n{END}\nAlso mine.\n", f"Mine.\n{BEGIN}\n\nnew\n\n{END}\nAlso mine.\n"),
        (f"Mine.\n{BEGIN}\nno end\n", f"Mine.\n\nno end\n\n{BEGIN}\n\nnew\n\n{END}\n"),
    ],
    ids=["no-file", "no-markers", "markers", "half-a-marker"],
)
def test_a_block_replaces_only_itself(tmp_path, before, after):
    path = tmp_path / "README.md"
    if before is not None:
        path.write_text(before, encoding="utf-8")
    write_block(path, "new\n", "# T\n")
    assert path.read_text(encoding="utf-8") == after


def test_the_paper_stands_in_a_column_of_its_own_with_its_own_metric():
    of = experiment({"4": 32, "8": None})
    text = text_of(measured(of, {row.label: SCORES for row in of.rows}))
    head, _, *rows = [line for line in text.splitlines() if line.startswith("|")][: 2 + len(of.rows)]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]
    names = [name.strip() for name in head.strip("|").split("|")]
    place = names.index("paper (full size): VQA accuracy %, TextVQA")
    assert names[place - 1] == "small print (%)"
    assert [row[place] for row in cells] == ["22.5", "27.7", "-", "-"], "table 5a, and no row of eight tokens"
    assert "never the numbers" in text


def test_a_column_the_paper_has_no_number_for_gets_none():
    of = experiment({"4": None}, columns=(ACCURACY,))
    assert "paper" not in text_of(measured(of, {ON: SCORES}))


def test_a_full_size_score_of_fewer_samples_is_limited_and_a_small_one_is_not():
    of = experiment(columns=(ACCURACY, CIDER), scale="full")
    full = text_of(measured(of, {row.label: SCORES for row in of.rows}))
    assert "LIMITED: 60 of 5,000" in full
    assert "never the numbers" not in full
    small = replace(of, scale="small")
    assert "LIMITED" not in text_of(measured(small, {row.label: SCORES for row in small.rows}))


def test_columns_of_other_scales_and_cost_and_gates_are_told():
    of = experiment()
    made = measured(of, {ON: SCORES})
    text = text_of(made)
    assert "Not measured at this scale: fid." in text
    assert "| seconds per step (median) |" in text
    assert "seconds per picture" not in text, "no cell measured it"
    assert "| visual tokens, MMFS | language model |" in text, "a gate that is no number is left out"
    assert "| 4, with MMFS | 0.375 (0.250 to 0.500) |" in text
    assert "warm start: aaaaaaaaaaaa" in text
    assert "`mmi ablate tokens --scale small`" in text
    json.dumps(results_tree(made, judge(made)), allow_nan=False)


def test_a_newcomer_reads_the_answer_first_and_what_its_words_mean():
    of = experiment()
    text = text_of(measured(of, {ON: SCORES, OFF: {**SCORES, "print": 0.1}}))
    answer, scores, claims, made = map(
        text.index, ("Claims, each in each of its columns: ", "## Scores", "## Claims", "## How it was made")
    )
    assert answer < scores < claims < made
    assert "19 of 20 such intervals hold the true mean" in text[scores:claims]
    assert "these cells cannot tell which row is better" in text[claims:made]


def test_lines_that_were_not_run_are_explained_once():
    text = text_of(measured(experiment(), {ON: SCORES}))
    assert text.count("*not run*") > 3
    assert text.count("o seed has finished for both rows") == 1


def test_records_of_two_warm_starts_are_not_passed_over():
    of = experiment()
    made = measured(of, {ON: SCORES, OFF: SCORES})
    changed = {
        seed: replace(found, warm_start=replace(found.warm_start, hash="f" * 64), cell=f"other {seed}")
        for seed, found in made.rows[1].finished.items()
    }
    rows = (made.rows[0], replace(made.rows[1], finished=changed), *made.rows[2:])
    text = text_of(replace(made, rows=rows))
    assert "ffffffffffff" in text
    assert text.count("(3 of 6 cells)") == 2
    assert "Caution" not in text, "other settings, the same weights"


def test_a_table_of_one_seed_is_marked_in_its_titles_and_first_line(toy):
    of, store = toy
    one_seed = [cells[0] for _, cells in cells_of(of)]
    save(of, store, one_seed)
    write_results(of, store)
    text = results(of, "md")
    assert text.startswith("# Visual tokens with and without MMFS: small, preliminary\n")
    assert "\n**Preliminary: every row has one seed. 4 of 8 cells have finished.**\n" in text
    assert "## Scores, small scale, preliminary" in text
    assert "## Claims, preliminary" in text
    assert "(preliminary: one seed)" in text
    assert "<title>Visual tokens with and without MMFS: small, preliminary</title>" in results(of, "html")
    assert "\n## Small, preliminary\n" in (of.folder / "README.md").read_text(encoding="utf-8")
    save(of, store, [cell for _, cells in cells_of(of) for cell in cells])
    write_results(of, store)
    for name in (of.folder / "results/small.md", of.folder / "README.md"):
        assert "preliminary" not in name.read_text(encoding="utf-8").casefold()


def test_a_claim_over_rows_of_other_starting_weights_has_a_caution_below_it():
    of = experiment()
    made = measured(of, {ON: SCORES, OFF: SCORES})
    assert not any(one.caution for one in judge(made))
    for start, words in ((None, "no warm start"), (WarmStart("a" * 64, "d" * 64, 200), "weights dddddddddddd")):
        changed = {
            seed: replace(found, warm_start=start, cell=f"other {seed}") if seed == 1 else found
            for seed, found in made.rows[0].finished.items()
        }
        apart = replace(made, rows=(replace(made.rows[0], finished=changed), *made.rows[1:]))
        judged = judge(apart)
        text = text_of(apart)
        said = f"its rows started from different weights (weights bbbbbbbbbbbb and {words})"
        assert text.count(f"Caution: Table 5a: MMFS helps at few tokens: {said}") == 1, "once for all its columns"
        assert ("Caution: cells started from 2 different warm starts" in text) is (start is not None)
        assert said in results_tree(apart, judged)["claims"][0]["caution"]


def test_every_column_of_the_experiment_is_there():
    of = experiment()
    tree = results_tree(measured(of, {ON: SCORES}), [])
    assert list(tree["columns"]) == [column.name for column in COLUMNS]
    assert set(tree["rows"][1]["scores"]) == set(tree["columns"])
