"""The interleaved world: episodes of 1 to 8 pictures, what their next picture must show, and how answers are scored."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_benchmarks import PLACES
from toy_stories import N_STORIES, StoryJudges, StoryModel, drawn, story, write_world

from mmi_eval.formats.errors import FormatError
from mmi_eval.judges import CellContent, PictureContent
from mmi_eval.model import Continuation, TextDecoding
from mmi_eval.results import Checkpoint
from mmi_eval.runner import Runner
from mmi_eval.sample import Picture, fingerprint
from mmi_eval.tasks.interleaved_frames import expected_of, frame_scores
from mmi_eval.tasks.interleaved_questions import PLACES_OF_CELLS, ask_about
from mmi_eval.tasks.interleaved_stories import Episode, make_episodes, read_world_stories
from mmi_eval.tasks.interleaved_world import InterleavedWorld

MAIN = ("named thing", "persistence", "text reference", "order", "background")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("toy") / "world")


@pytest.fixture(autouse=True)
def judges(monkeypatch):
    monkeypatch.setattr("mmi_eval.judges.load_judges", lambda folder: StoryJudges())


@pytest.fixture
def task(files):
    return InterleavedWorld(
        files / "stories.jsonl", files / "images", files / "scenes.jsonl", files / "judges", n=16, n_shuffled=8
    )


@pytest.fixture
def stories(task):
    return read_world_stories(task.stories, task.images, task.scenes)


def right(sample) -> Continuation:
    return Continuation("" if sample.meta["kind"] == "after text" else "Ada leaves.", "picture")


def oracle(samples, **changed):
    own = {"draw": lambda s: s.target.open(), "text": lambda s: s.references[0], "go_on": right}
    return StoryModel(samples, **(own | changed))


def scored_by(task, model, folder):
    """Score a model's answers; pictures go to files, as the runner does it."""
    samples, answers = task.samples(), []
    for number, answer in enumerate(task.answer(model, samples)):
        if isinstance(answer, Image.Image):
            answer.save(folder / f"{number}.png")
            answer = Picture(folder / f"{number}.png")
        answers.append(answer)
    return task.score(samples, answers)


def test_an_oracle_has_every_property_with_every_number_of_context_pictures(task, tmp_path):
    scored = scored_by(task, oracle(task.samples()), tmp_path)
    assert next(iter(scored.values)) == "named thing"
    wrong = {n: s.value for n, s in scored.values.items() if s.value != 1 and "another picture" not in n}
    assert not wrong
    for name in MAIN[:1] + MAIN[2:]:
        contexts = {n.rsplit("/")[1] for n in scored.values if n.startswith(f"{name}, context/")}
        assert contexts >= {str(k) for k in range(1, 9)} - ({"2"} if name == "text reference" else set())
    assert scored.values["text reference, another picture"].value == 0


def test_an_empty_model_has_nothing_but_empty_cells_and_things_that_went(task):
    samples = task.samples()
    scored = task.score(samples, [None] * len(samples))
    assert {scored.values[name].value for name in (*MAIN, "empty cells", "thing gone")} == {0.0}
    assert scored.counts["pictures lost"] == 16 + 8
    assert scored.counts["empty answers"] == scored.values["text reference"].n


def test_a_grey_picture_shows_nobody_but_leaves_cells_empty(task, tmp_path):
    scored = scored_by(task, StoryModel(task.samples()), tmp_path)
    values = {name: scored.values[name].value for name in ("named thing", "persistence", "empty cells", "thing gone")}
    assert values == {"named thing": 0, "persistence": 0, "empty cells": 1, "thing gone": 1}


def test_copying_the_latest_picture_has_the_hand_computed_value(task):
    # Uninterrupted and after one picture, somebody walks: who is named is not there yet, the place is right.
    samples = [s for s in task.samples() if s.meta["n_context"] == 1]
    baseline = task.baselines(samples)
    copied = baseline["latest_picture"].values
    assert copied["named thing"].value == 0
    assert copied["named thing, anywhere"].value == 1
    assert copied["background"].value == 1
    assert copied["persistence"].value == 0
    assert copied["text reference"].value == 1
    assert baseline["real_pictures"].values["named thing"].value == 1


def test_after_an_interruption_the_latest_picture_shows_other_people(task):
    samples = [s for s in task.samples() if s.meta["story"] == "interrupted"]
    baseline = task.baselines(samples)
    assert baseline["latest_picture"].values["named thing, anywhere"].value < 0.2
    assert baseline["latest_picture"].values["text reference"].value == 0
    # The story's own latest picture shows the right person, if not always where they go.
    anywhere = baseline["latest_of_story"].values["named thing, anywhere"].value
    assert anywhere > baseline["latest_picture"].values["named thing, anywhere"].value


def test_a_model_that_looks_at_its_context_gains_from_the_right_one(task, tmp_path):
    looks = oracle(task.samples(), draw=lambda s: drawn(("snow", ())) if "pair" in s.meta else s.target.open())
    scored = scored_by(task, looks, tmp_path)
    difference = scored.comparisons["named thing - shuffled context"]
    assert (difference.value, difference.n) == (1.0, 8)
    assert difference.low > 0
    assert scored.values["named thing, shuffled context"].value == 0
    blind = scored_by(task, oracle(task.samples()), tmp_path)
    assert blind.comparisons["persistence - shuffled context"].value == 0


def test_a_frame_and_its_shuffled_twin_differ_in_context_pictures_only(task):
    samples = {s.id: s for s in task.samples()}
    twins = [s for s in samples.values() if "pair" in s.meta]
    model = StoryModel(list(samples.values()))
    task.answer(model, [samples[twins[0].meta["pair"]], twins[0]])
    assert model.seeds[0] == model.seeds[1]
    for twin in twins:
        own = samples[twin.meta["pair"]]
        assert [p for p in twin.prompt if isinstance(p, str)] == [p for p in own.prompt if isinstance(p, str)]
        assert not {p.path for p in twin.pictures} & {p.path for p in own.pictures}
        assert twin.target == own.target
        assert twin.group == own.group


def test_episodes_have_one_to_eight_pictures_in_turn_and_guests_are_strangers(stories):
    episodes = make_episodes(stories, 24)
    assert [len(episode.context) for episode in episodes] == [1, 2, 3, 4, 5, 6, 7, 8] * 3
    assert len({episode.story.id for episode in episodes}) == N_STORIES
    for episode in episodes:
        guests = {thing["name"] for frame in episode.guests for thing in frame.scene["things"]} - {None}
        assert not guests & episode.story.names
        assert len(episode.own) == episode.target >= 1
        assert episode.next.picture not in [frame.picture for frame in episode.context]
    both = Counter(bool(e.guests) for e in episodes if len(e.context) in (2, 3))
    assert both == {False: 4, True: 2}
    assert make_episodes(stories, 24) == episodes


def test_too_many_episodes_are_refused(stories):
    with pytest.raises(
        FormatError, match="2 stories give only 7 episodes, none more with 8 context pictures; set n to 7"
    ):
        make_episodes(stories[:2], 20)


def test_without_texts_only_the_next_sentence_is_shown(task):
    frame = next(s for s in replace(task, with_texts=False).samples() if s.meta["n_context"] == 3)
    assert [isinstance(piece, str) for piece in frame.prompt] == [False, False, False, True]


def test_what_the_next_picture_must_show_leaves_out_what_its_sentence_says(stories):
    travels, takes = Episode(stories[0], 3), Episode(stories[1], 3)
    expected = expected_of(travels)
    assert [(thing["colour"], thing["unsaid"]) for thing in expected["kept"]] == [
        ("red", ["shape", "colour", "texture", "size"]),
        ("yellow", ["texture", "size"]),
    ]
    assert [thing["colour"] for thing in expected["named"]] == ["red", "yellow"]
    assert expected["place"] == story(0)[3][1][0] != story(0)[0][1][0]
    expected = expected_of(takes)
    assert [thing["colour"] for thing in expected["gone"]] == ["yellow"]
    assert [thing["colour"] for thing in expected["named"]] == ["blue"]


def test_they_are_all_who_are_there():
    frame = Episode(_told("They run to the cave.", [("Ada", "red", "top"), ("Ben", "blue", "left")]), 1)
    assert [thing["name"] for thing in expected_of(frame)["named"]] == ["Ada", "Ben"]
    frame = Episode(_told("Ada moves.", [("Ada", "red", "top"), ("Ben", "blue", "left")]), 1)
    assert [thing["name"] for thing in expected_of(frame)["named"]] == ["Ada"]


def _told(text, people):
    from mmi_eval.tasks.interleaved_stories import WorldFrame, WorldStory

    things = [
        {"name": n, "colour": c, "cell": cell, "shape": "circle", "size": "large", "texture": "plain", "print": None}
        for n, c, cell in people
    ]
    frame = WorldFrame(text, Picture(None), {"place": "cave", "things": things})  # pyright: ignore[reportArgumentType]
    return WorldStory("s", (frame, frame))


def test_frame_scores_worked_case():
    def thing(cell, colour, **more):
        plain = {"cell": cell, "shape": "circle", "colour": colour, "texture": "plain", "size": "large", "print": ""}
        return plain | more

    expected = {
        "place": "cave",
        "named": [thing(0, "red"), thing(1, "blue")],
        "gone": [thing(2, "green"), thing(3, "pink")],
        "kept": [
            thing(0, "red", unsaid=["colour", "texture"]),
            thing(4, "brown", print="7", unsaid=["colour", "print"]),
        ],
        "empty": [5, 6, 7, 8],
    }
    # Red is right but dotted; blue stands elsewhere; green is still there; the brown one lost its number.
    seen = PictureContent(
        "lake",
        (
            CellContent(0, "circle", "red", "dotted", "large"),
            CellContent(2, "circle", "green", "plain", "large"),
            CellContent(4, "circle", "brown", "plain", "large", "1"),
            CellContent(5, "circle", "blue", "plain", "large"),
        ),
    )
    assert frame_scores(expected, seen) == {
        "named thing": 0.5,
        "named thing, anywhere": 1.0,
        "thing gone": 0.5,
        "persistence": 0.5,
        "attribute/colour": 1.0,
        "attribute/texture": 0.0,
        "attribute/print": 0.0,
        "background": 0.0,
        "empty cells": 0.75,
    }
    assert set(frame_scores(expected, None).values()) == {0.0}


def test_questions_are_about_an_earlier_picture_and_wrong_for_the_latest(stories):
    for episode in make_episodes(stories, 24):
        scenes = [frame.scene for frame in episode.context]
        for pick in range(12):
            asked = ask_about(scenes, pick)
            if asked is None:
                assert len(scenes) == 2
                continue
            assert (asked.steps_back > 0) == (len(scenes) > 1)
            assert asked.steps_back == 0 or asked.answer != asked.latest
            assert asked.answer not in asked.others


def test_questions_say_which_picture_they_mean():
    scenes = [_told("", [("Ada", "red", cell)]).frames[0].scene for cell in ("top", "left", "bottom")]
    texts = {asked.text: asked.answer for pick in range(12) if (asked := ask_about(scenes, pick)) is not None}
    assert texts["In the picture before, who was on the left?"] == "Ada"
    assert texts["Two pictures before, what colour was the shape at the top?"] == "red"
    alone = {asked.text for pick in range(9) if (asked := ask_about(scenes[:1], pick)) is not None}
    assert {"What place is this?", "Who is at the top?"} <= alone


def test_the_words_for_cells_are_those_of_the_world():
    from mmi.data.microworld.vocabulary import POSITIONS

    assert {position.name: position.phrase for position in POSITIONS} == PLACES_OF_CELLS


def test_an_answer_from_a_wrong_picture_is_told_from_any_other(task, tmp_path):
    samples = task.samples()
    confused = oracle(samples, text=lambda s: next(iter(s.meta["others"]), "nothing"))
    values = scored_by(task, confused, tmp_path).values
    asked = [s for s in samples if s.meta["kind"] == "reference"]
    share = np.mean([bool(s.meta["others"]) for s in asked])
    assert 0 < share < 1
    assert values["text reference"].value == 0
    assert values["text reference, another picture"].value == pytest.approx(share)


@pytest.mark.parametrize(
    ("go_on", "after_text", "after_picture"),
    [
        (Continuation("", "picture"), 1, 0),
        (Continuation("Ada leaves.", "picture"), 0, 1),
        (Continuation("Ada leaves.", "end"), 0, 0),
        (Continuation("Ada leaves and", "more text"), 0, 0),
        (Continuation("Ada leaves. <picture>", "more text"), 0, 0),
        (Continuation("", "end"), 0, 0),
    ],
    ids=["a picture at once", "text and picture", "text and end", "text without end", "a mark as text", "end"],
)
def test_order_is_judged_by_what_comes_next(task, tmp_path, go_on, after_text, after_picture):
    values = scored_by(task, oracle(task.samples(), go_on=lambda sample: go_on), tmp_path).values
    assert values["order/after text"].value == after_text
    assert values["order/after picture"].value == after_picture
    assert values["order"].value == (after_text + after_picture) / 2


def test_the_first_samples_are_whole_episodes_and_where_files_lie_does_not_count(task, tmp_path):
    samples = task.samples()
    assert [s.meta["kind"] for s in samples[:3]] == ["frame", "frame, shuffled context", "reference"]
    assert len({s.id for s in samples}) == len(samples)
    copy = write_world(tmp_path / "elsewhere")
    moved = replace(task, stories=copy / "stories.jsonl", images=copy / "images", scenes=copy / "scenes.jsonl")
    assert fingerprint(moved.samples()) == fingerprint(samples)
    assert scored_by(replace(task, n=1, n_shuffled=0), oracle(samples), tmp_path).values["named thing"].value == 1


def test_malformed_stories_are_refused_in_one_sentence(task, tmp_path):
    lines = task.scenes.read_text().splitlines()
    (tmp_path / "scenes.jsonl").write_text("\n".join(lines[1:]))
    with pytest.raises(FormatError, match=r"no scene for 0-0\.png; use files of one world"):
        replace(task, scenes=tmp_path / "scenes.jsonl").samples()
    documents = [json.loads(line) for line in task.stories.read_text().splitlines()]
    documents[0]["image_info"].pop()
    (tmp_path / "stories.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
    with pytest.raises(FormatError, match="expected two sentences or more with a picture each"):
        replace(task, stories=tmp_path / "stories.jsonl").samples()
    with pytest.raises(FormatError, match="set n to 16 or more, or n_shuffled to 0"):
        replace(task, n=1, n_shuffled=1).samples()
    with pytest.raises(ValueError, match="most_context is 9"):
        replace(task, most_context=9)


def test_places_of_the_toy_world_are_told_apart(task):
    seen = StoryJudges().attributes(np.stack([np.asarray(drawn((p, ()))).transpose(2, 0, 1) for p in PLACES]))
    assert [seen.content(i).background for i in range(len(PLACES))] == list(PLACES)


@pytest.mark.parametrize(
    ("picture_bias", "end_bias", "then"),
    [(1e4, 0.0, "picture"), (-1e4, 1e4, "end"), (-1e4, -1e4, "more text")],
    ids=["picture", "end", "neither"],
)
def test_a_network_says_what_it_goes_on_with(picture_bias, end_bias, then):
    import torch
    from factories import byte_tokenizer, picture, tiny_config, wake_up

    from mmi.commands.evaluation_model import EvaluatedModel
    from mmi.inference import Generator
    from mmi.models.build import build_network

    torch.manual_seed(0)
    network = build_network(tiny_config())
    wake_up(network)
    head, tokenizer = network.language_model.text_head, byte_tokenizer()
    with torch.no_grad():
        head.new_bias[0] = picture_bias
        head.base_bias[tokenizer.special.eos] = end_bias
    model = EvaluatedModel(Generator(network, tokenizer))
    prompts, decoding = [["once", picture(1)], ["a longer", picture(2), "then"]], TextDecoding(max_new_tokens=4)
    found = model.continue_text(prompts, decoding)
    assert [one.then for one in found] == [then] * 2
    assert [one.text for one in found] == model.generate_text(prompts, decoding)
    assert (found[0].text == "") == (then != "more text")
    assert model.continue_text([], decoding) == []


def test_a_run_asks_all_kinds_and_goes_on_where_it_was(task, tmp_path):
    model: Any = oracle(task.samples())
    runner = Runner(tmp_path / "run", batch_size=7)
    evaluation = runner.evaluate(task, model, Checkpoint("last", 1, "0" * 64))
    assert evaluation.score["headline"] == "named thing"
    assert {evaluation.value(name).value for name in MAIN} == {1.0}
    assert evaluation.score["baselines"]["latest_picture"]["differences"]["named thing"]["value"] > 0
    asked = len(model.prompts)
    runner.evaluate(task, model, Checkpoint("last", 1, "0" * 64))
    assert len(model.prompts) == asked
