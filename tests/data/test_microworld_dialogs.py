"""Dialogs about the world: true, resolvable by what was said before, options that do not give the answer away."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mmi.data.microworld.dialogs import N_OPTIONS, N_ROUNDS, Turn, options, relevance, say, talk, wordings
from mmi.data.microworld.dice import Dice
from mmi.data.microworld.language import with_article
from mmi.data.microworld.layouts import visdial
from mmi.data.microworld.layouts.part import WorldPart
from mmi.data.microworld.recipe import PRESETS
from mmi.data.microworld.scene import Scene, Thing, draw_scene
from mmi.data.microworld.vocabulary import COLOURS, PLACE_BY_NAME, POSITIONS
from mmi_eval.formats.visdial import dense_rounds, read_dense_annotations, read_visdial

CELLS = {position.phrase: cell for cell, position in enumerate(POSITIONS)}
VALUES = {"colour": [colour.name for colour in COLOURS], "yes/no": ["yes", "no"], "number": list("0123456789")}


def dialogs(n: int = 150) -> list[tuple[Scene, str, tuple[Turn, ...]]]:
    drawn = []
    for i in range(n):
        recipe = PRESETS["lab" if i % 2 else "tiny"]
        scene = draw_scene(Dice("talk scene", i), "train", recipe=recipe)
        drawn.append((scene, *talk(scene, Dice("talk", i))))
    return drawn


def topic_of(scene: Scene, question: str) -> Thing | None:
    """The thing that a question brings up."""
    for phrase, cell in CELLS.items():
        if question in (f"what shape is {phrase}", f"who is {phrase}"):
            return next(thing for thing in scene.things if thing.cell == cell)
    found = [thing for thing in scene.things if question == f"what shape is the {thing.colour} one"]
    assert len(found) <= 1, "a colour that points at two things"
    return found[0] if found else None


def answered(scene: Scene, turn: Turn, it: Thing | None) -> str | None:
    """What the scene graph says; ``it`` is the thing of the topic."""
    words = turn.question
    if words == "how many shapes are there":
        return str(len(scene.things))
    if words == "where is this":
        return scene.place
    if "history" in turn.tags:
        assert it is not None, "a question about nothing that was mentioned"
        about = {"colour": it.colour, "position": POSITIONS[it.cell].name, "texture": it.texture}
        about |= {"number": str(it.digit), "word": str(it.word)}
        return about.get(turn.kind) or ("yes" if words == f"is it {it.size}" else "no")
    if turn.kind in ("shape", "name"):
        assert it is not None
        return it.shape if turn.kind == "shape" else (it.name or "").lower()
    here = {words_for for thing in scene.things for words_for in phrases(thing)}
    return "yes" if words in here else "no"


def phrases(thing: Thing) -> list[str]:
    look, where = f"{thing.colour} {thing.shape}", POSITIONS[thing.cell].phrase
    who = (thing.name or f"the {look}").lower()
    seen = f"do you see {thing.name.lower() if thing.name else with_article(look)}"
    return [f"is anything {thing.colour}", f"is there {with_article(thing.shape)}", seen, f"is {who} {where}"]


def test_the_scene_graph_and_the_dialog_so_far_answer_every_question():
    kinds = Counter()
    for scene, caption, turns in dialogs():
        assert len(turns) == N_ROUNDS
        it = None
        for turn in turns:
            it = topic_of(scene, turn.question) or it
            assert answered(scene, turn, it) == turn.value, turn.question
            assert not turn.question.endswith("?")
            kinds[turn.kind] += 1
        assert caption.startswith("a picture")
        if "taken" in caption:
            assert caption == f"a picture taken {PLACE_BY_NAME[scene.place].phrase}"
            assert all(turn.kind != "place" for turn in turns)
    assert set(kinds) == {
        *("yes/no", "colour", "shape", "position", "texture", "number", "word", "count", "place", "name")
    }


def test_yes_and_no_are_about_as_frequent_however_it_is_asked():
    starts: dict[str, Counter[str]] = {}
    for _, _, turns in dialogs(400):
        for turn in turns:
            if turn.kind == "yes/no":
                starts.setdefault(" ".join(turn.question.split()[:2]), Counter())[turn.value] += 1
    for start in ("is anything", "is there", "do you", "is the"):
        assert 0.4 < starts[start]["yes"] / starts[start].total() < 0.6, start


def test_options_hold_every_answer_worded_as_often():
    for i, (_, _, turns) in enumerate(dialogs(40)):
        for turn in turns:
            choices = options(turn, Dice("options", i))
            assert len(set(choices)) == N_OPTIONS
            assert say(turn, Dice("say", i)) in choices
            for value in VALUES.get(turn.kind, ()):
                assert set(wordings(turn.kind, value)) <= set(choices)


def test_other_wordings_of_the_answer_are_relevant_and_other_answers_are_not():
    for i, (_, _, turns) in enumerate(dialogs(40)):
        for turn in turns:
            answer, choices = say(turn, Dice("say", i)), options(turn, Dice("options", i))
            rated = dict(zip(choices, relevance(turn, answer, choices), strict=True))
            assert rated[answer] == 1.0
            assert all(rated[form] > 0 for form in wordings(turn.kind, turn.value) if form in rated)
            for value in VALUES.get(turn.kind, ()):
                if value != turn.value:
                    assert all(rated[form] == 0 for form in wordings(turn.kind, value))
            assert sum(value > 0 for value in rated.values()) >= 3
            assert {round(5 * value, 6) % 1 for value in rated.values()} == {0.0}


def test_small_print_may_be_too_small():
    turn = Turn("what number is on it", "number", "7", ("number", "history", "print", "print very small"))
    choices = options(turn, Dice("small"))
    rated = dict(zip(choices, relevance(turn, "7", choices), strict=True))
    assert (rated["7"], rated["it says 7"], rated["it is too small to see"], rated["it says 1"]) == (1.0, 0.8, 0.2, 0.0)


@pytest.mark.parametrize("split", ["train", "val"])
def test_dialogs_are_read_back_with_the_relevance_of_one_round(tmp_path: Path, split):
    part = WorldPart(tmp_path, split, {"train": 200, "val": 20, "test": 20})
    assert visdial.write(part) == {"visdial": 20}
    read = read_visdial(tmp_path / "visdial" / f"visdial_1.0_{split}.json")
    step = 10 if split == "train" else 1
    assert read == [visdial.dialog_of(part, i)[0] for i in range(0, part.size, step)]
    dense = read_dense_annotations(tmp_path / "visdial" / f"visdial_1.0_{split}_dense_annotations.json")
    rounds = Counter()
    for dialog, annotation in dense_rounds(read, dense):
        one = dialog.rounds[annotation.round_id - 1]
        assert one.true_option is not None
        assert annotation.relevance[one.true_option] == max(annotation.relevance) == 1.0
        assert len(one.options) == N_OPTIONS
        rounds[annotation.round_id] += 1
    assert len(rounds) > 4
    places = [one.true_option for dialog in read for one in dialog.rounds]
    assert len(set(places)) > 40  # the true answer stands anywhere
