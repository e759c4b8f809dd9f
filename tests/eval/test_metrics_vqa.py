"""VQA accuracy: each protocol's oddities by hand, the original scorers' values on real answers, extraction rules."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared_data import shared_path

from mmi_eval.metrics.answer_extraction import extract_at_words, extract_official
from mmi_eval.metrics.answer_normalisation import CONTRACTIONS, normalise
from mmi_eval.metrics.vqa import (
    ANSWER_EXTRACTIONS,
    VQA_PROTOCOLS,
    exact_match,
    exact_match_score,
    m4c_accuracy,
    vizwiz_leave_one_out_accuracy,
    vizwiz_toolkit_accuracy,
    vqa_accuracy,
    vqa_toolkit_accuracy,
)

words = st.sampled_from(["yes", "no", "2", "two", "a dog", "Dog.", "red, white", "isnt", "1,000", ""])
ten = st.lists(words, min_size=10, max_size=10)


def read(name: str):
    return json.loads((shared_path("evaldata") / name).read_text())


def people(matching: int, answer: str = "dog", other: str = "cat") -> list[str]:
    return [answer] * matching + [other] * (10 - matching)


# With m of ten matching, leaving one out finds m - 1 (m times) or m: (m min(1, (m-1)/3) + (10-m) min(1, m/3)) / 10.
LEFT_OUT = {0: 0.0, 1: 0.3, 2: 0.6, 3: 0.9, 4: 1.0, 9: 1.0, 10: 1.0}


@pytest.mark.parametrize(("matching", "accuracy"), LEFT_OUT.items())
def test_leaving_one_person_out_by_hand(matching, accuracy):
    for rule in (vqa_toolkit_accuracy, m4c_accuracy, vizwiz_leave_one_out_accuracy):
        assert rule("dog", people(matching)) == pytest.approx(accuracy)
    assert vizwiz_toolkit_accuracy("dog", people(matching)) == pytest.approx(min(1, matching / 3))


def test_the_toolkit_normalises_only_where_people_disagree():
    assert vqa_toolkit_accuracy("Dog.", ["dog"] * 10) == 0.0
    assert vqa_toolkit_accuracy("The dog.", ["dog"] * 9 + ["cat"]) == 1.0
    assert vqa_toolkit_accuracy(" dog\n", ["dog"] * 10) == 1.0
    assert m4c_accuracy("The dog.", ["dog"] * 10) == 1.0


def test_equal_answers_of_several_people_do_not_drop_out_together():
    assert vqa_toolkit_accuracy("dog", people(4)) == 1.0


def test_vizwiz_normalises_the_model_but_not_the_people():
    assert vizwiz_toolkit_accuracy("a dog", people(10, "a dog")) == 0.0
    assert vizwiz_toolkit_accuracy("A dog!", people(3)) == 1.0


def test_vizwiz_writes_contractions_with_curly_apostrophes():
    assert vizwiz_toolkit_accuracy("dont", people(10, "don't")) == 0.0
    assert vizwiz_toolkit_accuracy("cant", people(10, "can't")) == 1.0


NORMALISED = {
    "mark at a space goes": ("yes, it is", "yes it is"),
    "mark inside becomes a space": ("black/white", "black white"),
    "comma in a number joins all": ("1,000-2,000", "10002000"),
    "full stop goes": ("u.s.a.", "usa"),
    "full stop before a digit stays": ("7.5", "7.5"),
    "a digit before a full stop does not keep it": ("3. floor", "3 floor"),
    "number words": ("None of the ten", "0 of 10"),
    "articles": ("a an the", ""),
    "contraction": ("shouldntve isnt", "shouldntve isn't"),
    "reversed entry": ("somebody'd", "somebodyd"),
    "apostrophes stay": ("dog's", "dog's"),
    "32 full stops": (".a" * 33, "a" * 32 + ".a"),
}


@pytest.mark.parametrize(("text", "expected"), NORMALISED.values(), ids=NORMALISED.keys())
def test_normalisation_by_hand(text, expected):
    assert normalise(text) == expected


def test_the_contraction_table_lacks_one_apostrophe_per_entry():
    assert len(CONTRACTIONS) == 114
    assert CONTRACTIONS["couldnt've"] == CONTRACTIONS["couldn'tve"] == "couldn't've"
    assert CONTRACTIONS["twas"] == "'twas"
    assert "lets" not in CONTRACTIONS


@given(words, ten)
def test_every_protocol_gives_a_share_and_ignores_the_order_of_people(answer, humans):
    for rule in VQA_PROTOCOLS.values():
        assert 0.0 <= rule(answer, humans) <= 1.0
        assert rule(answer, humans) == pytest.approx(rule(answer, humans[::-1]))


@given(ten)
def test_an_answer_that_four_people_gave_is_right(humans):
    for answer in set(humans):
        if humans.count(answer) >= 4:
            assert vqa_toolkit_accuracy(answer, humans) == 1.0


EXTRACTED = {
    "inside a word": ("panda bear", "bear", "panda bear"),
    "inside a word, an": ("american flag", "flag", "american flag"),
    "pizza": ("pizza hut", "hut", "pizza hut"),
    "prefix of a word": ("post office", "post", "post office"),
    "sentence": ("The man is riding a horse.", "horse", "horse"),
    "quotes, lines": ('"Red"\nQuestion: what', "red", "red"),
    "between two": ("it is red is it", "red", "red"),
    "comma": ("Yes, it does", "yes", "yes"),
    "comma in a number": ("1,000", "1", "1,000"),
    "decimal": ("7.5", "7", "7.5"),
    "choice": ("red or blue", "red", "red"),
    "both": ("dog and cat", "dog", "dog"),
    "of": ("glass of wine", "glass", "glass"),
    "nothing left": ("of", "of", "of"),
    "starts with a full stop": (". red", "", ". red"),
    "empty": ("", "", ""),
}


@pytest.mark.parametrize(("text", "official", "at_words"), EXTRACTED.values(), ids=EXTRACTED.keys())
def test_extraction_by_hand(text, official, at_words):
    assert extract_official(text) == official
    assert extract_at_words(text) == at_words
    assert ANSWER_EXTRACTIONS["none"](text) == text


@given(st.from_regex(r"[a-zA-Z0-9]{1,12}", fullmatch=True))
def test_extraction_keeps_a_single_word(word):
    assert extract_at_words(word) == extract_official(word) == word.lower()


@given(st.from_regex(r"[a-z]{1,6}( [a-z]{1,6}){0,3}", fullmatch=True))
def test_extraction_at_words_keeps_whole_words_and_leaves_something(text):
    kept = extract_at_words(text).split()
    assert kept
    assert " ".join(kept) in text
    assert set(kept) <= set(text.split())


def vizwiz(protocol: str):
    rows = read("vqa/vizwiz_val_official_layout.json")
    answers = {row["image"]: row["answer"] for row in read("vqa/vizwiz_val_frozen_vilt2_results.json")}
    humans = [[answer["answer"] for answer in row["answers"]] for row in rows]
    types = [row["answer_type"] for row in rows]
    said = [answers[row["image"]] for row in rows]
    return vqa_accuracy(said, humans, protocol=protocol, extraction="none", answer_types=types)


def test_vizwiz_answers_score_what_the_original_scorers_give():
    expected = read("expected.json")["vqa"]["vizwiz_frozen_vilt2"]
    toolkit = vizwiz("vizwiz-toolkit")
    assert 100 * vizwiz("vqa-toolkit").overall.value == pytest.approx(expected["vqaeval"])
    assert 100 * toolkit.overall.value == pytest.approx(expected["vizwiz_toolkit"]["overall"])
    assert {kind: 100 * score.value for kind, score in toolkit.by_answer_type.items()} == pytest.approx(
        expected["vizwiz_toolkit"]["perAnswerType"]
    )
    left_out = vizwiz("vizwiz-leave-one-out").overall.value
    assert 100 * left_out == pytest.approx(expected["vizwiz_toolkit_leave_one_out"])


def vqa_layout(results: str, annotations: str, protocol: str):
    answers = {row["question_id"]: row["answer"] for row in read(f"vqa/{results}")}
    rows = read(f"vqa/{annotations}")["annotations"]
    humans = [[answer["answer"] for answer in row["answers"]] for row in rows]
    return vqa_accuracy(
        [answers[row["question_id"]] for row in rows],
        humans,
        protocol=protocol,
        extraction="none",
        question_types=[row.get("question_type") for row in rows],
        answer_types=[row.get("answer_type") for row in rows],
    )


@pytest.mark.parametrize("name", ["majority", "majority_titlecase_period", "first_annotator"])
def test_textvqa_answers_score_what_the_original_scorers_give(name):
    expected = read("expected.json")["vqa"][f"textvqa60_{name}"]
    files = f"textvqa_val60_{name}_results.json", "textvqa_val60_annotations.json"
    assert vqa_layout(*files, "m4c").overall.value == pytest.approx(expected["m4c_accuracy"])
    assert 100 * vqa_layout(*files, "vqa-toolkit").overall.value == pytest.approx(expected["vqaeval"])


def test_vqav2_answers_score_what_the_toolkit_gives():
    expected = read("expected.json")["vqa"]["vqav2_sample"]["vqaeval"]
    scored = vqa_layout("vqav2_sample_results.json", "vqav2_sample_annotations.json", "vqa-toolkit")
    assert 100 * scored.overall.value == pytest.approx(expected["overall"])
    for scores, name in ((scored.by_question_type, "perQuestionType"), (scored.by_answer_type, "perAnswerType")):
        assert {kind: 100 * score.value for kind, score in scores.items()} == pytest.approx(expected[name])


def test_gqa_answers_score_what_the_rule_gives():
    questions, predictions = read("vqa/gqa_sample_questions.json"), read("vqa/gqa_sample_predictions.json")
    truths = [questions[row["questionId"]]["answer"] for row in predictions]
    score = exact_match_score([row["prediction"] for row in predictions], truths)
    assert 100 * score.value == read("expected.json")["vqa"]["gqa_sample"]["accuracy"]


def test_exact_match_lower_cases_and_drops_final_full_stops():
    assert exact_match(" Left. ", "left") == 1.0
    assert exact_match("the left", "left") == 0.0


def test_accuracy_is_reported_by_type():
    scored = vqa_accuracy(
        ["dog", "cat", "dog"],
        [people(10)] * 3,
        protocol="vqa-toolkit",
        extraction="none",
        question_types=["what", "what", None],
        groups=[1, 1, 2],
    )
    assert scored.overall.value == pytest.approx(2 / 3)
    assert {kind: (score.value, score.n) for kind, score in scored.by_question_type.items()} == {"what": (0.5, 2)}
    assert scored.by_answer_type == {}
    assert scored.per_question.tolist() == [1.0, 0.0, 1.0]


def test_wrong_input_is_one_sentence():
    with pytest.raises(KeyError, match="Known: vqa-toolkit, m4c"):
        vqa_accuracy(["a"], [["a"]], protocol="vqa", extraction="none")
    with pytest.raises(KeyError, match="Known: official, word-boundary, none"):
        vqa_accuracy(["a"], [["a"]], protocol="m4c", extraction="some")
    with pytest.raises(ValueError, match="human_answers has 1 entries for 2 answers"):
        vqa_accuracy(["a", "b"], [["a"]], protocol="m4c", extraction="none")
    with pytest.raises(ValueError, match="answer_types has 2 entries for 1 answers"):
        vqa_accuracy(["a"], [["a"]], protocol="m4c", extraction="none", answer_types=["x", "y"])
    with pytest.raises(ValueError, match="question 0 has no human answer"):
        vqa_accuracy(["a"], [[]], protocol="m4c", extraction="none")
