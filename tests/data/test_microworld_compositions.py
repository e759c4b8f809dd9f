"""Compositional questions: programs answer them, words point at things, answers are balanced."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from mmi.data.microworld.compositions import compose
from mmi.data.microworld.dice import Dice
from mmi.data.microworld.layouts import gqa
from mmi.data.microworld.layouts.part import WorldPart
from mmi.data.microworld.pointers import plain
from mmi.data.microworld.programs import OPPOSITE, RELATIONS, program_text, run
from mmi.data.microworld.recipe import PRESETS
from mmi.data.microworld.scene import Scene, Thing, arrange, character, draw_scene
from mmi_eval.formats.gqa import GQAItem, GQAOperation, read_gqa

SCENE = arrange("lake", [Thing("heart", "red", 0, "large"), Thing("square", "red", 5, "small"), character("Ada", 8)])
STEP = GQAOperation


@pytest.fixture(scope="module", params=["tiny", "lab"])
def world(tmp_path_factory: pytest.TempPathFactory, request) -> tuple[WorldPart, list[GQAItem], dict[str, Scene]]:
    """A part, its questions and its scenes by picture."""
    folder: Path = tmp_path_factory.mktemp("gqa")
    image_size = {"tiny": 32, "lab": 64}[request.param]
    part = WorldPart(folder, "train", {"train": 250, "val": 0, "test": 0}, 1, image_size, PRESETS[request.param])
    gqa.write(part)
    lines = (folder / "scenes" / "gqa_train.jsonl").read_text(encoding="utf-8").splitlines()
    scenes = {r["image"].removesuffix(".png"): Scene.from_record(r) for r in map(json.loads, lines)}
    return part, read_gqa(folder / "gqa" / "train_all_questions.json"), scenes


def test_the_written_program_gives_the_written_answer(world):
    part, items, scenes = world
    asked = [question for i in range(part.size) for question in gqa.questions_of(part, i)]
    assert [plain(question.question)[0] for question in asked] == [item.question for item in items]
    for item, question in zip(items, asked, strict=True):
        assert run(item.program, scenes[item.image_id]) == item.answer == question.answer
        assert item.answer in question.choices
        assert item.program_text == program_text(item.program)
        assert (part.folder / "gqa" / "images" / f"{item.image_id}.png").is_file()


def test_words_point_at_the_things_they_name(world):
    _, items, scenes = world
    n_pointers = 0
    for item in items:
        assert item.pointers is not None
        assert item.full_answer is not None
        for text, pointers in ((item.question, item.pointers.question), (item.full_answer, item.pointers.full_answer)):
            words = text.rstrip("?.").replace(",", "").split(" ")
            for place, number in pointers.items():
                thing = scenes[item.image_id].things[int(number)]
                assert words[int(place)] in ("shape", thing.shape, thing.name)
                n_pointers += 1
        assert "#" not in item.question + item.full_answer
        assert item.full_answer[0].isupper()
        assert item.full_answer.endswith(".")
    assert n_pointers > len(items)


def test_the_balanced_set_has_each_answer_of_a_group_about_as_often(world):
    part, items, _ = world
    balanced = read_gqa(part.folder / "gqa" / "train_balanced_questions.json")
    assert balanced == [item for item in items if item.is_balanced]
    assert 0.4 * len(items) < len(balanced) < len(items)
    groups: dict[str, Counter[str]] = {}
    for item in balanced:
        assert item.groups is not None
        groups.setdefault(item.groups.narrow or "", Counter())[item.answer or ""] += 1
    for group in ("exist", "chooseSize-large|small", "verifyRel-above", "chooseRel-left|right", "existAnd"):
        counts = sorted(groups[group].values())
        assert len(counts) == 2
        assert counts[1] - counts[0] <= 2
    tagged = (part.folder / "tags" / "gqa_train.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["id"] for line in tagged} == {item.question_id for item in balanced}


def test_what_a_question_entails_follows_from_its_answer(world):
    _, items, _ = world
    by_id = {item.question_id: item for item in items}
    entailing = [item for item in items if item.entailed]
    assert entailing
    for item in entailing:
        for other in (by_id[question_id] for question_id in item.entailed):
            assert other.answer == ("yes" if other.program[-1].argument == item.answer else "no")
    assert all(item.equivalent == (item.question_id,) for item in items)


def test_questions_of_all_structures_are_asked(world):
    _, items, _ = world
    structures = Counter(item.types.structural for item in items if item.types is not None)
    assert set(structures) == {"query", "verify", "choose", "compare", "logical"}
    assert max(map(len, (item.program for item in items))) >= 5


def test_a_relation_and_its_opposite_exclude_each_other():
    for i in range(200):
        scene = draw_scene(Dice("relations", i), "train", n_things=(2, 2))
        one, other = scene.things
        for name, holds in RELATIONS.items():
            assert not (holds(one, other) and RELATIONS[OPPOSITE[name]](one, other))
            assert holds(one, other) == RELATIONS[OPPOSITE[name]](other, one)
        assert any(holds(one, other) for holds in RELATIONS.values())


PROGRAMS = {
    "query": ([STEP("select", "heart (0)"), STEP("query colour", "", (0,))], "red"),
    "relate": (
        [STEP("select", "Ada (2)"), STEP("relate", "heart,above,s (0)", (0,)), STEP("query size", "", (1,))],
        "large",
    ),
    "filter": (
        [STEP("select", "shape (1)"), STEP("filter size", "small", (0,)), STEP("query shape", "", (1,))],
        "square",
    ),
    "verify": ([STEP("select", "heart (0)"), STEP("verify size", "small", (0,))], "no"),
    "choose": ([STEP("select", "heart (0)"), STEP("choose colour", "blue|red", (0,))], "red"),
    "choose side": (
        [
            STEP("select", "heart (0)"),
            STEP("select", "Ada (2)"),
            STEP("choose rel", "to the right of|to the left of", (0, 1)),
        ],
        "left",
    ),
    "same": ([STEP("select", "heart (0)"), STEP("select", "square (1)"), STEP("same colour", "", (0, 1))], "yes"),
    "exist": ([STEP("select", "cross (-)"), STEP("exist", "?", (0,))], "no"),
    "or": (
        [
            *(STEP("select", "cross (-)"), STEP("exist", "?", (0,))),
            *(STEP("select", "Ada (2)"), STEP("exist", "?", (2,)), STEP("or", "", (1, 3))),
        ],
        "yes",
    ),
    "place": ([STEP("select", "scene (-)"), STEP("query place", "", (0,))], "lake"),
}


@pytest.mark.parametrize(("program", "answer"), PROGRAMS.values(), ids=PROGRAMS.keys())
def test_programs_by_hand(program, answer):
    assert run(program, SCENE) == answer


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ([STEP("select", "shape (0)"), STEP("query colour", "", (0,))], "needs one thing but gets 3"),
        ([STEP("select", "cross (-)"), STEP("query colour", "", (0,))], "needs one thing but gets 0"),
        ([STEP("select", "heart (0)")], "does not end with an answer"),
        ([STEP("select", "heart (0)"), STEP("guess colour", "", (0,))], 'unknown operation "guess colour"'),
        ([], "does not end with an answer"),
    ],
    ids=["several", "none", "no answer", "unknown", "empty"],
)
def test_a_program_that_cannot_be_run_says_why(program, said):
    with pytest.raises(ValueError, match=said):
        run(program, SCENE)


def test_few_things_give_few_questions_and_no_error():
    for scene in (
        arrange("town", [character("Ben", 4)]),
        arrange("town", [Thing("heart", "red", 4, "small")]),
        arrange("town", [character(name, i) for i, name in enumerate(("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn"))]),
    ):
        asked = [question for i in range(60) for question in compose(scene, 9, Dice("few", i))]
        assert all(run(question.program, scene) == question.answer for question in asked)
        assert {"queryPlace", "existName"} & {question.detailed for question in asked}
