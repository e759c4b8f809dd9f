"""Each task gives its best score to an oracle, its floor to an empty model, a known value to one worked case."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from shared_data import shared_path
from toy_benchmarks import SIDE, ToyJudges, ToyModel, box, captions, drawn, look, oracle, tasks, write_benchmarks

from mmi_eval.formats.errors import FormatError
from mmi_eval.predictions import read_answers
from mmi_eval.sample import Picture, Sample, controlled, fingerprint, partners
from mmi_eval.tasks.answer_tables import read_tags
from mmi_eval.tasks.coco_caption import COCOCaption
from mmi_eval.tasks.prompts import fill
from mmi_eval.tasks.refcoco import best_constant_box
from mmi_eval.tasks.vqav2 import VQAv2

BEST = {
    "vqav2": {"accuracy": 1.0, "accuracy, no extraction": 1.0, "type/colour": 1.0, "tag/even": 1.0},
    "refcoco": {"accuracy": 1.0, "mean IoU, quantised truth": 1.0},
    "micro_quiz": {"accuracy": 1.0, "type/colour": 1.0, "tag/earlier 1": 1.0},
    "micro_drawing": {"background": 1.0, "colour at place": 1.0, "whole thing": 1.0, "empty cells": 1.0},
    "micro_image_loss": {"loss": 0.25, "story loss": 0.25, "loss, shuffled words": 0.75},
}
FLOOR = {
    "coco_caption": {"cider": 0.0},
    "vqav2": {"accuracy": 0.0, "type/place": 0.0},
    "refcoco": {"accuracy": 0.0, "mean IoU": 0.0},
    "micro_quiz": {"accuracy": 0.0},
    "micro_drawing": {"colour at place": 0.0, "whole thing": 0.0, "empty cells": 1.0},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_benchmarks(tmp_path_factory.mktemp("toy") / "data")


@pytest.fixture(autouse=True)
def judges(monkeypatch):
    monkeypatch.setattr("mmi_eval.judges.load_judges", lambda folder: ToyJudges())


def answers_of(task, model: ToyModel):
    return task.answer(model, task.samples())


def scored_by(task, model: ToyModel, folder):
    """Score a model's answers; pictures go to files, as the runner does it."""
    samples = task.samples()
    answers = answers_of(task, model)
    if samples[0].request == "image":
        for sample, picture in zip(samples, answers, strict=True):
            picture.save(folder / f"{sample.id}.png")
        answers = [Picture(folder / f"{sample.id}.png") for sample in samples]
    return task.score(samples, answers)


@pytest.mark.parametrize("name", BEST)
def test_an_oracle_gets_the_best_score(name, files, tmp_path):
    task = tasks(files)[name]
    scored = scored_by(task, oracle(task), tmp_path)
    assert {key: scored.values[key].value for key in BEST[name]} == pytest.approx(BEST[name])


@pytest.mark.parametrize("name", FLOOR)
def test_an_empty_model_gets_the_floor(name, files, tmp_path):
    task = tasks(files)[name]
    scored = scored_by(task, ToyModel(task.samples()), tmp_path)
    assert {key: scored.values[key].value for key in FLOOR[name]} == pytest.approx(FLOOR[name])


def test_a_cider_of_nothing_but_zeros_is_no_count_of_misses(files, tmp_path):
    task = tasks(files)["coco_caption"]
    floor = scored_by(task, ToyModel(task.samples()), tmp_path).values["cider"]
    assert (floor.low, floor.high) == (0.0, 0.0)


def test_captions_of_people_score_higher_than_the_most_frequent_and_true_ones_highest(files, tmp_path):
    task = tasks(files)["coco_caption"]
    scored = scored_by(task, oracle(task), tmp_path)
    baselines = task.baselines(task.samples())
    people, frequent = (baselines[k].values["cider"].value for k in ("human_leave_one_out", "most_frequent_caption"))
    assert scored.values["cider"].value > people > frequent > 0
    assert baselines["most_frequent_caption"].notes["times"] == 1


def test_a_caption_is_also_scored_up_to_its_first_full_stop(files, tmp_path):
    task = tasks(files)["coco_caption"]
    plain = scored_by(task, oracle(task), tmp_path).values["cider"].value
    longer = ToyModel(task.samples(), lambda sample: f"{sample.references[0]}. nothing else is there to see")
    values = scored_by(task, longer, tmp_path).values
    assert values["cider, first sentence"].value == pytest.approx(plain)
    assert values["cider"].value < plain


def test_vqa_worked_case(files):
    # Eight of ten people say the colour, two say grey: "grey" gets 8 * min(1, 2/3) + 2 * min(1, 1/3), over 10.
    task = tasks(files)["vqav2"]
    samples = task.samples()
    scored = task.score(samples, ["It is grey."] * len(samples))
    assert scored.values["accuracy, word-boundary extraction"].value == pytest.approx((8 * 2 / 3 + 2 / 3) / 10)
    assert scored.values["accuracy"].value == 0


def test_vqa_majority_knows_the_type_and_question_only_the_words(files):
    task = tasks(files)["vqav2"]
    samples = task.samples()
    baselines = task.baselines(samples)
    majority, worded = (baselines[name].values for name in ("majority", "question_only"))
    assert majority["type/colour"].value == pytest.approx(6 / 12)
    assert majority["type/place"].value == pytest.approx(4 / 12)
    assert worded["type/colour"].value == majority["type/colour"].value
    assert worded["type/place"].value > majority["type/place"].value
    assert baselines["majority"].notes["counted on"] == "the questions scored"


def test_vqa_baselines_are_counted_on_training_questions_where_they_are_given(files):
    task = tasks(files)["vqav2"]
    trained = replace(task, train_questions=task.questions, train_annotations=task.annotations, n=4)
    assert trained.baselines(trained.samples())["majority"].notes["counted on"] == "training questions"


def test_refcoco_counts_texts_without_a_box_as_misses(files):
    task = tasks(files)["refcoco"]
    samples = task.samples()
    right = answers_of(task, oracle(task))
    scored = task.score(samples, ["here", "(1,2)(3,4", None, *right[3:]])
    assert scored.counts["unparsable"] == 3
    assert scored.values["accuracy"].value == pytest.approx((len(samples) - 3) / len(samples))


def test_refcoco_constant_box_is_one_of_the_training_split(files):
    task = tasks(files)["refcoco"]
    baseline = task.baselines(task.samples())["constant_box"]
    left, top, width, height = box(11)
    assert baseline.notes["box"] == [int(v / SIDE * 999) for v in (left, top, left + width, top + height)]
    from mmi_eval.formats.refcoco import read_refcoco

    assert best_constant_box(read_refcoco(task.refs, task.instances)) != (0, 0, 0, 0)


def test_quiz_prompts_hold_the_pictures_so_far_and_boxes_are_left_out(files):
    task = tasks(files)["micro_quiz"]
    samples = task.samples()
    assert [sample.id for sample in samples[:2]] == ["c0/1", "c0/2"]
    assert [len(sample.pictures) for sample in samples[:2]] == [2, 2]
    assert samples[1].prompt[-1] == "Question: what colour was it before? Short answer:"
    assert samples[1].references == (look(0)[1],)
    with_history = replace(task, history=True).samples()[1]
    assert with_history.prompt[-2] == look(1)[1]


def test_quiz_questions_about_an_earlier_picture_are_scored_apart(files, tmp_path):
    task = tasks(files)["micro_quiz"]
    latest_only = ToyModel(task.samples(), lambda s: s.references[0] if "earlier 1" not in s.meta["tags"] else "no")
    values = scored_by(task, latest_only, tmp_path).values
    assert (values["tag/by look"].value, values["tag/earlier 1"].value) == (1.0, 0.0)
    assert values["accuracy"].value == 0.5


def test_drawn_pictures_are_compared_with_the_captions_of_others(files, tmp_path):
    task = tasks(files)["micro_drawing"]
    scored = scored_by(task, oracle(task), tmp_path)
    assert scored.values["colour at place, shuffled captions"].value < 1
    difference = scored.comparisons["colour at place - shuffled captions"]
    assert difference.low > 0
    assert scored.notes["held-out accuracy of the judges"] == {"colour": 1.0}
    real = task.baselines(task.samples())["real_pictures"]
    assert real.values["colour at place"].value == 1


def test_a_picture_of_the_right_place_and_another_colour_is_half_right(files, tmp_path):
    task = tasks(files)["micro_drawing"]
    same_place = ToyModel(task.samples(), draw=lambda sample: drawn((int(sample.id) + 3) % 12))
    values = scored_by(task, same_place, tmp_path).values
    assert values["background"].value == 1
    assert values["colour at place"].value < 0.5


def test_a_lost_picture_shows_nothing_that_was_asked_for(files, tmp_path):
    task = tasks(files)["micro_drawing"]
    samples = task.samples()
    drawn(0).save(tmp_path / "0.png")
    scored = task.score(samples, [Picture(tmp_path / "0.png"), *[None] * (len(samples) - 1)])
    assert scored.values["background"].value == pytest.approx(1 / len(samples))
    assert scored.counts["pictures lost"] == len(samples) - 1
    assert "micro-fid" not in scored.values


def test_image_loss_after_other_words_is_a_paired_difference(files, tmp_path):
    task = tasks(files)["micro_image_loss"]
    comparisons = scored_by(task, oracle(task), tmp_path).comparisons
    assert comparisons["loss, shuffled words - loss"].value == pytest.approx(0.5)
    assert comparisons["story loss, shuffled words - story loss"].low > 0


def test_a_story_is_everything_before_its_last_picture(files):
    sample = next(s for s in tasks(files)["micro_image_loss"].samples() if s.meta["kind"] == "story")
    assert sample.prompt == (captions(0)[0], Picture(files / "images" / "0.png"), captions(1)[0])
    assert sample.target == Picture(files / "images" / "1.png")
    assert sample.meta["other words"] != captions(1)[0]


@pytest.mark.parametrize("control", ["blank", "swapped"])
def test_controls_keep_words_and_take_the_picture(files, control):
    samples = tasks(files)["micro_quiz"].samples()
    for before, after in zip(samples, controlled(samples, control), strict=True):
        assert [p for p in after.prompt if isinstance(p, str)] == [p for p in before.prompt if isinstance(p, str)]
        assert len(after.pictures) == len(before.pictures)
        if control == "blank":
            assert all(len(set(picture.open().getdata())) == 1 for picture in after.pictures)
        else:
            assert not {p.path for p in before.pictures} & {p.path for p in after.pictures}


def test_swapping_needs_a_second_picture(files):
    samples = tasks(files)["vqav2"].samples()[:2]
    with pytest.raises(FormatError, match="use the control blank"):
        controlled(samples, "swapped")
    with pytest.raises(FormatError, match="ask for the same"):
        partners([Sample("a", ("x",)), Sample("b", ("x",))])


def test_the_fingerprint_sees_every_part_of_a_sample(files):
    samples = tasks(files)["vqav2"].samples()[:3]
    first = samples[0]
    changed = [
        replace(first, prompt=("other",)),
        replace(first, references=()),
        replace(first, meta={}),
        replace(first, prompt=(Picture(files / "images" / "3.png"), *first.prompt[1:])),
    ]
    prints = {fingerprint([sample, *samples[1:]]) for sample in [first, *changed]}
    assert len(prints) == 5


@pytest.mark.parametrize(
    ("template", "sentence"),
    [("{image}{quesion}", "unknown mark {quesion}; expected {image}, {question}"), ("{image", "expected '}'")],
    ids=["unknown mark", "lone brace"],
)
def test_a_wrong_prompt_is_one_sentence(template, sentence):
    with pytest.raises(FormatError) as caught:
        fill(template, {"image": "x", "question": "y"})
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("{", "line 1 is not JSON"), ('{"id": 1}', 'no key "tags"'), ('{"id":1,"tags":[]}\n' * 2, "there twice")],
    ids=["no JSON", "no tags", "twice"],
)
def test_wrong_tags_are_one_sentence(tmp_path, text, sentence):
    (tmp_path / "tags.jsonl").write_text(text)
    with pytest.raises(FormatError, match=sentence):
        read_tags(tmp_path / "tags.jsonl")


def test_quiz_without_tags_for_a_question_is_refused(files, tmp_path):
    (tmp_path / "tags.jsonl").write_text('{"id": "c0/1", "tags": ["colour"]}\n')
    with pytest.raises(FormatError, match="nothing about question c0/2"):
        replace(tasks(files)["micro_quiz"], tags=tmp_path / "tags.jsonl").samples()


def test_a_number_of_questions_is_spread_over_the_pictures(files):
    samples = replace(tasks(files)["vqav2"], n=6).samples()
    assert [sample.group for sample in samples] == ["0", "2", "4", "6", "8", "10"]


def test_real_captions_get_the_score_of_the_toolkit():
    pytest.importorskip("pycocoevalcap")
    if shutil.which("java") is None:
        pytest.skip("the protocol ptb needs Java")
    folder = shared_path("evaldata/captions")
    expected = json.loads(shared_path("evaldata/expected.json").read_text())["captions"]["coco_subset500"]
    task = COCOCaption(folder / "coco_subset500_refs.json", folder)
    samples = task.samples()
    answers = read_answers(folder / "coco_subset500_results.json", task.name, task.result_keys)
    scored = task.score(samples, [answers[sample.id] for sample in samples])
    assert scored.values["cider"].value == pytest.approx(expected["scores"]["CIDEr"], abs=1e-6)
    assert scored.values["BLEU-4"].value == pytest.approx(expected["scores"]["Bleu_4"], abs=1e-6)
    for image_id, value in expected["first5"].items():
        assert scored.per_sample["cider"][image_id] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("kind", ["majority", "majority_titlecase_period", "first_annotator"])
def test_real_answers_get_the_score_of_the_toolkit(kind):
    folder = shared_path("evaldata/vqa")
    expected = json.loads(shared_path("evaldata/expected.json").read_text())["vqa"][f"textvqa60_{kind}"]["vqaeval"]
    questions, annotations = (folder / f"textvqa_val60_{what}.json" for what in ("questions", "annotations"))
    task = VQAv2(questions, annotations, folder, image_name="{image_id}.jpg")
    answers = read_answers(folder / f"textvqa_val60_{kind}_results.json", task.name, task.result_keys)
    scored = task.score(task.samples(), [answers[sample.id] for sample in task.samples()])
    assert 100 * scored.values["accuracy, no extraction"].value == pytest.approx(expected, abs=1e-6)
