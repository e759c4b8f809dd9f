"""Benchmarks of short answers: ceilings, floors, worked cases, the original scorers' values, files for servers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from shared_data import shared_path
from toy_benchmarks import ToyModel
from toy_questions import N, colour, people, right, tasks, write_questions

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.gqa import read_gqa_predictions, write_gqa_predictions
from mmi_eval.formats.vizwiz import read_vizwiz_results
from mmi_eval.formats.vqa import read_vqa, read_vqa_results
from mmi_eval.predictions import read_answers
from mmi_eval.tasks import TASKS
from mmi_eval.tasks.answer_files import score_answer_files

NAMES = ("vqav2", "okvqa", "textvqa", "vizwiz", "gqa")

# Eight of ten say the colour and two say grey. Leaving one out, "grey" finds 2 (eight times) or 1 (twice) of the other
# nine: (8 * 2/3 + 2 * 1/3) / 10. The VizWiz toolkit leaves nobody out: 2/3.
GREY = (8 * 2 / 3 + 2 / 3) / 10


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_questions(tmp_path_factory.mktemp("questions") / "data")


def values_of(task, answers):
    return {name: score.value for name, score in task.score(task.samples(), answers).values.items()}


@pytest.mark.parametrize("name", NAMES)
def test_an_oracle_gets_one_and_an_empty_model_nothing(name, files):
    task = tasks(files)[name]
    samples = task.samples()
    knows = ToyModel(samples, lambda sample: sample.references[0])
    assert set(values_of(task, task.answer(knows, samples)).values()) == {1.0}
    empty = task.score(samples, task.answer(ToyModel(samples), samples))
    assert {score.value for score in empty.values.values()} == {0.0}
    assert empty.counts["empty answers"] == N


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_that_could_not_be_had_counts_as_wrong(name, files):
    task = tasks(files)[name]
    samples = task.samples()
    assert values_of(task, [None, *right(samples)[1:]])["accuracy"] == pytest.approx((N - 1) / N)


@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [
        (
            "vqav2",
            "It is grey.",
            {"accuracy": 0, "accuracy, word-boundary extraction": GREY, "accuracy, official extraction": GREY},
        ),
        ("okvqa", "grey", {"accuracy": GREY, "type/weather and climate": GREY, "answer type/other": GREY}),
        # Both toolkits normalise here, as people disagree.
        ("textvqa", "Grey.", {"accuracy": GREY, "accuracy, vqa-toolkit, no extraction": GREY}),
        ("vizwiz", "grey", {"accuracy": 2 / 3, "accuracy, leave one out": GREY, "accuracy, vqa-toolkit": GREY}),
        # Six open questions of the twelve, and "yes" to the others.
        ("gqa", "Yes.", {"accuracy": 0.5, "structural/query": 0, "semantic/obj": 1, "detailed/existVerify": 1}),
    ],
    ids=NAMES,
)
def test_a_constant_answer_gets_what_is_computed_by_hand(name, answer, expected, files):
    found = values_of(tasks(files)[name], [answer] * N)
    assert {key: found[key] for key in expected} == pytest.approx(expected)


def test_vizwiz_counts_who_says_unanswerable_and_tells_answer_types_apart(files):
    task = tasks(files)["vizwiz"]
    scored = task.score(task.samples(), ["Unanswerable."] * N)
    assert scored.counts["said to be unanswerable"] == N
    assert scored.values["answer type/unanswerable"].value == 1
    assert scored.values["answer type/other"].value == 0
    assert scored.values["accuracy"].value == pytest.approx(1 / 3)


def test_gqa_is_exact_but_for_case_and_the_final_full_stop(files):
    task = tasks(files)["gqa"]
    said = values_of(task, ["The " + answer for answer in right(task.samples())])
    assert said["accuracy"] == 0
    assert said["accuracy, word-boundary extraction"] == 1
    assert values_of(task, [f" {answer.upper()}. " for answer in right(task.samples())])["accuracy"] == 1


def test_the_headline_shortens_answers_as_it_is_told(files):
    for name in ("vqav2", "okvqa", "textvqa", "vizwiz"):
        task = tasks(files)[name]
        said = ["It is grey. Or so"] * N
        assert task.protocol.endswith("extraction none")
        for extraction in ("none", "word-boundary", "official"):
            chosen = replace(task, extraction=extraction)
            found = values_of(chosen, said)
            words = "no extraction" if extraction == "none" else f"{extraction} extraction"
            assert found["accuracy"] == found[f"accuracy, {words}"]
            assert chosen.protocol.endswith(f"extraction {extraction}")


def test_headlines_come_first_and_say_their_rule(files):
    rules = {"vqav2": "vqa-toolkit", "okvqa": "vqa-toolkit", "textvqa": "m4c", "vizwiz": "vizwiz-toolkit"}
    for name, task in tasks(files).items():
        assert next(iter(values_of(task, right(task.samples())))) == "accuracy"
        assert task.protocol.startswith(rules.get(name, "exact match"))
        assert TASKS[name] is type(task)
        assert (task.name, task.version) == (name, 2 if name == "vqav2" else 1)


@pytest.mark.parametrize("name", ["vqav2", "okvqa", "textvqa"])
def test_baselines_are_counted_on_training_questions(name, files):
    task = tasks(files)[name]
    baselines = task.baselines(task.samples())
    # Half of the training answers are blue, and so are half of the right ones; two of ten say grey.
    assert [colour(i) for i in range(N)].count("blue") == N // 2
    assert baselines["majority"].values["accuracy"].value == pytest.approx(0.5)
    assert baselines["majority"].notes == {"counted on": "training questions"}


def test_textvqa_reads_its_own_layout_too(files):
    task = tasks(files)["textvqa"]
    own = replace(
        task,
        questions=files / "TextVQA_test.json",
        annotations=None,
        image_name="{image_id}.png",
        train_questions=files / "TextVQA_train.json",
        train_annotations=None,
    )
    assert [s.references for s in own.samples()] == [s.references for s in task.samples()]
    assert [s.pictures for s in own.samples()] == [s.pictures for s in task.samples()]
    assert own.baselines(own.samples())["majority"].notes == {"counted on": "training questions"}
    assert values_of(own, right(own.samples()))["accuracy"] == 1


def test_ok_vqa_without_a_most_common_answer_counts_it(files, tmp_path):
    content = json.loads((files / "okvqa_test_a.json").read_text())
    for row in content["annotations"]:
        del row["multiple_choice_answer"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    items = read_vqa(files / "okvqa_test_q.json", tmp_path / "a.json")
    assert [item.annotation.multiple_choice_answer for item in items if item.annotation] == [
        colour(i) for i in range(N)
    ]


def test_a_wrong_file_name_template_is_one_sentence(files):
    task = tasks(files)["gqa"]
    with pytest.raises(FormatError, match=r"write it with \{image_id\}"):
        replace(task, image_name="{image}.png").samples()


SERVERS = {
    "vqav2": lambda path: {str(key): answer for key, answer in read_vqa_results(path).items()},
    "vizwiz": read_vizwiz_results,
    "gqa": read_gqa_predictions,
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_submission_answers_every_question_with_what_the_headline_scores(name, files, tmp_path):
    task = tasks(files)[name]
    task = task if name == "gqa" else replace(task, extraction="word-boundary")
    samples = task.samples()
    path = tmp_path / "submission.json"
    task.write_submission(path, samples, [f"{answer.upper()}." for answer in right(samples)])
    assert SERVERS[name](path) == {sample.id: sample.references[0] for sample in samples}
    answers = read_answers(path, task.name, task.result_keys)
    assert values_of(task, [answers[sample.id] for sample in samples])["accuracy"] == 1


@pytest.mark.parametrize("name", SERVERS)
def test_a_submission_with_a_question_left_out_is_refused(name, files, tmp_path):
    task = tasks(files)[name]
    samples = task.samples()
    path = tmp_path / "submission.json"
    with pytest.raises(FormatError, match=f"would lack {N - 4} of {N} answers, such as to question .*whole split"):
        task.write_submission(path, samples[:4], right(samples)[:4])
    with pytest.raises(FormatError, match=f"would lack 1 of {N}"):
        task.write_submission(path, samples, [None, *right(samples)[1:]])
    with pytest.raises(FormatError, match="would answer 1 questions that the split does not hold, such as new"):
        task.write_submission(path, [*samples, replace(samples[0], id="new")], [*right(samples), "red"])
    assert not path.exists()


def test_questions_without_public_answers_can_be_asked_and_submitted_but_not_scored(files, tmp_path):
    (tmp_path / "vizwiz.json").write_text(json.dumps([{"image": "VizWiz_val_00000000.png", "question": "what?"}]))
    (tmp_path / "gqa.json").write_text(json.dumps({"1": {"imageId": "0", "question": "what?", "isBalanced": True}}))
    known = tasks(files)
    secret = [
        replace(known["vqav2"], annotations=None),
        replace(known["vizwiz"], questions=tmp_path / "vizwiz.json"),
        replace(known["gqa"], questions=tmp_path / "gqa.json"),
    ]
    for task in secret:
        samples = task.samples()
        task.write_submission(tmp_path / f"{task.name}.json", samples, ["red"] * len(samples))
        assert all(picture.path.is_file() for sample in samples for picture in sample.pictures)
        with pytest.raises(FormatError, match="has no answers to score against; write a submission"):
            task.score(samples, ["red"] * len(samples))


# Every value of the original scorers on answers to short questions: (task, predictions, questions, annotations).
SCORED = {
    "vqav2_sample": ("vqav2", "vqav2_sample_results", "vqav2_sample_questions", "vqav2_sample_annotations"),
    **{
        f"textvqa60_{kind}": (
            "textvqa",
            f"textvqa_val60_{kind}_results",
            "textvqa_val60_questions",
            "textvqa_val60_annotations",
        )
        for kind in ("majority", "majority_titlecase_period", "first_annotator")
    },
    "vizwiz_frozen_vilt2": ("vizwiz", "vizwiz_val_frozen_vilt2_results", "vizwiz_val_official_layout", None),
    "gqa_sample": ("gqa", "gqa_sample_predictions", "gqa_sample_questions", None),
}


def expected_values(name: str) -> dict[str, float]:
    """Return the values of the original scorers under our names, as fractions."""
    row = json.loads(shared_path("evaldata/expected.json").read_text())["vqa"][name]
    if name == "gqa_sample":
        return {"accuracy": row["accuracy"] / 100}
    if name.startswith("textvqa"):
        return {
            "accuracy, no extraction": row["m4c_accuracy"],
            "accuracy, vqa-toolkit, no extraction": row["vqaeval"] / 100,
        }
    if name.startswith("vizwiz"):
        printed = row["vizwiz_toolkit"]
        found = {
            "accuracy, no extraction": printed["overall"],
            "accuracy, leave one out, no extraction": row["vizwiz_toolkit_leave_one_out"],
            "accuracy, vqa-toolkit, no extraction": row["vqaeval"],
        }
    else:
        printed = row["vqaeval"]
        found = {"accuracy, no extraction": printed["overall"]}
    for key, prefix in (("perQuestionType", "type"), ("perAnswerType", "answer type")):
        found |= {f"{prefix}, no extraction/{kind}": value for kind, value in printed.get(key, {}).items()}
    return {key: value / 100 for key, value in found.items()}


@pytest.mark.parametrize("name", SCORED)
def test_real_answers_get_every_value_of_the_original_scorers(name):
    folder = shared_path("evaldata/vqa")
    task, *rest = SCORED[name]
    predictions, questions, annotations = (None if part is None else folder / f"{part}.json" for part in rest)
    assert predictions is not None
    assert questions is not None
    scored = score_answer_files(task, predictions, questions, annotations)
    expected = expected_values(name)
    assert {key: scored.values[key].value for key in expected} == pytest.approx(expected, abs=1e-9)
    assert scored.counts["not in the file"] == 0


def test_answer_files_are_scored_without_pytorch():
    code = "import sys, mmi_eval.tasks.answer_files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_answer_files_that_do_not_fit_are_one_sentence(files, tmp_path):
    questions, annotations = files / "vqa_test_q.json", files / "vqa_test_a.json"
    path = tmp_path / "answers.json"

    def scored(rows, *args):
        path.write_text(json.dumps(rows))
        return score_answer_files(args[0], path, *args[1:])

    with pytest.raises(FormatError, match="against two files"):
        scored([], "vqav2", questions)
    with pytest.raises(FormatError, match="keeps answers in the questions file"):
        scored([], "gqa", files / "gqa.json", annotations)
    with pytest.raises(FormatError, match=r"answers 1 questions that .* does not hold, such as 99"):
        scored([{"question_id": 99, "answer": "red"}], "vqav2", questions, annotations)
    with pytest.raises(FormatError, match="answers no question"):
        scored([], "vqav2", questions, annotations)
    some = scored([{"question_id": 0, "answer": people(colour(0))[0]}], "vqav2", questions, annotations)
    assert some.values["accuracy"].value == 1
    assert some.counts["not in the file"] == N - 1
    write_gqa_predictions(path, {"000": colour(0)})
    assert score_answer_files("gqa", path, files / "gqa.json").values["accuracy"].n == 1
