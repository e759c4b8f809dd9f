"""VIST, PororoSV, FlintstonesSV: what is shown before each picture, which frames are compared, and with what result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_benchmarks import SIDE
from toy_stories import StoryJudges, StoryModel, drawn, frames_of_five, write_albums, write_clips

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.npy_files import write_npy
from mmi_eval.formats.vist import VISTFile, VISTSentence, VISTStory, write_vist
from mmi_eval.metrics.frechet import feature_moments, frechet_distance
from mmi_eval.networks import Networks
from mmi_eval.results import Checkpoint
from mmi_eval.runner import Runner
from mmi_eval.sample import Picture, controlled, fingerprint
from mmi_eval.tasks.flintstones import Flintstones
from mmi_eval.tasks.pororo import Pororo
from mmi_eval.tasks.story_frames import StripFrame, real_frames
from mmi_eval.tasks.vist import VIST

GREY = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
FRAMES = [f"frame/{k}" for k in range(2, 6)]


@pytest.fixture(autouse=True)
def judges(monkeypatch):
    monkeypatch.setattr("mmi_eval.judges.load_judges", lambda folder: StoryJudges())


@pytest.fixture
def vist(tmp_path):
    folder = write_albums(tmp_path / "vist")
    return VIST(folder / "val.json", folder / "images", Networks(judges=folder))


@pytest.fixture(params=["pororo", "flintstones"])
def clips(request, tmp_path):
    folder = write_clips(tmp_path / request.param, request.param)
    return {"pororo": Pororo, "flintstones": Flintstones}[request.param](folder, Networks(judges=folder))


class Drawer:
    """Draws the real frame of whoever's first frame it sees; remembers each call."""

    def __init__(self, samples, blank: bool = False) -> None:
        self.frames = {s.pictures[0].open().tobytes(): [f.open() for f in real_frames(s)] for s in samples}
        self.blank = blank
        self.calls = []

    def generate_image(self, prompts, drawing, seeds):
        self.calls.append((prompts, seeds))
        shown = [[piece for piece in prompt if not isinstance(piece, str)] for prompt in prompts]
        return [GREY if self.blank else self.frames[p[0].tobytes()][len(p) - 1] for p in shown]


def last_picture(sample) -> Image.Image:
    return sample.target.open()


def as_answers(drawn_stories, folder):
    answers = []
    for i, pictures in enumerate(drawn_stories):
        for k, picture in enumerate(pictures):
            picture.save(folder / f"drawn-{i}-{k}.png")
        answers.append(tuple(Picture(folder / f"drawn-{i}-{k}.png") for k in range(len(pictures))))
    return answers


def save(pictures, folder):
    return [story[0] for story in as_answers([[picture] for picture in pictures], folder)]


def test_the_four_contexts_of_a_story(vist):
    texts, paths = [f"PORORO walks on {k}" for k in range(5)], [vist.images / f"0{k}.png" for k in range(5)]
    pictures = [Picture(path) for path in paths]
    turns = tuple(piece for pair in zip(texts[:4], pictures[:4], strict=True) for piece in pair)
    expected = {
        "multi_modal": (*turns, texts[4]),
        "image_only": tuple(pictures[:4]),
        "text_only": (" ".join(texts),),
        "current": (texts[4],),
    }
    for context, prompt in expected.items():
        sample = replace(vist, context=context).samples()[0]
        assert sample.prompt == prompt
        assert sample.target == pictures[4]


def test_the_real_last_pictures_are_as_similar_as_can_be(vist, tmp_path):
    samples = vist.samples()
    model = StoryModel(samples, draw=last_picture)
    scored = vist.score(samples, save(vist.answer(model, samples), tmp_path))
    assert next(iter(scored.values)) == "micro-similarity"
    assert scored.values["micro-similarity"].value == pytest.approx(1)
    assert scored.values["micro-fid"].value == pytest.approx(0, abs=1e-6)
    assert model.seeds == [sample.seed for sample in samples]


def test_an_empty_model_is_similar_to_nothing_and_too_few_pictures_have_no_distance(vist):
    samples = vist.samples()
    scored = vist.score(samples, [None] * 6)
    assert {name: score.value for name, score in scored.values.items()} == {"micro-similarity": 0.0}
    assert scored.counts == {"pictures lost": 6}
    one = vist.score(samples, [samples[0].target, *[None] * 5])
    assert one.values["micro-similarity"].value == pytest.approx(1 / 6)


def test_showing_the_earlier_picture_again_has_the_hand_computed_similarity(vist):
    cosines = []
    for i in range(6):
        earlier, last = (np.asarray(drawn(frames_of_five(i)[k][1]), float).ravel() for k in (3, 4))
        cosines.append(earlier @ last / np.linalg.norm(earlier) / np.linalg.norm(last))
    baseline = vist.baselines(vist.samples())["earlier_picture"]
    assert baseline.values["micro-similarity"].value == pytest.approx(np.mean(cosines))
    assert baseline.per_sample["micro-similarity"]["2"] == pytest.approx(cosines[2])


def test_a_story_of_one_picture_is_refused(vist, tmp_path):
    alone = VISTFile((VISTStory("7", (VISTSentence("1", "a", 0),)),))
    write_vist(tmp_path / "alone.json", alone, "formatted")
    with pytest.raises(FormatError, match="story 7 has 1 pictures; expected at least 2"):
        replace(vist, annotations=tmp_path / "alone.json").samples()


def test_each_drawn_frame_is_read_before_the_next_and_all_stories_go_together(clips):
    samples = clips.samples()
    model = Drawer(samples)
    stories = clips.answer(model, samples)
    assert [len(story) for story in stories] == [4] * 6
    assert [len(prompts) for prompts, _ in model.calls] == [6] * 4
    for k, (prompts, seeds) in enumerate(model.calls):
        assert seeds == [sample.seed + k for sample in samples]
        for prompt, story, sample in zip(prompts, stories, samples, strict=True):
            shown = [sample.pictures[0].open().tobytes(), *(picture.tobytes() for picture in story[:k])]
            texts = [sample.prompt[0], *sample.meta["captions"][1 : k + 2]]
            assert [piece if isinstance(piece, str) else piece.tobytes() for piece in prompt] == [
                *(piece for pair in zip(texts, shown, strict=False) for piece in pair),
                texts[-1],
            ]


def test_real_frames_are_at_no_distance_at_any_place(clips, tmp_path):
    samples = clips.samples()
    scored = clips.score(samples, as_answers(clips.answer(Drawer(samples), samples), tmp_path))
    assert next(iter(scored.values)) == "micro-fid"
    for name in ("micro-fid", *FRAMES):
        assert scored.values[name].value == pytest.approx(0, abs=1e-6)
    assert scored.values["micro-fid"].n == 24
    assert scored.values["micro-similarity"].value == pytest.approx(1)


def test_grey_frames_are_far_from_real_ones_and_lost_stories_are_counted(clips, tmp_path):
    samples = clips.samples()
    answers = as_answers(clips.answer(Drawer(samples, blank=True), samples), tmp_path)
    scored = clips.score(samples, [None, *answers[1:]])
    assert all(scored.values[name].value > 100 for name in ("micro-fid", *FRAMES))
    assert scored.counts["pictures lost"] == 4
    assert scored.per_sample["micro-similarity"][samples[0].id] == 0
    with pytest.raises(FormatError, match="too few"):
        clips.score(samples, [None] * 6)


def test_the_first_frame_again_is_a_baseline(clips):
    baseline = clips.baselines(clips.samples())["first_frame_again"]
    assert 0 < baseline.values["micro-similarity"].value < 1
    looks = [np.stack([np.asarray(f.open()).transpose(2, 0, 1) for f in frames]) for frames in _first_and_real(clips)]
    moments = [feature_moments(StoryJudges().features(pixels)) for pixels in looks]
    assert baseline.values["micro-fid"].value == pytest.approx(frechet_distance(*moments))
    assert clips.baselines(clips.samples()[:3]) == {}


def _first_and_real(clips):
    samples = clips.samples()
    return [s.pictures[0] for s in samples for _ in range(4)], [f for s in samples for f in real_frames(s)]


def test_an_answer_of_other_length_is_one_sentence(clips, tmp_path):
    samples = clips.samples()
    with pytest.raises(FormatError, match="has 1 frames; expected 4"):
        clips.score(samples, as_answers([[GREY]] * 6, tmp_path))


def test_names_keep_their_capital_in_lowered_captions(tmp_path):
    folder = write_clips(tmp_path / "pororo", "pororo")
    task = Pororo(folder, Networks(judges=folder))
    assert task.samples()[0].prompt[0] == "Pororo walks on 0"
    assert replace(task, names=None).samples()[0].prompt[0] == "PORORO walks on 0"


def test_a_seed_fixes_the_frame_of_each_strip(clips):
    frames = [frame for sample in clips.samples() for frame in (sample.pictures[0], *real_frames(sample))]
    again = [frame for sample in clips.samples() for frame in (sample.pictures[0], *real_frames(sample))]
    assert frames == again
    picked = {frame.draw % 3 for frame in frames}
    assert picked == {0, 1, 2}
    other = [frame for sample in replace(clips, seed=1).samples() for frame in real_frames(sample)]
    assert other != again
    assert fingerprint(replace(clips, seed=1).samples()) != fingerprint(clips.samples())


def test_where_strips_lie_does_not_count(clips, tmp_path):
    copy = write_clips(tmp_path / "elsewhere", clips.name)
    assert fingerprint(replace(clips, folder=copy).samples()) == fingerprint(clips.samples())


def test_a_frame_of_an_array_or_a_blank_one(tmp_path):
    frames = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (1, 2)])
    write_npy(tmp_path / "a.npy", frames)
    frame = StripFrame(tmp_path / "a.npy", draw=5)
    assert np.asarray(frame.open())[0, 0, 0] == 2
    assert frame.size() == (8, 8)
    assert np.asarray(replace(frame, blank=True).open())[0, 0, 0] == 128
    write_npy(tmp_path / "b.npy", frames[:0])
    with pytest.raises(FormatError, match="holds no frame"):
        StripFrame(tmp_path / "b.npy").open()


def test_a_control_takes_the_first_frame_away(clips):
    blank = controlled(clips.samples(), "blank")[0].pictures[0].open()
    assert blank.getcolors() == [(SIDE * SIDE, (128, 128, 128))]
    swapped = controlled(clips.samples(), "swapped")[0].pictures[0]
    assert isinstance(swapped, StripFrame)
    assert swapped != clips.samples()[0].pictures[0]


def test_a_run_keeps_four_pictures_of_each_story_and_scores_them_again(clips, tmp_path):
    samples = clips.samples()
    model: Any = Drawer(samples)
    runner = Runner(tmp_path / "run", batch_size=4)
    evaluation = runner.evaluate(clips, model, Checkpoint("last", 1, "0" * 64))
    assert evaluation.value("micro-fid").value == pytest.approx(0, abs=1e-6)
    assert len(list((evaluation.folder / "images").iterdir())) == 24
    model.calls.clear()
    again = runner.evaluate(clips, model, Checkpoint("last", 1, "0" * 64))
    assert model.calls == []
    assert again.score["values"] == evaluation.score["values"]


def test_without_weights_one_sentence_says_what_to_put_where(clips, vist):
    with pytest.raises(FormatError, match=r"networks\.inception is not set"):
        replace(clips, networks=Networks()).check()
    with pytest.raises(FormatError, match="is not set"):
        replace(vist, networks=Networks()).check()
