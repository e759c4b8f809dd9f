"""Prompts with solved examples: which ones, in what order, never the own picture, and the same every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_benchmarks import ToyJudges
from toy_questions import N, colour, tasks, write_questions

from mmi_eval.formats.errors import FormatError
from mmi_eval.networks import Networks
from mmi_eval.sample import Picture, Sample, fingerprint
from mmi_eval.tasks.few_shot import Example, FewShot, _nearest_first, with_examples

QUESTION_FIRST = "Based on the image, answer. {image}{question} The answer is:"


class MarkJudges(ToyJudges):
    """Sees the number in the first pixel of a picture; near numbers have near vectors."""

    asked: list[int]

    def __init__(self) -> None:
        super().__init__()
        self.asked = []

    def picture_vectors(self, pixels: np.ndarray) -> np.ndarray:
        self.asked += [int(mark) for mark in pixels[:, 0, 0, 0]]
        angles = pixels[:, 0, 0, 0].astype(np.float32) / 256
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_questions(tmp_path_factory.mktemp("questions") / "data")


@pytest.fixture
def judges(monkeypatch):
    made = MarkJudges()
    monkeypatch.setattr("mmi_eval.judges.load_judges", lambda folder: made)
    return made


def asked(files, name="okvqa", **few_shot):
    task = tasks(files)[name]
    return replace(task, few_shot=FewShot(**few_shot), networks=Networks(judges=files / "judges"))


def test_no_examples_change_nothing(files):
    task = tasks(files)["okvqa"]
    assert asked(files, n=0).samples() == task.samples()


@pytest.mark.parametrize("name", ["vqav2", "okvqa", "textvqa"])
@pytest.mark.parametrize("similar", [False, True], ids=["by chance", "similar"])
def test_examples_stand_before_the_question_with_their_pictures_and_names(name, similar, files, judges):
    plain = tasks(files)[name].samples()
    for sample, bare in zip(asked(files, name, n=2, similar=similar).samples(), plain, strict=True):
        first, second = sample.meta["examples"]
        assert first != second
        expected = []
        for key in (first, second):
            text = f"Question: What colour? Short answer: {colour(int(key))}"
            expected += [Picture(files / "train" / f"{key}.png"), text]
        assert sample.prompt == (*expected, *bare.prompt)
        assert (sample.id, sample.references, sample.group) == (bare.id, bare.references, bare.group)


def test_a_question_that_opens_with_words_goes_on_after_the_last_example(files):
    task = replace(asked(files, n=1), prompt=QUESTION_FIRST, example="{question} {answer}")
    sample = task.samples()[3]
    answer = colour(int(sample.meta["examples"][0]))
    shown = Picture(files / "train" / f"{sample.meta['examples'][0]}.png")
    own = Picture(files / "images" / "3.png")
    words = f"What colour? {answer} Based on the image, answer. "
    assert sample.prompt == (shown, words, own, "What colour? The answer is:")


def test_the_most_similar_example_stands_last(files, judges):
    chosen = [sample.meta["examples"] for sample in asked(files, n=3, similar=True).samples()]
    # Marks of test pictures are 4 i, of training pictures 4 i + 1; 100 is a copy of test picture 0.
    assert chosen[5] == ["106", "104", "105"]
    assert chosen[0] == ["103", "102", "101"]
    assert chosen[1] == ["102", "100", "101"]


@pytest.mark.parametrize("similar", [False, True], ids=["by chance", "similar"])
def test_a_copy_of_the_question_s_picture_is_never_shown(similar, files, judges):
    for seed in range(20):
        sample = asked(files, n=N - 1, seed=seed, similar=similar).samples()[0]
        assert "100" not in sample.meta["examples"]
        assert len(set(sample.meta["examples"])) == N - 1
    with pytest.raises(FormatError, match=f"there are {N - 1} training pictures that are not those of sample 0"):
        asked(files, n=N, similar=similar).samples()


def test_the_file_of_the_question_s_picture_is_never_shown(files):
    samples = [Sample("a", (Picture(files / "images" / "0.png"), "?"))]
    examples = [Example(Picture(files / "images" / f"{i}.png"), f"{i}") for i in range(3)]
    for seed in range(10):
        (sample,) = with_examples(samples, examples, FewShot(2, seed), Networks())
        assert set(sample.meta["examples"]) == {"1.png", "2.png"}


def test_what_is_drawn_depends_on_seed_and_question_alone(files):
    by_id = {s.id: s.meta["examples"] for s in asked(files, n=2, seed=3).samples()}
    some = replace(asked(files, n=2, seed=3), n=4).samples()
    assert [by_id[sample.id] for sample in some] == [sample.meta["examples"] for sample in some]
    assert len({tuple(examples) for examples in by_id.values()}) > N // 2
    other = {s.id: s.meta["examples"] for s in asked(files, n=2, seed=4).samples()}
    assert other != by_id
    assert {s.id: s.meta["examples"] for s in asked(files, n=2, seed=3).samples()} == by_id


def test_a_fingerprint_tells_examples_apart(files):
    prints = {fingerprint(asked(files, n=n, seed=seed).samples()) for n, seed in ((0, 0), (1, 0), (2, 0), (2, 1))}
    assert len(prints) == 4


def test_of_several_questions_on_a_picture_one_is_shown(files):
    samples = [Sample(f"{i}", (Picture(files / "images" / f"{i}.png"), "?")) for i in range(N)]
    pictures = [Picture(files / "train" / f"{100 + i}.png") for i in range(1, 4)]
    examples = [Example(picture, text, text) for picture in pictures for text in (f"{picture.path.stem} a", "b")]
    shown = with_examples(samples, examples, FewShot(3), Networks())
    assert all(len({p.path for p in sample.pictures}) == 4 for sample in shown)
    assert len({name for sample in shown for name in sample.meta["examples"]}) > 3


def test_a_pool_limits_what_may_be_chosen(files):
    chosen = {name for s in asked(files, n=1, pool=3).samples() for name in s.meta["examples"]}
    assert chosen <= {"100", "104", "108"}


def test_pictures_are_looked_at_once_and_kept_where_statistics_are(files, judges, tmp_path):
    task = asked(files, "vqav2", n=1, similar=True)
    task = replace(task, networks=replace(task.networks, statistics=tmp_path / "statistics"))
    first = task.samples()
    assert len(judges.asked) == 2 * N
    assert len(list((tmp_path / "statistics").glob("picture-vectors-*.npy"))) == 2
    task = replace(task, networks=replace(task.networks, judges=files / "other judges"))
    assert task.samples() == first
    assert len(judges.asked) == 2 * N


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=90))
def test_places_come_by_falling_similarity_and_equal_ones_in_order(similarity):
    row = np.asarray(similarity, np.float32)
    assert list(_nearest_first(row)) == np.argsort(-row, kind="stable").tolist()


WRONG = {
    "no training questions": (
        {"train_questions": None},
        {"n": 2},
        "train_questions is not set; set it and train_annot",
    ),
    "the split itself": ({}, {"n": 2}, "would show questions that are scored"),
    "no answers": ({"train_annotations": None}, {"n": 2}, "there are 0 training pictures"),
}


@pytest.mark.parametrize(("changes", "few_shot", "sentence"), WRONG.values(), ids=WRONG)
def test_examples_that_cannot_be_shown_are_one_sentence(changes, few_shot, sentence, files):
    task = replace(asked(files, **few_shot), **changes)
    if "scored" in sentence:
        task = replace(task, train_questions=task.questions)
    with pytest.raises(FormatError, match=sentence):
        task.samples()
    if "there are 0" not in sentence:
        with pytest.raises(FormatError, match=sentence):
            task.check()


def test_retrieval_without_a_network_is_one_sentence_before_anything_is_asked(files):
    task = replace(asked(files, n=2, similar=True), networks=Networks())
    with pytest.raises(FormatError, match=r"picture-text similarity needs CLIP and networks\.clip is not set"):
        task.check()


def test_retrieval_needs_a_picture_to_compare_with(judges, files):
    example = Example(Picture(files / "train" / "101.png"), "a")
    with pytest.raises(FormatError, match="sample a has no picture to compare with"):
        with_examples([Sample("a", ("?",))], [example], FewShot(1, similar=True), Networks(judges=files))


@pytest.mark.parametrize(("given", "sentence"), [((-1,), "at least 0"), ((2, 0, False, 2), "pool of 2 for n 2")])
def test_settings_that_mean_nothing_are_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        FewShot(*given)
