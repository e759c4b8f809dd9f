"""Judges see what pictures show, are read back as they were saved, and say what is wrong with a folder or a picture."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmi.data.microworld.draw import Layout
from mmi.data.microworld.judging import CELL_CLASSES, MAP_CLASSES, PLACE_CLASSES, judged_pictures
from mmi.data.microworld.recipe import PRESETS
from mmi_eval.formats.errors import FormatError
from mmi_eval.judges import (
    CellContent,
    JudgeClasses,
    JudgeSettings,
    LabelledPictures,
    PictureAttributes,
    PictureContent,
    load_judges,
    teach_judges,
)
from mmi_eval.judges.attributes import AttributeNet
from mmi_eval.judges.matcher import Matcher, words_of
from mmi_eval.judges.pictures import disturb
from mmi_eval.judges.segmenter import Segmenter

FEW = JudgeSettings(seed=1, attribute_steps=160, matcher_steps=60, matcher_batch=32, segmenter_steps=60)


def classes_of(image_size: int = 32) -> JudgeClasses:
    grid = Layout.of(image_size)
    of_pictures = {"layout": MAP_CLASSES, "image_size": image_size, "cell": grid.cell, "offset": grid.offset}
    return JudgeClasses(background=PLACE_CLASSES, **CELL_CLASSES, **of_pictures)


def known_pictures(n: int, seed: int = 0, image_size: int = 32) -> LabelledPictures:
    drawn, _ = judged_pictures(n, seed, image_size, PRESETS["tiny" if image_size < 64 else "lab"])
    return LabelledPictures(drawn.pictures, drawn.background, drawn.cells, drawn.layout, drawn.captions, drawn.foils)


def truth_about(pictures: LabelledPictures) -> PictureAttributes:
    return PictureAttributes(classes_of(pictures.pictures.shape[-1]), pictures.background, pictures.cells)


@pytest.fixture(scope="module")
def known():
    return known_pictures(1300)


@pytest.fixture(scope="module")
def judges(known):
    return teach_judges(classes_of(), known.part(0, 1000), known.part(1000, 1300), FEW, notes={"preset": "tiny"})


@pytest.fixture(scope="module")
def folder(judges, tmp_path_factory):
    out = tmp_path_factory.mktemp("judges") / "judges"
    judges.save(out)
    return out


def test_a_short_training_already_sees_most(judges):
    accuracy = judges.accuracy
    for kind, least in {"background": 0.9, "shape": 0.8, "colour": 0.95, "size": 0.95, "empty": 0.95}.items():
        assert accuracy[kind] > least, accuracy
        assert accuracy[f"disturbed/{kind}"] > least - 0.15, accuracy
    assert accuracy["text to picture"] > 0.3, "one of 100"
    assert accuracy["layout"] > 0.15, "0.04 after one step"
    assert {"texture", "print", "thing", "picture to text", "caption over foil"} < accuracy.keys()


@pytest.mark.slow
def test_the_default_training_reaches_what_is_demanded():
    pictures = known_pictures(9000)
    accuracy = teach_judges(classes_of(), pictures.part(0, 8000), pictures.part(8000, 9000)).accuracy
    for kind in ("background", "shape", "colour", "texture", "size", "print", "thing", "text to picture"):
        assert accuracy[kind] >= 0.95, accuracy
    assert accuracy["layout"] >= 0.85
    assert accuracy["caption over foil"] >= 0.8


def test_loaded_judges_judge_as_the_saved_ones(judges, folder, known):
    loaded = load_judges(folder)
    some = known.part(1000, 1050)
    assert (loaded.classes, loaded.accuracy) == (judges.classes, judges.accuracy)
    assert loaded.settings["attribute_steps"] == FEW.attribute_steps
    assert loaded.settings["preset"] == "tiny"
    assert json.loads((folder / "judges.json").read_text())["sha256"] == {"judges.safetensors": loaded.digest}
    texts = [texts[0] for texts in some.captions]
    assert np.array_equal(judges.attributes(some.pictures).cells, loaded.attributes(some.pictures).cells)
    assert np.array_equal(judges.features(some.pictures), loaded.features(some.pictures))
    assert np.array_equal(judges.segment(some.pictures), loaded.segment(some.pictures))
    assert np.array_equal(judges.similarity(some.pictures, texts), loaded.similarity(some.pictures, texts))


def test_judgements_have_the_promised_form(judges, known):
    pictures = known.part(0, 70).pictures
    features, segments = judges.features(pictures), judges.segment(torch.as_tensor(pictures))
    assert features.dtype == np.float32
    assert features.shape == (70, 64)
    assert segments.dtype == np.uint8
    assert segments.shape == (70, 32, 32)
    assert 1 <= segments.min() <= segments.max() < len(MAP_CLASSES)
    similarity = judges.similarity(pictures, ["A word nobody knows: qwertz."] * 69 + [""])
    assert similarity.shape == (70,)
    assert (np.abs(similarity) <= 1.0001).all()
    products = judges.picture_vectors(pictures) @ judges.text_vectors(["in the cave"]).T
    assert np.allclose(products[:, 0], judges.similarity(pictures, ["in the cave"] * 70), atol=1e-5)
    assert len(judges.attributes(pictures[:0])) == 0
    # Batches do not matter.
    assert np.allclose(judges.features(pictures[69:]), features[69:], atol=1e-5)


def test_agreement_counts_what_was_asked_for():
    heart = CellContent(4, "heart", "red", "plain", "large", "7")
    star = CellContent(0, "cross", "blue", "dotted", "small")
    seen = PictureContent("cave", (star, heart))

    def agreement(asked):
        names = (PLACE_CLASSES, *CELL_CLASSES.values())
        cells = np.zeros((1, 9, 5), np.int64)
        for thing in seen.things:
            values = (thing.shape, thing.colour, thing.texture, thing.size, thing.print)
            cells[0, thing.cell] = [of_kind.index(v) for of_kind, v in zip(names[1:], values, strict=True)]
        found = PictureAttributes(classes_of(), np.array([PLACE_CLASSES.index("cave")]), cells)
        assert found.content(0) == seen
        return found.agreement([asked])

    same = agreement(seen)
    assert {float(getattr(same, name)[0]) for name in same.__dataclass_fields__} == {1.0}
    other = agreement(PictureContent("town", (replace(heart, shape="circle", print="8"), replace(star, cell=8))))
    assert (other.background, other.shape, other.colour, other.texture) == (0, 0, 0.5, 0.5)
    assert (other.size, other.print, other.thing, other.colour_and_shape) == (0.5, 0, 0, 0)
    assert other.no_more == pytest.approx(6 / 7), "cell 0 should be empty"
    assert np.isnan(agreement(PictureContent("cave", (star,))).print), "no print was asked for"
    with pytest.raises(ValueError, match="0 requests were given for 1 pictures"):
        PictureAttributes(classes_of(), np.zeros(1, int), np.zeros((1, 9, 5), int)).agreement([])


def test_the_truth_agrees_with_itself_and_hardly_with_others(known):
    truth = truth_about(known.part(0, 200))
    asked = [truth.content(i) for i in range(200)]
    own, shuffled = truth.agreement(asked), truth.agreement(asked[1:] + asked[:1])
    assert np.nanmin(own.thing) == 1
    assert own.no_more.min() == 1
    assert np.nanmean(shuffled.colour) < 0.2
    assert shuffled.background.mean() < 0.3


def test_what_is_judged_better_is_what_is_there(judges, known):
    some = known.part(1000, 1300)
    found = judges.attributes(some.pictures)
    asked = [truth_about(some).content(i) for i in range(300)]
    assert np.nanmean(found.agreement(asked).colour) > 0.9
    blank = judges.attributes(np.full_like(some.pictures, 214))
    assert np.nanmean(blank.agreement(asked).colour) < 0.1


def test_the_seed_decides_everything_and_the_global_state_is_left_alone(known):
    few = JudgeSettings(attribute_steps=2, matcher_steps=2, segmenter_steps=2, matcher_batch=8)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    parts = known.part(0, 40), known.part(40, 60)
    first, again, other = (teach_judges(classes_of(), *parts, replace(few, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    pictures = parts[1].pictures
    assert np.array_equal(first.features(pictures), again.features(pictures))
    assert first.accuracy == again.accuracy
    assert not np.array_equal(first.features(pictures), other.features(pictures))


@pytest.mark.parametrize("image_size", [32, 48, 64, 112, 128])
def test_networks_fit_every_size(image_size):
    classes = classes_of(image_size)
    images = torch.as_tensor(known_pictures(2, 3, image_size).pictures)
    features, background, cells = AttributeNet(classes).judge(images)
    assert (features.shape, background.shape, cells.shape) == ((2, 9, 64), (2,), (2, 9, 5))
    assert Segmenter(classes).segment(images).shape == (2, image_size, image_size)


def test_what_has_no_shape_is_not_there():
    net = AttributeNet(classes_of())
    torch.nn.init.zeros_(net.heads.weight)
    torch.nn.init.zeros_(net.heads.bias)
    start = len(PLACE_CLASSES) + len(CELL_CLASSES["shape"])
    net.heads.bias.data[start + 3] = 5.0
    assert net.judge(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))[2].abs().sum() == 0


def test_disturbed_pictures_stay_close_and_some_stay_the_same(known):
    images = torch.as_tensor(known.pictures[:300])
    disturbed = disturb(images, torch.Generator().manual_seed(0))
    assert disturbed.dtype == torch.uint8
    assert torch.equal(disturbed, disturb(images, torch.Generator().manual_seed(0)))
    error = (disturbed.float() - images.float()).abs().flatten(1).mean(1)
    assert 0.2 < (error == 0).float().mean() < 0.5
    assert error.max() < 50


def test_a_text_tower_ignores_padding_and_case():
    matcher = Matcher(words_of("a red heart in the cave")).eval()
    long = "in the cave a red heart in the cave a red heart"
    alone, beside = (
        matcher.texts(matcher.text.ids(["A red heart"])),
        matcher.texts(matcher.text.ids(["a red heart", long])),
    )
    torch.testing.assert_close(alone[0], beside[0], rtol=0, atol=1e-5)


def test_wrong_pictures_and_texts_are_named(judges, known):
    pictures = known.pictures[:2]
    for wrong in (pictures.astype(np.float32), pictures[:, :, :16], pictures[0]):
        with pytest.raises(ValueError, match=r"expect uint8\[N, 3, 32, 32\]"):
            judges.attributes(wrong)
    with pytest.raises(ValueError, match="1 texts were given for 2 pictures"):
        judges.similarity(pictures, ["one"])


def test_labels_that_do_not_fit_are_named(known):
    few = known.part(0, 4)
    wrong = {
        r"cells is int64\[4, 8, 5\]": replace(few, cells=few.cells[:, :8]),
        r"pictures is float32\[4, 3, 32, 32\]": replace(few, pictures=few.pictures.astype(np.float32)),
        "background holds classes outside": replace(few, background=few.background + 8),
        "layout holds classes outside": replace(few, layout=few.layout + 9),
        "captions has 3 entries": replace(few, captions=few.captions[:3]),
        r"expected uint8\[0": few.part(0, 0),
    }
    for message, pictures in wrong.items():
        with pytest.raises(ValueError, match=message):
            teach_judges(classes_of(), pictures, few)
    with pytest.raises(ValueError, match="make no 3x3 grid"):
        replace(classes_of(), cell=14)
    with pytest.raises(ValueError, match="empty name of class 0"):
        replace(classes_of(), shape=("heart", "cross"))


def _other_version(record):
    record["schema_version"] = 9


def _no_words(record):
    del record["words"]


def _no_places(record):
    record["classes"]["background"] = "cave"


def _strange_class(record):
    record["classes"]["smell"] = []


def _other_grid(record):
    record["classes"]["cell"] = 2


def _fewer_shapes(record):
    record["classes"]["shape"] = record["classes"]["shape"][:-1]


def _accuracy_in_words(record):
    record["accuracy"]["shape"] = "good"


def _other_weights(record):
    record["sha256"]["judges.safetensors"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_version, "schema_version 9; expected 1"),
        (_no_words, "words is null; expected a list"),
        (_no_places, '"background" is "cave"; expected a list'),
        (_strange_class, 'unknown key "smell"'),
        (_other_grid, "make no 3x3 grid"),
        (_fewer_shapes, "does not fit"),
        (_accuracy_in_words, '"shape" is "good"; expected'),
        (_other_weights, "is not the file that"),
    ],
)
def test_a_malformed_record_is_one_sentence(folder, tmp_path, change, message):
    shutil.copytree(folder, tmp_path / "judges")
    path = tmp_path / "judges" / "judges.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(FormatError, match=message) as error:
        load_judges(path.parent)
    assert "\n" not in str(error.value)


def test_missing_and_damaged_files_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"judges\.json does not exist"):
        load_judges(tmp_path)
    shutil.copytree(folder, tmp_path / "judges")
    weights = tmp_path / "judges" / "judges.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(FormatError, match="SHA-256"):
        load_judges(weights.parent)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="the weights of judges"):
        load_judges(weights.parent)
