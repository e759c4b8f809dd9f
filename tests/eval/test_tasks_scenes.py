"""ADE20K: what a model is shown, what of the drawn picture is scored, and the scores of the original scorer."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from shared_data import shared_path
from toy_benchmarks import SIDE
from toy_stories import CLASSES, StoryJudges, StoryModel, labels_of, write_scenes

from mmi_eval.formats.ade20k import labels_of_colours, read_labels, write_labels
from mmi_eval.formats.errors import FormatError
from mmi_eval.metrics.segmentation import count_classes
from mmi_eval.networks import Networks
from mmi_eval.sample import Picture, controlled, fingerprint
from mmi_eval.tasks.ade20k import ADE20K, LabelColours, score_label_folder, viewed
from mmi_eval.tasks.label_scores import score_areas


@pytest.fixture(autouse=True)
def judges(monkeypatch):
    monkeypatch.setattr("mmi_eval.judges.load_judges", lambda folder: StoryJudges())


@pytest.fixture
def folder(tmp_path):
    return write_scenes(tmp_path / "ade")


def task_of(folder, **changed) -> ADE20K:
    return replace(ADE20K(folder, Networks(judges=folder), classes=folder / "objectInfo150.csv"), **changed)


def photograph(sample) -> Image.Image:
    return sample.target.open()


def middle(sample) -> Image.Image:
    return Image.fromarray(viewed(np.asarray(photograph(sample)), "crop"))


def scored_by(task, draw, folder):
    samples = task.samples()
    pictures = task.answer(StoryModel(samples, draw=draw), samples)
    for sample, picture in zip(samples, pictures, strict=True):
        picture.save(folder / f"{sample.id}-drawn.png")
    return task.score(samples, [Picture(folder / f"{sample.id}-drawn.png") for sample in samples])


def test_a_model_is_shown_the_colours_of_the_label_map_and_the_caption(folder):
    first, second = task_of(folder).samples()[:2]
    assert first.id == "ADE_val_00000001"
    assert [sample.prompt[1] for sample in (first, second)] == ["a thing in place 0.", "a thing in place 1."]
    other_order = task_of(folder, prompt="{caption}.{labels}").samples()[1]
    assert other_order.prompt == second.prompt[::-1]
    shown = np.asarray(first.opened()[0])
    assert np.array_equal(labels_of_colours(shown), read_labels(folder / first.meta["labels"]))
    blank = controlled([first, second], "blank")[0].opened()[0]
    assert isinstance(blank, Image.Image)
    assert blank.getcolors() == [(SIDE * SIDE, (128, 128, 128))]


def test_the_photographs_are_the_ceiling_and_an_oracle_reaches_it(folder, tmp_path):
    task = task_of(folder)
    scored = scored_by(task, photograph, tmp_path)
    ceiling = task.baselines(task.samples())["ground_truth"]
    assert next(iter(scored.values)) == "micro-mIoU"
    assert scored.values == ceiling.values
    assert {name for name in scored.values if name.startswith("micro-class/")} == {f"micro-class/{c}" for c in CLASSES}
    assert {score.value for score in scored.values.values()} == {1.0}
    assert scored.counts == {"pictures lost": 0}


def test_pictures_that_could_not_be_had_agree_with_nothing(folder):
    task = task_of(folder)
    scored = task.score(task.samples(), [None] * 6)
    assert {score.value for score in scored.values.values()} == {0.0}
    assert scored.counts == {"pictures lost": 6}


def test_one_class_everywhere_has_the_hand_computed_value(folder):
    # Six pictures of three places, two of each, all but a hundredth of the pixels: a tie, so the first place.
    task = task_of(folder)
    baseline = task.baselines(task.samples())["constant_class"]
    place = SIDE * SIDE - 100
    assert baseline.notes == {"class": CLASSES[0]}
    assert baseline.values["micro-pixel accuracy"].value == pytest.approx(2 * place / (6 * SIDE * SIDE))
    assert baseline.values["micro-mIoU"].value == pytest.approx(2 * place / (6 * SIDE * SIDE) / len(CLASSES))


def test_a_crop_is_scored_where_it_was_shown_and_the_official_stretch_stands_beside_it(tmp_path):
    folder = write_scenes(tmp_path / "wide", width=2 * SIDE)
    task = task_of(folder)
    scored = scored_by(task, middle, tmp_path)
    assert scored.values["micro-mIoU"].value == 1
    stretched = scored.values["micro-mIoU, official stretch"].value
    assert 0 < stretched < 1
    # The drawn square, made twice as wide, against the whole map: its square covers twice the true pixels.
    whole = read_labels(folder / task.samples()[0].meta["labels"])
    wide = labels_of(middle(task.samples()[0])).repeat(2, axis=1)
    areas = count_classes(wide, whole, len(CLASSES))
    first = replace(task, n=1)
    one = scored_by(first, middle, tmp_path)
    expected = np.divide(areas.intersection, areas.union, out=np.zeros(len(CLASSES)), where=areas.union > 0).mean()
    assert one.values["micro-mIoU, official stretch"].value == pytest.approx(expected)


def test_a_squashed_map_is_shown_and_scored_whole(tmp_path):
    folder = write_scenes(tmp_path / "wide", width=2 * SIDE)
    task = task_of(folder, view="squash")
    sample = task.samples()[0]
    shown = labels_of_colours(np.asarray(sample.opened()[0]))
    assert shown.shape == (2 * SIDE, 2 * SIDE)
    assert set(shown.ravel()) == set(read_labels(folder / sample.meta["labels"]).ravel())
    scored = scored_by(task, lambda s: photograph(s).resize((SIDE, SIDE), Image.Resampling.NEAREST), tmp_path)
    assert scored.values["micro-mIoU"].value > 0.5
    assert "micro-mIoU, official stretch" not in scored.values


def test_the_view_is_part_of_what_is_shown_and_where_files_lie_is_not(folder, tmp_path):
    task = task_of(folder)
    copy = write_scenes(tmp_path / "elsewhere")
    assert fingerprint(task.samples()) == fingerprint(task_of(copy).samples())
    assert LabelColours(folder / task.samples()[0].meta["labels"]).open().size == (SIDE, SIDE)


@pytest.mark.parametrize("kind", ["hflip", "shift16", "other_image", "identical"])
def test_folders_of_labels_get_the_scores_of_sceneparsing(kind):
    folder = shared_path("evaldata/ade20k")
    expected = json.loads(shared_path("evaldata/expected.json").read_text())["ade20k"][f"ade20k_{kind}"]
    scored = score_label_folder(folder / f"predictions_{kind}", folder / "annotations", folder / "objectInfo150.csv")
    found = {name: score.value for name, score in scored.values.items()}
    assert found["mIoU"] == pytest.approx(expected["mean_iou_over_150"], abs=1e-9)
    assert found["mIoU, present classes"] == pytest.approx(expected["mean_iou_over_present_classes"], abs=1e-9)
    assert found["pixel accuracy"] == pytest.approx(expected["pixel_accuracy"], abs=1e-9)
    numbered = score_label_folder(folder / f"predictions_{kind}", folder / "annotations")
    classes = {n.split("/")[1]: s.value for n, s in numbered.values.items() if n.startswith("class/")}
    assert len(classes) == expected["present_classes"]
    assert {c: classes[c] for c in expected["per_class_iou"]} == pytest.approx(expected["per_class_iou"], abs=1e-9)
    assert found["class/wall"] == classes["1"]


def test_scores_of_folders_need_no_network():
    code = (
        "import sys; sys.modules['torch'] = None; from pathlib import Path; "
        "from mmi_eval.tasks.ade20k import score_label_folder; f = Path(sys.argv[1]); "
        "print(score_label_folder(f / 'predictions_identical', f / 'annotations').values['pixel accuracy'].value)"
    )
    folder = shared_path("evaldata/ade20k")
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout == "1.0\n"


def test_wrong_folders_are_one_sentence(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with pytest.raises(FileNotFoundError, match="expected one with predicted labels as PNG"):
        score_label_folder(ours, theirs)
    ours.mkdir()
    theirs.mkdir()
    with pytest.raises(FormatError, match="holds no PNG"):
        score_label_folder(ours, theirs)
    write_labels(theirs / "1.png", np.ones((2, 3), np.uint8))
    with pytest.raises(FormatError, match=r"ours has no PNG named like one of .*theirs, such as 1\.png"):
        score_label_folder(ours, theirs)
    write_labels(ours / "1.png", np.ones((3, 2), np.uint8))
    with pytest.raises(FormatError, match=r"is 2x3 but .*theirs/1\.png is 3x2"):
        score_label_folder(ours, theirs)
    write_labels(ours / "2.png", np.ones((3, 2), np.uint8))
    with pytest.raises(FormatError, match=r"has 2\.png, which .* does not have"):
        score_label_folder(ours, theirs)
    (ours / "2.png").unlink()
    write_labels(ours / "1.png", np.ones((2, 3), np.uint8))
    write_labels(theirs / "1.png", np.zeros((2, 3), np.uint8))
    with pytest.raises(FormatError, match="hold no labelled pixel"):
        score_label_folder(ours, theirs)


def test_predictions_of_any_whole_numbers_count_and_missing_ones_are_left_out(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    for name in ("1.png", "2.png"):
        write_labels(theirs / name, np.array([[1, 1, 2, 0]], np.uint8))
    for said in (np.uint8, np.uint16):
        # 255 and 151 are no class: they agree with nothing and add to no union, as in sceneparsing's histograms.
        Image.fromarray(np.array([[1, 255, 151, 255]], said)).save(ours / "1.png")
        scored = score_label_folder(ours, theirs)
        assert scored.values["class/1"].value == 0.5
        assert scored.values["class/2"].value == 0
        assert scored.values["mIoU"].value == pytest.approx(0.5 / 150)
        assert scored.counts == {"not in the folder": 1}
    write_labels(theirs / "1.png", np.array([[1, 1, 2, 255]], np.uint8))
    with pytest.raises(FormatError, match="has the label 255; expected 0 to 150"):
        score_label_folder(ours, theirs)


def test_mean_over_pictures_worked_case():
    # One picture right in half of its two classes, one all right.
    areas = [count_classes([[1, 1]], [[1, 2]], 3), count_classes([[3]], [[3]], 3)]
    scored = score_areas(["a", "b"], areas, {1: "sky"})
    assert scored.per_sample == {"picture mIoU": {"a": 0.25, "b": 1.0}}
    found = {name: score.value for name, score in scored.values.items()}
    assert found == pytest.approx(
        {
            "mIoU": 0.5,
            "mIoU, present classes": 0.5,
            "pixel accuracy": 2 / 3,
            "picture mIoU": 0.625,
            "class/sky": 0.5,
            "class/2": 0.0,
            "class/3": 1.0,
        }
    )


def test_without_a_segmenter_one_sentence_says_what_to_put_where(folder):
    with pytest.raises(FormatError, match=r"networks\.segmenter is not set"):
        task_of(folder, networks=Networks()).check()
