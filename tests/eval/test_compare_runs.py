"""Two runs on the same samples: paired differences, and which samples are shown, by rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
from html_page import Page, is_usable, is_whole, needs_nothing
from PIL import Image
from scored_run import answered, write_evaluation

from mmi_eval.formats.errors import FormatError
from mmi_eval.report.compare_page import Side, render_comparison
from mmi_eval.report.comparison import Choice, by_chance, choose, pair_runs
from mmi_eval.report.evaluated import read_result
from mmi_eval.results import Condition
from mmi_eval.sample import Picture, Sample

EVIL = "<script>alert(1)</script>"
N = 30


@pytest.fixture
def questions(tmp_path) -> list[Sample]:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8), "red").save(path)
    return [Sample(f"q{i}", (Picture(path), f"what? {EVIL}"), ("yes",), {"question": f"what {i}?"}) for i in range(N)]


@pytest.fixture
def results(tmp_path, questions):
    """The first run is right on the first third, the second on all but the last three and one of those."""
    before = [float(i < 10) for i in range(N)]
    after = [float(0 < i < 27) for i in range(N)]
    return tuple(
        answered(tmp_path / name, "vqav2", questions, scores, [f"{name} {EVIL} {s}" for s in scores])
        for name, scores in (("one", before), ("two", after))
    )


def page_of(first, second, choice: Choice = "first", n: int = 8) -> Page:
    pairs = pair_runs([first], [second])
    sides = (Side("one", "runs/one"), Side("two", "runs/two"))
    return Page(render_comparison(sides, pairs, [choose(pair, choice, n) for pair in pairs], "a test"))


def test_the_difference_is_second_minus_first_paired(results):
    (pair,) = pair_runs([results[0]], [results[1]])
    (difference,) = pair.differences
    assert difference.change is not None
    assert difference.change.value == pytest.approx((26 - 10) / N)
    assert difference.change.low > 0
    assert difference.standing == "better"
    (other,) = pair_runs([results[1]], [results[0]])[0].differences
    assert other.standing == "worse"
    assert by_chance([pair]) == (1, 1, 0.05)


def test_a_value_that_falls_is_better_when_it_falls(tmp_path, questions):
    one, two = (
        answered(tmp_path / str(v), "vqav2", questions, [v] * N, ["x"] * N, lower_is_better=["accuracy"])
        for v in (0.9, 0.2)
    )
    assert pair_runs([one], [two])[0].differences[0].standing == "better"


@pytest.mark.parametrize(
    ("choice", "ids"),
    [
        ("first", ["q0", "q1", "q2"]),
        ("most-worsened", ["q0"]),
    ],
)
def test_samples_are_chosen_by_rule(results, choice, ids):
    (pair,) = pair_runs([results[0]], [results[1]])
    assert [sample.id for sample in choose(pair, choice, 3).samples] == ids


def test_the_most_improved_come_in_order_of_how_much(tmp_path, questions):
    gains = [i / N for i in range(N)]
    one = answered(tmp_path / "one", "vqav2", questions, [0.0] * N, ["x"] * N)
    two = answered(tmp_path / "two", "vqav2", questions, gains, ["x"] * N)
    (pair,) = pair_runs([one], [two])
    assert [sample.id for sample in choose(pair, "most-improved", 3).samples] == ["q29", "q28", "q27"]
    assert len(choose(pair, "most-improved", 100).samples) == N - 1
    assert choose(pair, "most-improved", 3) == choose(pair, "most-improved", 3)


def test_a_task_without_scores_of_samples_says_so_and_shows_the_first(tmp_path, questions):
    found = []
    for name in ("one", "two"):
        result = answered(tmp_path / name, "vqav2", questions, [1.0] * N, ["x"] * N)
        (result.evaluation.folder / "outcomes.jsonl").unlink()
        found.append(read_result(result.evaluation, questions))
    chosen = choose(pair_runs([found[0]], [found[1]])[0], "most-improved", 2)
    assert "no value of this task is a mean" in chosen.rule
    assert [sample.id for sample in chosen.samples] == ["q0", "q1"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples": 5}, "answered different samples of vqav2"),
        ({"task": "refcoco"}, "no task in common"),
        ({"limit": 4}, "answered different samples of vqav2"),
        ({"condition": Condition("blank")}, "second run has no scored evaluation"),
    ],
)
def test_nothing_comparable_is_one_sentence(tmp_path, questions, results, change, said):
    fields = {"task": "vqav2", "samples": N, **change}
    task, asked = fields.pop("task"), questions[: fields.pop("samples")]
    ones = [1.0] * len(asked)
    other = answered(tmp_path / "three", task, asked, ones, ["x"] * len(asked), **fields)
    with pytest.raises(FormatError, match=said) as caught:
        pair_runs([results[0]], [other])
    assert ";" in str(caught.value)


def test_several_entries_of_one_task_are_paired_by_their_names(tmp_path, questions):
    runs = []
    for run in ("one", "two"):
        runs.append(
            [
                answered(tmp_path / run, "refcoco", part, [1.0] * len(part), ["x"] * len(part), label=label)
                for label, part in (("refcoco_val", questions[:10]), ("refcoco_testA", questions[10:]))
            ]
        )
    assert [(p.first.label, p.second.label) for p in pair_runs(*runs)] == [
        ("refcoco_val", "refcoco_val"),
        ("refcoco_testA", "refcoco_testA"),
    ]


def test_the_page_is_whole_and_lets_no_text_of_the_data_through(results):
    page = page_of(*results)
    is_whole(page)
    needs_nothing(page)
    is_usable(page)
    assert EVIL in page.text
    assert "better: +53.3" in page.text
    assert "the first 8 in the order of the data" in page.text


def test_settings_that_differ_are_said(tmp_path, questions):
    one, two = (
        answered(tmp_path / str(k), "vqav2", questions, [1.0] * N, ["x"] * N, settings={"decoding": {"n_beams": k}})
        for k in (1, 3)
    )
    assert 'decoding: {"n_beams": 1} and {"n_beams": 3}' in page_of(one, two).text


def test_boxes_of_both_runs_are_drawn_on_the_picture(tmp_path, questions):
    asked = [replace(s, meta={"box": [1, 1, 6, 6], "size": [8, 8], "expression": "it"}) for s in questions[:2]]
    one, two = (
        answered(tmp_path / name, "refcoco", asked, scores, [f"({name})(999,999)"] * 2)
        for name, scores in (("000,000", [0.0, 0.0]), ("500,500", [1.0, 1.0]))
    )
    page = page_of(one, two)
    told = [image["alt"] for image in page.all("img")]
    assert told == ["White: the box that is meant; pink: one, blue: two, where a box could be read."] * 2
    assert "one (pink): (000,000)(999,999)" in page.text


def test_drawn_pictures_stand_beside_each_other_and_the_real_one(tmp_path, questions):
    picture = questions[0].pictures[0]
    asked = [
        Sample("drawn", ("a caption",), request="image", target=picture),
        Sample("story", ("first", picture, "second"), (), {"targets": [str(picture.path)] * 2}, "images"),
        Sample("mixed", ("told", picture, "then"), request="images"),
    ]
    outputs = ["images/1.png", ["images/1.png", "images/2.png"], ["and so", "images/1.png", "../../secret.png"]]
    runs = []
    for name in ("one", "two"):
        result = answered(tmp_path / name, "vist", asked, [0.1, 0.2, 0.3], outputs)
        (result.evaluation.folder / "images").mkdir()
        for number in (1, 2):
            Image.new("RGB", (8, 8), "blue").save(result.evaluation.folder / "images" / f"{number}.png")
        runs.append(result)
    page = page_of(*runs)
    is_whole(page)
    is_usable(page)
    alts = [image["alt"] for image in page.all("img")]
    assert sum(alt.endswith(", by two") for alt in alts) == 1 + 2 + 1
    assert alts.count("The real picture") == 1
    assert sum(alt.startswith("Real picture") for alt in alts) == 2
    assert "and so" in page.text
    assert "names a file outside the folder" in page.text


def test_values_that_are_no_means_have_no_interval_of_the_difference(tmp_path, questions):
    found = []
    fields = {"samples": questions, "lower_is_better": ["clean-fid"], "raw": ["clean-fid"]}
    for name, distance in (("one", 20.0), ("two", 10.0)):
        evaluation = write_evaluation(tmp_path / name, "vist", {"clean-fid": distance}, **fields)
        found.append(read_result(evaluation, questions))
    (pair,) = pair_runs([found[0]], [found[1]])
    assert pair.differences[0].change is None
    assert pair.differences[0].standing == "open"
    assert "-10.0, no mean over samples" in page_of(*found).text
