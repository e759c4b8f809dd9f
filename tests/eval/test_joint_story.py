"""Joint story: told and drawn in turn, and judged by what the model itself has told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_benchmarks import PLACES, SIDE
from toy_stories import CHARACTERS, StoryJudges, drawn, scene

from mmi_eval.formats.frame_strips import Clip, ClipStory, write_strip
from mmi_eval.formats.pororo import write_pororo
from mmi_eval.model import Continuation
from mmi_eval.sample import Picture
from mmi_eval.tasks.joint_story import JointStory, told_turns, turn_scores

GREY = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))


class Judges(StoryJudges):
    """Likeness of a picture and a sentence: both are told by their place."""

    def picture_vectors(self, images: np.ndarray) -> np.ndarray:
        return np.eye(len(PLACES))[self.attributes(images).background]

    def text_vectors(self, texts: list[str]) -> np.ndarray:
        found = [[place in text for place in PLACES] for text in texts]
        return np.array(found, np.float64).reshape(len(texts), len(PLACES))


def frames_of(i: int) -> list[tuple[str, Any]]:
    """Story ``i``: somebody stands in a place, one cell further in each picture."""
    name, place = list(CHARACTERS)[i % 3], list(PLACES)[i % 3]
    return [(f"{name} is in the {place}, {k}.", (place, ((CHARACTERS[name], (i + k) % 9),))) for k in range(5)]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JointStory:
    monkeypatch.setattr("mmi_eval.judges.load_judges", lambda folder: Judges())
    stories, rows = [], []
    for i in range(6):
        clips = []
        for k, (text, look) in enumerate(frames_of(i)):
            image = f"Toy/{i}_{k}.png"
            write_strip(tmp_path / image, np.asarray(drawn(look))[None])
            clips.append(Clip(f"Toy/{i}_{k}", image, (text,)))
            rows.append({"image": image, **scene(look)})
        stories.append(ClipStory(tuple(clips)))
    write_pororo(tmp_path, {"test": stories})
    (tmp_path / "scenes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return JointStory(tmp_path, tmp_path / "scenes.jsonl", tmp_path)


class Teller:
    """Tells and draws the story whose first sentence it sees, or one mistake of it; remembers what it was asked."""

    def __init__(self, *, ends_at: int = 9, draws: str = "own") -> None:
        self.ends_at, self.draws = ends_at, draws
        self.prompts: list[list[Any]] = []

    def continue_text(self, prompts: Any, decoding: Any) -> list[Continuation]:
        self.prompts += [list(prompt) for prompt in prompts]
        return [self._sentence(prompt) for prompt in prompts]

    def _sentence(self, prompt: list[Any]) -> Continuation:
        turn = sum(not isinstance(piece, str) for piece in prompt)
        return Continuation(self._story(prompt)[turn][0], "end" if turn >= self.ends_at else "picture")

    def generate_image(self, prompts: Any, drawing: Any, seeds: Any) -> list[Image.Image]:
        return [self._picture(prompt) for prompt in prompts]

    def _picture(self, prompt: list[Any]) -> Image.Image:
        pictures = [piece for piece in prompt if not isinstance(piece, str)]
        if self.draws == "grey":
            return GREY
        return pictures[0] if self.draws == "first" else drawn(self._story(prompt)[len(pictures)][1])

    def _story(self, prompt: list[Any]) -> list[tuple[str, Any]]:
        return next(frames for i in range(6) if (frames := frames_of(i))[0][0] == prompt[0])


def teller(**settings: Any) -> Any:
    return Teller(**settings)


def scores(task: JointStory, model: Any, folder: Path) -> dict[str, float]:
    samples, answers = task.samples(), []
    for sample, answer in zip(samples, task.answer(model, samples), strict=True):
        if not isinstance(answer, str):
            files = [folder / f"{sample.seed}-{k}.png" for k in range(len(answer))]
            for file, picture in zip(files, answer, strict=True):
                picture.save(file)
            answer = tuple(Picture(file) for file in files)
        answers.append(answer)
    return {name: score.value for name, score in task.score(samples, answers).values.items()}


def test_who_tells_and_draws_the_same_has_everything_right(task: JointStory, tmp_path: Path) -> None:
    found = scores(task, teller(), tmp_path)
    for name in ("turn right", "told and drawn", "background", "named thing", "match", "new sentence"):
        assert found[name] == pytest.approx(1.0), name
    assert found["match, another story"] < 0.5


def test_grey_pictures_show_nothing_that_was_told(task: JointStory, tmp_path: Path) -> None:
    found = scores(task, teller(draws="grey"), tmp_path)
    assert found["told and drawn"] == 1.0
    assert found["turn right"] == found["named thing"] == 0.0


def test_a_story_that_ends_early_has_nothing_right_from_there_on(task: JointStory, tmp_path: Path) -> None:
    found = scores(task, teller(ends_at=3), tmp_path)
    assert found["told and drawn"] == found["turn right"] == found["new sentence"] == 0.5


def test_every_sentence_and_picture_is_read_before_the_next(task: JointStory) -> None:
    model = teller()
    first = task.samples()[:2]
    told, frames = task.answer(model, first)
    texts = [text for text, _ in frames_of(0)]
    assert told == "\n".join(f"{text} <picture>" for text in texts[1:])
    assert [[piece for piece in prompt if isinstance(piece, str)] for prompt in model.prompts] == [
        texts[:k] for k in range(1, 5)
    ]
    assert all(isinstance(prompt[-1], Image.Image) for prompt in model.prompts)
    assert [picture.tobytes() for picture in frames] == [drawn(look).tobytes() for _, look in frames_of(0)[1:]]


def test_both_samples_of_a_story_are_of_the_same_story_however_they_are_batched(task: JointStory) -> None:
    samples = task.samples()
    at_once = task.answer(teller(), samples)
    one_by_one = [task.answer(teller(), [sample])[0] for sample in samples]
    assert [answer for answer in at_once if isinstance(answer, str)] == [a for a in one_by_one if isinstance(a, str)]
    assert [sample.request for sample in samples[:2]] == ["text", "images"]
    assert samples[0].meta["noise"] == samples[1].meta["noise"] != samples[2].meta["noise"]


def test_the_real_story_is_the_ceiling_and_a_picture_that_stays_is_not(task: JointStory) -> None:
    baselines = task.baselines(task.samples())
    assert baselines["real_story"].values["turn right"].value == 1.0
    assert baselines["first_frame_again"].values["named thing"].value == 1.0


def test_an_answer_that_could_not_be_had_has_nothing_right(task: JointStory) -> None:
    samples = task.samples()
    scored = task.score(samples, [None] * len(samples))
    assert scored.counts == {"pictures lost": 24}
    assert scored.values["turn right"].value == scored.values["background"].value == 0.0


def test_a_turn_is_right_with_its_background_and_everything_it_names() -> None:
    content = Judges().attributes(np.stack([np.asarray(drawn(frames_of(0)[0][1])).transpose(2, 0, 1)])).content(0)
    place = content.background
    other = next(name for name in PLACES if name != place)
    looks = {"Ada": ("red", "square"), "Ben": ("blue", "square")}
    told = ["ada walks.", "Ada meets Ben.", f"Ada goes to the {other}.", "Ben leaves."]
    rows = turn_scores(f"Ada is in the {place}.", told, [content] * 4, looks, list(PLACES))
    assert rows["named thing"] == [1.0, 0.5, 1.0, 1.0]
    assert rows["background"] == [1.0, 1.0, 0.0, 0.0]
    assert rows["turn right"] == [1.0, 0.0, 0.0, 0.0]


def test_a_sentence_told_twice_is_not_new() -> None:
    rows = turn_scores("a.", ["b.", "b.", "a.", None], [None] * 4, {}, [])
    assert rows["new sentence"] == [1.0, 0.0, 0.0, 0.0]
    assert told_turns(["b. <picture>", "<picture>", "c. <picture>"]) == ["b.", None, None, None]
