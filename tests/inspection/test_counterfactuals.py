"""What one picture is worth, with answerers whose numbers are known before they are asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from html_page import Page, is_usable, is_whole, needs_nothing
from PIL import Image
from toy_benchmarks import ToyJudges, drawn
from toy_shades import (
    GREY,
    SIDE,
    ShadeDrawing,
    ShadeQuiz,
    ShadeReader,
    asked_for,
    even_shades,
    previous,
    shade_of,
    shade_question,
)

from mmi.inspection.changes import BlurredPicture, Donors, changed_sample
from mmi.inspection.counterfactuals import Changes, ask_with_changes, askable, distance_asked, write_answers
from mmi.inspection.effect_tables import findings_of
from mmi.inspection.effects import effects_of, judged_alike, measure, pixel_difference, uses_of
from mmi.inspection.result_page import Asked, as_markdown, as_page, write_findings
from mmi_eval.formats.errors import FormatError
from mmi_eval.judges import CellContent, PictureContent
from mmi_eval.sample import Picture, Sample

N, N_PICTURES = 66, 3
ASKED = Asked("runs/toy", {"name": "last", "step": 5}, "shades", 1, N, False, "0" * 16)


@pytest.fixture
def questions(tmp_path) -> list[Sample]:
    """66 questions on three pictures each, about each of the three in turn; no shade occurs twice."""
    shades = even_shades(N * N_PICTURES)
    rows = [shades[i * N_PICTURES : (i + 1) * N_PICTURES] for i in range(N)]
    return [shade_question(tmp_path, i, row, 1 + i % N_PICTURES) for i, row in enumerate(rows)]


def effects_and_uses(task, model, samples, folder, **settings):
    arms = ask_with_changes(task, model, askable(samples), Changes(batch_size=5, **settings), folder)
    measured = measure(task, arms)
    effects = {(e.kind, e.distance, e.group): e for one in measured for e in effects_of(one)}
    uses = {(u.kind, u.asked): u for u in uses_of(measured)}
    return arms, effects, uses


def test_a_model_that_reads_the_picture_asked_about_depends_on_it_and_on_no_other(questions, tmp_path):
    _, effects, uses = effects_and_uses(ShadeQuiz(tuple(questions)), ShadeReader(asked_for), questions, tmp_path)
    # A third of the questions is about each picture; blur leaves pictures of one shade as they are.
    for kind, share in (("swap", 1 / 3), ("drop", 1 / 3), ("blur", 0.0)):
        for distance in (1, 2, 3):
            effect = effects[kind, distance, "all"]
            assert effect.differs["changed"].value == pytest.approx(share)
            scores = effect.scores["accuracy"]
            assert (scores.before.value, scores.after.value) == (1.0, pytest.approx(1 - share))
            assert scores.difference.value == pytest.approx(-share)
            assert effect.n == N
    for kind in ("swap", "drop"):
        for asked in (1, 2, 3):
            use = uses[kind, asked]
            assert (use.n, use.own.value, use.others.value, use.difference.value) == (22, 1.0, 0.0, 1.0)
            assert (use.score.value, use.score_own.value, use.score_others.value) == (1.0, 0.0, 1.0)
            assert (use.loss.value, use.verdict) == (1.0, "right answers come from the picture asked about")
    assert {uses["blur", asked].verdict for asked in (1, 2, 3)} == {"no difference shown"}


def test_a_model_that_only_reads_the_previous_picture_is_found_out(questions, tmp_path):
    _, effects, uses = effects_and_uses(ShadeQuiz(tuple(questions)), ShadeReader(previous), questions, tmp_path)
    assert [effects["drop", d, "all"].differs["changed"].value for d in (1, 2, 3)] == [0.0, 1.0, 0.0]
    # Right only where the previous picture is the one asked about, and wrong once that one is grey.
    assert effects["drop", 2, "all"].scores["accuracy"].before.value == pytest.approx(1 / 3)
    assert effects["drop", 2, "all"].scores["accuracy"].after.value == 0.0
    assert effects["drop", 2, "earlier 1"].scores["accuracy"].difference.value == -1.0
    assert effects["drop", 1, "earlier 1"].scores["accuracy"].difference.value == 0.0
    assert uses["drop", 2].verdict == "right answers come from the picture asked about"
    # Questions about the nearest are never right; half of the other changes, of two pictures, change their answers.
    assert (uses["drop", 1].own.value, uses["drop", 1].others.value) == (0.0, 0.5)
    assert uses["drop", 1].verdict == "answers change more with another picture"


def test_nothing_changed_is_no_change_and_an_answerer_that_depends_on_its_batch_is_noticed(questions, tmp_path):
    _, effects, _ = effects_and_uses(ShadeQuiz(tuple(questions)), ShadeReader(asked_for), questions, tmp_path)
    assert effects["same", None, "all"].differs["changed"].value == 0.0
    assert effects["same", None, "all"].scores["accuracy"].difference.value == 0.0

    class Forgetful(ShadeReader):
        def generate_text(self, prompts, decoding):
            answers = super().generate_text(prompts, decoding)
            return [f"{answer}, place {place}" for place, answer in enumerate(answers)]

    _, effects, _ = effects_and_uses(ShadeQuiz(tuple(questions)), Forgetful(asked_for), questions, tmp_path)
    assert effects["same", None, "all"].differs["changed"].value > 0.5


def test_prompts_with_fewer_pictures_are_asked_only_where_they_have_one(questions, tmp_path):
    fewer = [replace(q, prompt=q.prompt[-1 - k :]) for q, k in zip(questions, [1, 2, 3] * 22, strict=True)]
    arms, effects, uses = effects_and_uses(
        ShadeQuiz(tuple(fewer)), ShadeReader(asked_for), fewer, tmp_path, kinds=("drop",)
    )
    assert [(arm.distance, len(arm.samples)) for arm in arms] == [(None, 66), (1, 66), (2, 44), (3, 22)]
    groups = [group for kind, distance, group in effects if (kind, distance) == ("drop", 2)]
    assert groups == ["all", "2 pictures", "3 pictures", "earlier 1", "earlier 2", "shade"]
    assert effects["drop", 1, "1 picture"].n == 22
    # A prompt of one picture has no other to compare with.
    assert ("drop", 1) not in uses
    assert uses["drop", 2].n == 22


def test_memory_holds_a_batch_and_progress_counts_every_answer(questions, tmp_path):
    told = []
    model = ShadeReader(asked_for)
    changes = Changes(kinds=("drop", "swap"), distances=(2,), batch_size=7)
    ask_with_changes(ShadeQuiz(tuple(questions)), model, questions, changes, tmp_path, tell=lambda *at: told.append(at))
    assert max(model.batches) == 7
    assert sum(model.batches) == 4 * N
    assert told[-1] == (4 * N, 4 * N)


def test_exchanged_pictures_come_from_the_same_place_of_another_group_and_depend_on_the_seed_alone(questions, tmp_path):
    donors, again, other = Donors(questions, 0), Donors(questions, 0), Donors(questions, 1)
    for distance in (1, 2, 3):
        pool = {q.pictures[-distance].path: q.group for q in questions}
        chosen = [donors.choose(q, distance) for q in questions]
        assert all(pool[picture.path] != q.group for q, picture in zip(questions, chosen, strict=True))
        assert chosen == [again.choose(q, distance) for q in reversed(questions)][::-1]
        assert chosen != [other.choose(q, distance) for q in questions]
        assert len({picture.path for picture in chosen}) > N / 3
    lonely = Donors(questions[:1], 0)
    with pytest.raises(FormatError, match="sample 0 has no other picture to swap its 1 earlier one"):
        lonely.choose(questions[0], 2)


def test_a_drawing_is_never_given_its_own_target(questions):
    target = questions[1].pictures[-1]
    asking = replace(questions[0], request="image", target=target)
    chosen = {Donors([*questions[:3], asking], seed).choose(asking, 1).path for seed in range(20)}
    assert target.path not in chosen
    assert chosen == {questions[2].pictures[-1].path}


def test_a_change_touches_one_picture_and_keeps_everything_else(questions):
    question, donors = questions[0], Donors(questions)
    for kind in ("swap", "blur", "drop"):
        other = changed_sample(question, kind, 2, donors)
        differing = [k for k, (a, b) in enumerate(zip(question.prompt, other.prompt, strict=True)) if a != b]
        assert differing == [1]
        assert (other.id, other.seed, other.references, other.meta) == (
            question.id, question.seed, question.references, question.meta,
        )  # fmt: skip
    grey = changed_sample(question, "drop", 1, donors).pictures[-1].open()
    assert grey.size == (SIDE, SIDE)
    assert grey.getcolors() == [(SIDE * SIDE, (GREY,) * 3)]
    assert changed_sample(question, "same", 1, donors) == question
    with pytest.raises(ValueError, match="there is none at distance 4"):
        changed_sample(question, "drop", 4, donors)


def test_blur_is_relative_to_the_size_and_keeps_the_mean(tmp_path):
    def blurred(side: int, share: float) -> np.ndarray:
        half = Image.new("L", (side, side), 0)
        half.paste(255, (side // 2, 0, side, side))
        half.convert("RGB").save(tmp_path / "half.png")
        return np.asarray(BlurredPicture(tmp_path / "half.png", share=share).open(), float)[..., 0]

    weak, strong, large = blurred(64, 0.03), blurred(64, 0.1), blurred(256, 0.1)
    assert strong.mean() == pytest.approx(127.5, abs=2)
    assert strong[0].std() < weak[0].std() < 127.5
    assert np.abs(large[::4, ::4][8:-8, 8:-8] - strong[8:-8, 8:-8]).mean() < 8


def test_which_picture_a_question_is_about():
    def about(*tags, **fields):
        return distance_asked(replace(Sample("a", (), ("red",), {"tags": tags}), **fields))

    assert (about("colour"), about("earlier 1"), about("steps back 3", "name")) == (1, 2, 4)
    assert about("earlier 1", request="image") is None
    assert about("colour", references=()) is None


def test_drawn_pictures_are_compared_pixel_by_pixel_from_the_same_noise(questions, tmp_path):
    samples = [replace(q, request="image", references=()) for q in questions]
    task, model = ShadeDrawing(tuple(samples)), ShadeReader(lambda question, n: 1)
    arms, effects, uses = effects_and_uses(task, model, samples, tmp_path / "out", kinds=("drop",), distances=(1, 2))
    shades = np.array([shade_of(s.pictures[-1].open()) for s in samples])
    expected = float(np.abs(shades - GREY).mean() / 255)
    effect = effects["drop", 1, "all"]
    assert set(effect.differs) == {"pixels"}
    assert effect.differs["pixels"].value == pytest.approx(expected)
    assert effects["drop", 2, "all"].differs["pixels"].value == 0.0
    assert effects["same", None, "all"].differs["pixels"].high == 0.0
    assert effect.scores["lightness"].after.value == pytest.approx(GREY / 255)
    assert not uses
    assert sorted(model.seeds) == sorted([s.seed for s in samples] * 4)
    assert all(isinstance(answer, Picture) and answer.path.is_file() for arm in arms for answer in arm.after)


def test_judges_say_how_much_of_a_drawing_stays(questions, tmp_path, monkeypatch):
    monkeypatch.setattr("mmi_eval.judges.load_judges", lambda folder: ToyJudges())

    class Painter(ShadeReader):
        def generate_image(self, prompts, drawing, seeds):
            return [drawn(0 if self.read(prompt) == GREY else 1) for prompt in prompts]

    samples = [replace(q, request="image", references=()) for q in questions[:4]]
    task = ShadeDrawing(tuple(samples), judges=tmp_path)
    _, effects, _ = effects_and_uses(
        task, Painter(previous), samples, tmp_path / "out", kinds=("drop",), distances=(1, 2)
    )
    assert effects["drop", 1, "all"].differs["agreement"].value == 1.0
    # Pictures 0 and 1 differ in place, in the cell with something in the one and in that of the other.
    assert effects["drop", 2, "all"].differs["agreement"].value == pytest.approx(0.7)


def test_agreement_counts_the_place_and_nine_cells():
    def content(place, *things):
        return PictureContent(
            place, tuple(CellContent(cell, "square", colour, "plain", "large") for cell, colour in things)
        )

    before = content("lake", (0, "red"), (4, "blue"))
    assert judged_alike(before, before) == 1.0
    assert judged_alike(before, content("cave", (0, "red"), (4, "blue"))) == pytest.approx(0.9)
    assert judged_alike(before, content("lake", (0, "green"))) == pytest.approx(0.8)


def test_rows_of_pictures_of_other_lengths_differ_by_what_is_missing(tmp_path):
    Image.new("RGB", (4, 4), (0, 0, 0)).save(tmp_path / "black.png")
    Image.new("RGB", (4, 4), (51, 51, 51)).save(tmp_path / "dark.png")
    black, dark = Picture(tmp_path / "black.png"), Picture(tmp_path / "dark.png")
    assert pixel_difference([black], [dark]) == pytest.approx(0.2)
    assert pixel_difference([black, black], [dark]) == pytest.approx(0.6)


def test_few_questions_are_too_few_for_a_verdict(questions, tmp_path):
    _, _, uses = effects_and_uses(
        ShadeQuiz(tuple(questions[:9])), ShadeReader(asked_for), questions[:9], tmp_path, kinds=("drop",)
    )
    assert {use.verdict for use in uses.values()} == {"too few to tell"}


def test_samples_that_cannot_be_compared_are_refused(questions):
    with pytest.raises(FormatError, match="no sample of this task has a picture"):
        askable([replace(questions[0], prompt=("words alone",))])
    with pytest.raises(FormatError, match='ask for "image_loss"'):
        askable([replace(questions[0], request="image_loss")])
    twin = replace(questions[0], id="twin", meta={"pair": "0"})
    assert [sample.id for sample in askable([twin, *questions], 2)] == ["0", "1"]
    with pytest.raises(FormatError, match="distance 4 is asked for, but no prompt has more than 3"):
        ask_with_changes(
            ShadeQuiz(tuple(questions)), ShadeReader(asked_for), questions, Changes(distances=(4,)), Path()
        )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"distances": (0,)}, "expected numbers from 1"),
        ({"blur": 0.0}, "blur is 0.0"),
        ({"batch_size": 0}, "at least 1"),
    ],
    ids=["distance", "blur", "batch"],
)
def test_settings_that_make_no_sense_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        Changes(**settings)


def test_everything_is_written_as_lines_json_markdown_and_a_page(questions, tmp_path):
    task, changes = ShadeQuiz(tuple(questions)), Changes()
    arms = ask_with_changes(task, ShadeReader(asked_for), questions, changes, tmp_path)
    measured = measure(task, arms)
    effects, uses = [e for one in measured for e in effects_of(one)], uses_of(measured)
    findings = findings_of(replace(ASKED, limited=True), changes, arms, effects, uses)

    write_answers(arms, tmp_path / "answers.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == N * 10
    assert {"id": "0", "kind": "drop", "distance": 1, "before": "2 ", "after": f"{GREY} "} in lines

    page = Page(as_page(findings, "mmi"))
    is_whole(page)
    needs_nothing(page)
    is_usable(page)
    assert "LIMITED" in page.text
    assert len(page.all("svg")) == 2
    assert len(page.all("img")) > 10
    text = as_markdown(findings)
    assert "| grey | 1 earlier | 66 | 33.3" in text
    assert "right answers come from the picture asked about" in text

    paths = write_findings(tmp_path / "new" / "out", "counterfactual", findings, "mmi")
    record = json.loads(paths[0].read_text())
    assert (record["limited"], record["task"], record["settings"]["blur"]) == (True, "shades", 0.1)
    (row,) = (e for e in record["effects"] if (e["kind"], e["distance"], e["group"]) == ("swap", 3, "all"))
    assert row["scores"]["accuracy"]["after"]["value"] == pytest.approx(2 / 3)
