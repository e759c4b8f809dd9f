"""Questions about the micro-world: answerable from the scene graph, hard to guess, about fine detail when asked for."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from mmi.data.microworld.dice import Dice
from mmi.data.microworld.oracles import answer_from_scenes
from mmi.data.microworld.print_reader import NOISE, legibility
from mmi.data.microworld.proof import guessing_table, scene_graph_table
from mmi.data.microworld.questions import QUESTION_TYPES, ask, ask_print, ask_several, draw_quiz
from mmi.data.microworld.recipe import PRESETS
from mmi.data.microworld.scene import Print, Scene, Thing, character, draw_scene
from mmi.data.microworld.vocabulary import VERSION

STORED = json.loads(Path(__file__).with_name("microworld_oracles.json").read_text(encoding="utf-8"))
LIMITS = {
    "count": 0.41,
    "count alike": 0.4,
    "name": 0.22,
    "shape": 0.22,
    "colour": 0.18,
    "place": 0.16,
    "position": 0.15,
    "number": 0.13,
    "word": 0.2,
    "texture": 0.45,
    "yes/no": 0.56,
}


def test_the_stored_table_is_of_this_version():
    assert STORED["version"] == VERSION, "run python -m mmi.data.microworld.proof tests/data"


@pytest.mark.parametrize("preset", PRESETS)
def test_tags_say_what_a_question_tests(preset):
    asked = Counter()
    for i in range(200):
        quiz = draw_quiz(Dice("quiz", i), "train", PRESETS[preset])
        for latest, questions in enumerate(quiz.questions):
            assert 1 <= len(questions) <= PRESETS[preset].quiz_questions[1]
            for question in questions:
                scene = quiz.scenes[latest - question.steps_back]
                assert question.tags[0] == question.type
                assert (f"earlier {question.steps_back}" in question.tags) == (question.steps_back > 0)
                assert ("print" in question.tags) == (question.type in ("number", "word"))
                sizes = [tag.removeprefix("print ") for tag in question.tags if tag.startswith("print ")]
                texts = {thing.print.text for thing in scene.things if thing.print and thing.print.size in sizes}
                assert not sizes or question.answer in texts
                asked[question.type, question.steps_back] += 1
    absent = set() if PRESETS[preset].yes_no_share else {"yes/no"}
    absent |= set() if PRESETS[preset].n_things[1] >= 4 else {"count alike"}  # nothing to tell apart
    assert {kind for kind, _ in asked} == set(QUESTION_TYPES) - absent
    assert {steps for _, steps in asked} == set(range(max(PRESETS[preset].quiz_pictures)))


def test_a_recalled_quiz_asks_as_much_about_the_first_picture_as_about_the_second():
    asked = Counter()
    for i in range(200):
        quiz = draw_quiz(Dice("recalled", i), "train", PRESETS["recalled"])
        assert [len(quiz.scenes), len(quiz.questions)] == [2, 2]
        asked.update(question.steps_back for question in quiz.questions[1])
    assert 0.4 < asked[1] / asked.total() < 0.6


def test_a_crowded_quiz_asks_much_of_one_picture():
    recipe, counts, read = PRESETS["crowded"], [], 0
    for i in range(300):
        quiz = draw_quiz(Dice("crowded", i), "train", recipe)
        ((scene, questions),) = zip(quiz.scenes, quiz.questions, strict=True)
        texts = {question.text for question in questions}
        assert len(texts) == len(questions) <= recipe.quiz_questions[1]
        assert 4 <= len(scene.things) <= 6
        assert all("count" in question.tags or question.tags[1:2] != ("by colour",) for question in questions)
        counts.append(len(questions))
        read += any(question.type == "number" for question in questions)
    # Where fewer are asked the picture has little to ask about: names and prints are missing.
    assert min(counts) >= 8
    assert sum(count >= 10 for count in counts) > 0.95 * len(counts)
    assert sum(counts) > 12 * len(counts) - 60
    assert read > 280


@pytest.mark.parametrize("preset", PRESETS)
def test_numbers_of_pictures_and_questions_are_parameters(preset):
    for pictures, fewest, most in (((1,), 1, 1), ((3,), 2, 3), ((1, 3), 4, 4)):
        recipe = replace(PRESETS[preset], quiz_pictures=pictures, quiz_questions=(fewest, most))
        quizzes = [draw_quiz(Dice("numbers", i), "val", recipe) for i in range(60)]
        assert {len(quiz.scenes) for quiz in quizzes} == set(pictures)
        assert {len(questions) for quiz in quizzes for questions in quiz.questions} == set(range(fewest, most + 1))


def test_the_share_of_pointing_by_position_is_a_parameter():
    things = Thing("heart", "blue", 0, "large", "plain", Print("3", "small")), Thing("square", "green", 4, "small")
    scene = Scene("lake", things)
    assert not any(thing.name for thing in things)
    for share in (0.0, 0.5, 1.0):
        recipe = replace(PRESETS["tiny"], position_share=share)
        questions = [ask(scene, kind, Dice(kind, i), 0, recipe) for kind in ("colour", "shape") for i in range(300)]
        tags = [question.tags[1] for question in questions if question]
        assert len(tags) == 600
        assert tags.count("by position") / len(tags) == pytest.approx(share, abs=0.07)
    recipe = replace(PRESETS["tiny"], position_share=0.0)
    # Characters are told by their look, so that only their position points without saying more.
    pair = Scene("lake", (character("Ada", 0), things[1]))
    for i in range(30):
        question = ask(pair, "colour", Dice(i), 0, recipe)
        assert question is not None
        assert ("by position" in question.tags) == (question.answer == pair.things[0].colour)


def test_an_oracle_that_sees_the_scene_graph_answers_every_question():
    table = scene_graph_table(300)
    for preset, rows in table.items():
        assert {row["accuracy"] for row in rows.values()} == {1.0}
        assert set(rows) == set(STORED["scene_graph"][preset])
    assert all(row["accuracy"] == 1 for rows in STORED["scene_graph"].values() for row in rows.values())


def test_answers_are_hard_to_guess_even_from_the_question():
    table = guessing_table()
    assert table == STORED["guessing"]
    for preset, rows in table.items():
        for kind, row in rows.items():
            # Of fewer the share of the most frequent answer says nothing.
            if row["n"] >= 40:
                assert max(row["majority"], row["by_template"], row["by_text"]) < LIMITS[kind], (preset, kind)


@pytest.mark.parametrize(
    ("preset", "image_size", "size"), [("tiny", 32, "small"), ("lab", 64, "very small"), ("lab", 128, "very small")]
)
def test_a_reader_at_a_quarter_of_the_resolution_fails_at_small_print(preset, image_size, size):
    assert legibility(preset, image_size, "number", size, 1, n=40).accuracy == 1
    assert legibility(preset, image_size, "number", size, 4, n=100).accuracy < 0.3
    rows = {
        (row["kind"], row["coarseness"], row["noise"]): row["accuracy"]
        for row in STORED["prints"]
        if (row["preset"], row["image_size"], row["print_size"]) == (preset, image_size, size)
    }
    for kind in {kind for kind, _, _ in rows}:
        assert rows[kind, 1, NOISE] == rows[kind, 1, 0] == 1
        assert rows[kind, 4, NOISE] < 0.4


def test_the_share_of_small_print_and_earlier_pictures_is_a_parameter():
    for share in (0.0, 0.5, 1.0):
        recipe = replace(PRESETS["tiny"], small_print_share=share, earlier_share=share)
        fine = [s for i in range(600) if ask_print(s := draw_scene(Dice(i), "train"), Dice(i), ("small",))]
        read = sum(
            any("print small" in question.tags for question in ask_several(scene, 3, Dice("ask", i), recipe))
            for i, scene in enumerate(fine)
        )
        assert read / len(fine) == pytest.approx(share, abs=0.1)
        later = [round for i in range(200) for round in draw_quiz(Dice("later", i), "train", recipe).questions[1:]]
        assert sum(any(q.steps_back for q in round) for round in later) / len(later) == pytest.approx(share, abs=0.1)


def test_an_unanswerable_question_is_not_asked():
    scene = Scene("lake", (Thing("heart", "red", 0, "small"),))
    assert all(ask(scene, type, Dice(0)) is None for type in ("number", "word", "name", "texture"))
    assert ask_print(scene, Dice(0), ("small",)) is None
    twins = Scene("lake", (Thing("heart", "red", 0, "small"), Thing("heart", "red", 5, "small")))
    assert ask(twins, "position", Dice(0)) is None


def test_similar_things_are_told_apart_by_what_differs():
    things = [Thing("heart", "red", 0, "large", "plain", Print("3", "small"))]
    things += [Thing("heart", "blue", 1, "large", "plain", Print("4", "small")), Thing("square", "red", 2, "small")]
    scene = Scene("lake", tuple(things))
    asked = [ask(scene, "number", Dice(i)) for i in range(60)]
    texts = {question.text for question in asked if question}
    assert "What number is on the red heart?" in texts
    assert "What number is on the heart?" not in texts
    assert all("similar" in question.tags for question in asked if question)


@pytest.mark.parametrize("text", ["How old is Ada?", "What colour is the purple shape?", "What shape is on the left?"])
def test_the_oracle_refuses_what_has_no_answer(text):
    with pytest.raises(ValueError, match=r"no question of this world|points at 0 things"):
        answer_from_scenes([Scene("lake", (Thing("heart", "red", 0, "small"),))], text)
