"""The world as VQA v2, OK-VQA, TextVQA and VizWiz: read back to what was asked, true, hard to guess."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmi.data.microworld.annotators import ABSTENTIONS, SYNONYMS, answer_type, opinions
from mmi.data.microworld.dice import Dice
from mmi.data.microworld.draw import PALETTE, draw
from mmi.data.microworld.layouts import gqa, okvqa, textvqa, visdial, vizwiz, vqa
from mmi.data.microworld.layouts.part import WorldPart
from mmi.data.microworld.majority import majority_rates
from mmi.data.microworld.mishaps import BLUR_BLOCKS, blurred, cropped, darkened
from mmi.data.microworld.recipe import PRESETS
from mmi.data.microworld.scene import Scene, Thing, arrange, draw_scene
from mmi.data.microworld.vocabulary import COLOUR_BY_NAME, COLOURS, FACTS, POSITIONS, SHAPES
from mmi_eval.formats.textvqa import read_textvqa
from mmi_eval.formats.vizwiz import read_vizwiz, vizwiz_name
from mmi_eval.formats.vqa import VQAItem, read_vqa

SIZES = {"train": 300, "val": 30, "test": 30}
FAMILIES = {"vqa": vqa, "okvqa": okvqa, "textvqa": textvqa, "vizwiz": vizwiz, "gqa": gqa, "visdial": visdial}
CELLS = [position.phrase for position in POSITIONS]


def part_of(folder: Path, split: str) -> WorldPart:
    return WorldPart(folder, split, SIZES, 5)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of questions, train and val."""
    folder = tmp_path_factory.mktemp("questions")
    for split in ("train", "val"):
        for family in FAMILIES.values():
            family.write(part_of(folder, split))
    return folder


def items_of(folder: Path, kind: str, split: str = "train") -> list[VQAItem]:
    return read_vqa(folder / kind / f"questions_{split}.json", folder / kind / f"annotations_{split}.json")


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def truth_of(item: VQAItem) -> str:
    assert item.annotation is not None
    return item.annotation.multiple_choice_answer


def test_the_right_answer_has_the_most_votes_and_is_fully_right():
    truths = [*SYNONYMS, "3", "70", "Ada", "ok", "plums"]
    for i in range(1500):
        dice = Dice("vote", i)
        truth = dice.pick(truths)
        tags = dice.pick([(), ("print", "print very small"), ("lore",), ("dark",)])
        said = opinions(truth, dice, tags=tags)
        votes = Counter(opinion.answer for opinion in said)
        right = truth.lower()
        assert all(votes[right] > n for answer, n in votes.items() if answer != right)
        # The official rule: full marks for three matches among the nine others, averaged over who is left out.
        scores = [min(1, (votes[right] - (opinion.answer == right)) / 3) for opinion in said]
        assert sum(scores) / 10 == 1
        assert all(opinion.answer == opinion.answer.lower() for opinion in said)
        assert all(opinion.confidence in ("yes", "maybe", "no") for opinion in said)
        assert opinions(truth, Dice("again", i), tags=tags) == opinions(truth, Dice("again", i), tags=tags)


def test_people_agree_on_easy_questions_and_differ_on_hard_ones():
    def agreeing(tags: tuple[str, ...]) -> float:
        return np.mean([o.answer == "8" for i in range(400) for o in opinions("8", Dice("agree", i), tags=tags)]).item()

    easy, small, tiny = (agreeing(tags) for tags in ((), ("print", "print small"), ("print", "print very small")))
    assert tiny < small < easy < 1
    said = [opinions("red", Dice("colour", i), tags=("colour",)) for i in range(600)]
    unanimous = np.mean([len({opinion.answer for opinion in ten}) == 1 for ten in said])
    assert 0.3 < unanimous < 0.85
    others = Counter(opinion.answer for ten in said for opinion in ten if opinion.answer != "red")
    assert {"scarlet", "orange", *ABSTENTIONS} <= set(others)
    rare = sum(n for answer, n in others.items() if answer not in {*SYNONYMS["red"], "orange", "brown", *ABSTENTIONS})
    assert 0 < rare / others.total() < 0.15  # typing mistakes


@pytest.mark.parametrize(
    ("answer", "tags", "kind"),
    [("yes", (), "yes/no"), ("no", ("word", "print"), "other"), ("12", (), "number"), ("top left", (), "other")],
)
def test_answers_are_of_the_official_types(answer, tags, kind):
    assert answer_type(answer, tags) == kind


@pytest.mark.parametrize("split", ["train", "val"])
def test_vqa_questions_are_read_back_with_ten_answers(folder, split):
    part = part_of(folder, split)
    read = iter(items_of(folder, "vqa", split))
    for i in range(part.size):
        for question in vqa.questions_of(part, i):
            item = next(read)
            assert (item.question, item.image_id, item.image) == (question.text, part.image_id(i), part.image_name(i))
            assert item.annotation is not None
            assert item.annotation.question_type == question.type
            assert truth_of(item) == question.answer.lower()
            votes = Counter(answer.answer for answer in item.annotation.answers)
            assert votes.most_common(1)[0][0] == truth_of(item)
            assert [answer.answer_id for answer in item.annotation.answers] == list(range(1, 11))
    assert next(read, None) is None


def test_every_item_has_tags(folder):
    for kind in ("vqa", "okvqa", "textvqa"):
        tagged = {record["id"]: record["tags"] for record in records(folder / "tags" / f"{kind}_train.jsonl")}
        assert [item.question_id for item in items_of(folder, kind)] == list(tagged)
        assert all(tagged.values())


def test_lore_answers_what_no_picture_shows(folder):
    part = part_of(folder, "train")
    subjects = set()
    for i, item in enumerate(items_of(folder, "okvqa")):
        scene = part.scene("coco", i)
        phrases = [phrase for phrase in CELLS if f"the one {phrase}" in item.question]
        where = CELLS.index(max(phrases, key=len))  # "at the top" is part of "at the top left"
        [thing] = [thing for thing in scene.things if thing.cell == where]
        question = okvqa.lore_question(scene, part.dice("okvqa", i))
        assert question.subject == (thing.name or thing.shape)
        assert FACTS[question.subject, question.relation] == question.answer
        assert question.answer != scene.place
        assert truth_of(item) == okvqa.stem(question.answer.lower())
        subjects.add(question.subject)
    assert subjects == {subject for subject, _ in FACTS}


def test_five_people_are_counted_twice_and_their_words_are_stemmed(folder):
    differing = 0
    for item in items_of(folder, "okvqa"):
        assert item.annotation is not None
        answers = item.annotation.answers
        assert [answer.answer_id for answer in answers] == list(range(1, 11))
        for one, again in zip(answers[::2], answers[1::2], strict=True):
            assert (one.answer, one.confidence, one.raw_answer) == (again.answer, again.confidence, again.raw_answer)
            assert okvqa.stem(one.raw_answer or "") == one.answer
        votes = Counter(answer.answer for answer in answers)
        assert votes[truth_of(item)] >= 4
        assert votes.most_common(1)[0][0] == truth_of(item)
        differing += len(votes) > 1
    assert differing > 0.2 * SIZES["train"]


def test_print_questions_read_what_is_printed_in_both_layouts(folder):
    part = part_of(folder, "train")
    official = read_textvqa(folder / "textvqa" / "TextVQA_0.5.1_train.json")
    items = items_of(folder, "textvqa")
    assert len(official) == len(items) > 1.9 * part.size
    scenes = {r["image"]: Scene.from_record(r) for r in records(folder / "scenes" / "textvqa_train.jsonl")}
    for one, item in zip(official, items, strict=True):
        again = one.as_vqa("png")
        assert (one.question_id, one.question, again.image) == (item.question_id, item.question, item.image)
        assert item.annotation is not None
        assert [a.answer for a in item.annotation.answers] == list(one.answers)
        printed = [thing.print.text for thing in scenes[item.image or ""].things if thing.print is not None]
        assert truth_of(item) in printed
        with Image.open(folder / "textvqa" / "images" / f"{one.image_id}.png") as picture:
            assert (picture.height, picture.width) == one.size


def test_photographs_are_read_back_with_their_pictures(folder):
    part = part_of(folder, "train")
    read = read_vizwiz(folder / "vizwiz" / "train.json")
    assert [item.image for item in read] == [vizwiz_name("train", i, "png") for i in range(part.size)]
    tags = {record["id"]: tuple(record["tags"]) for record in records(folder / "tags" / "vizwiz_train.jsonl")}
    for i, item in enumerate(read):
        photograph = vizwiz.photograph_of(part, i)
        assert item.question == photograph.question
        assert tags[item.image] == photograph.tags
        votes = Counter(answer.answer for answer in item.answers)
        assert (len(item.answers), votes.most_common(1)[0][0]) == (10, photograph.answer)
        assert item.answerable == (photograph.answer != "unanswerable")
        assert (item.answer_type == "unanswerable") == (not item.answerable)
        with Image.open(item.path(folder / "vizwiz" / "images")) as picture:
            shown = np.asarray(picture.convert("RGB"))
        np.testing.assert_array_equal(shown, photograph.palette[photograph.indices])


def test_unanswerable_photographs_do_not_show_what_is_asked_and_the_others_do(folder):
    part = part_of(folder, "train")
    seen: Counter[tuple[str | None, bool]] = Counter()
    for i in range(part.size):
        photograph = vizwiz.photograph_of(part, i)
        answerable = photograph.answer != "unanswerable"
        seen[photograph.mishap, answerable] += 1
        pixels = {tuple(colour) for colour in photograph.palette[photograph.indices].reshape(-1, 3).tolist()}
        named = [shape for shape in SHAPES if shape in photograph.question]
        asked = [thing for thing in photograph.scene.things if thing.shape in named]
        if photograph.mishap == "dark" and not answerable:
            assert len(pixels) == 1
        if asked and photograph.mishap in (None, "cropped"):
            alone = sum(thing.colour == asked[0].colour for thing in photograph.scene.things) == 1
            shown = COLOUR_BY_NAME[asked[0].colour].rgb in pixels
            assert shown if answerable else not (shown and alone)
    assert sum(n for (_, answerable), n in seen.items() if not answerable) / seen.total() == pytest.approx(
        0.3, abs=0.08
    )
    assert all(seen[mishap, answerable] for mishap in ("dark", "blurred", "cropped") for answerable in (True, False))
    assert seen[None, True] > 0.3 * seen.total()
    assert not seen[None, False]


def test_a_blurred_photograph_is_the_same_whatever_was_printed(folder):
    part = part_of(folder, "train")
    photographs = [vizwiz.photograph_of(part, i) for i in range(part.size)]
    for photograph in [one for one in photographs if one.mishap == "blurred"]:
        without = [Thing(t.shape, t.colour, t.cell, t.size, t.texture) for t in photograph.scene.things]
        indices, palette = blurred(draw(arrange(photograph.scene.place, without)).indices, PALETTE)
        np.testing.assert_array_equal(palette[indices], photograph.palette[photograph.indices])


@pytest.mark.parametrize("image_size", [32, 48, 64, 128])
def test_a_crop_keeps_two_rows_and_columns_of_cells_and_nothing_else(image_size):
    things = [Thing("square", COLOURS[cell % 8].name, cell, "large") for cell in range(9)]
    shown = draw(arrange("town", things), image_size).thing
    for down in (0, 1):
        for right in (0, 1):
            kept = {3 * row + column for row in (down, down + 1) for column in (right, right + 1)}
            assert set(cropped(shown, down=bool(down), right=bool(right)).ravel().tolist()) - {-1} == kept


def test_darkness_hides_everything_or_little():
    assert len(np.unique(darkened(PALETTE, fully=True), axis=0)) == 1
    assert len(np.unique(darkened(PALETTE, fully=False), axis=0)) == len(np.unique(PALETTE, axis=0))


@pytest.mark.parametrize("image_size", [32, 64])
def test_a_blurred_picture_has_the_means_of_its_blocks(image_size):
    indices = draw(draw_scene(Dice("blur"), "train"), image_size).indices
    numbers, palette = blurred(indices, PALETTE)
    block = image_size // BLUR_BLOCKS
    assert numbers.shape == indices.shape
    mean = PALETTE[indices][:block, :block].astype(np.int64).sum((0, 1)) // block**2
    np.testing.assert_array_equal(palette[numbers][:block, :block], np.broadcast_to(mean, (block, block, 3)))


def test_answers_are_hard_to_guess_from_the_question(folder):
    # At 300 pictures a few answers more or less matter; yes or no cannot go below a half.
    limits = {"count": 0.5, "texture": 0.6, "name": 0.4, "yes/no": 0.6, "word": 0.5}
    rates = majority_rates(folder, "train")
    for kind in ("vqa", "okvqa", "textvqa"):
        assert all(rate <= limits.get(asked, 0.36) for asked, rate in rates[kind].items()), rates[kind]
    assert all(rate <= 0.5 for rate in rates["vizwiz"].values()), rates["vizwiz"]
    # Some kinds are rare among 300 pictures: pairs of colours or textures, words, the same colour twice.
    rare = ("chooseColour", "chooseTexture", "verifyTexture", "queryWord")
    for asked, rate in rates["gqa"].items():
        if asked not in rare and not asked.startswith("same"):
            assert rate <= (0.3 if asked.startswith("query") else 0.65), asked


@pytest.mark.parametrize(("preset", "image_size"), [("tiny", 32), ("lab", 64)])
@pytest.mark.parametrize("kind", FAMILIES)
def test_the_same_questions_are_written_again(tmp_path, kind, preset, image_size):
    def digests(name: str) -> dict[str, str]:
        part = WorldPart(tmp_path / name, "val", {"train": 0, "val": 12, "test": 0}, 5, image_size, PRESETS[preset])
        assert min(FAMILIES[kind].write(part).values()) > 0
        files = sorted(path for path in part.folder.rglob("*") if path.is_file())
        return {
            path.relative_to(part.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
        }

    first = digests("one")
    assert first == digests("two")
    assert f"tags/{kind}_val.jsonl" in first
