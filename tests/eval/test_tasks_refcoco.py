"""Referring expressions: three data sets and their eight splits, boxes by size, and result files from anywhere."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from shared_data import shared_path
from toy_benchmarks import SIDE, ToyModel, drawn, oracle

from mmi_eval.formats.box_results import read_box_results, write_box_results
from mmi_eval.formats.boxes import corners, format_box
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.grounding_rows import GroundingRow, write_grounding_rows
from mmi_eval.formats.refcoco import SPLITS, Expression, Reference, ReferenceImage, write_refcoco
from mmi_eval.tasks.refcoco import PARTITIONS, Dataset, RefCOCO, box_size, read_references, read_results, score_results

# A box of each size under the limits below, by picture: areas 16, 64 and 400.
BOXES = [(0.0, 0.0, 4.0, 4.0), (8.0, 8.0, 8.0, 8.0), (4.0, 8.0, 20.0, 20.0)]
LIMITS = (5.0, 10.0)
EIGHT = [("refcoco", s) for s in ("val", "testA", "testB")]
EIGHT += [("refcoco+", s) for s in ("val", "testA", "testB")] + [("refcocog", s) for s in ("val", "test")]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pictures, and a folder for each data set with three references in each of its splits."""
    folder = tmp_path_factory.mktemp("boxes")
    (folder / "images").mkdir()
    for i in range(3):
        drawn(i).save(folder / "images" / f"{i}.png")
    for dataset, partition in PARTITIONS.items():
        references = []
        for split in SPLITS[partition]:
            for i, box in enumerate(BOXES):
                number = len(references)
                words = f"the {dataset} thing {number} of {split}"
                expression = Expression(number, words, words, tuple(words.split()))
                image = ReferenceImage(i, f"{i}.png", (SIDE, SIDE))
                references.append(Reference(number, i, split, 1, box, image, (expression,)))
        write_refcoco(folder / dataset, references, partition)
    return folder


def task(files, dataset: Dataset = "refcoco", split="val"):
    (refs,) = (files / dataset).glob("refs*.p")
    instances = files / dataset / "instances.json"
    return RefCOCO(refs, instances, files / "images", dataset=dataset, split=split, size_limits=LIMITS)


def scored_by(asked, model=None):
    samples = asked.samples()
    return asked.score(samples, asked.answer(model or ToyModel(samples), samples))


def values(scored):
    return {name: score.value for name, score in scored.values.items()}


@pytest.mark.parametrize(("dataset", "split"), EIGHT, ids=lambda name: name)
def test_an_oracle_gets_the_best_score_on_each_of_the_eight_splits(files, dataset, split):
    asked = task(files, dataset, split)
    asked.check()
    scored = scored_by(asked, oracle(asked))
    # Numbers 0 to 999 cannot write every box exactly.
    assert values(scored)["accuracy"] == values(scored)["mean IoU, quantised truth"] == 1.0
    assert values(scored)["mean IoU"] == pytest.approx(1.0, abs=0.01)
    assert all(split in sample.meta["expression"] for sample in asked.samples())
    assert scored.counts == {"unparsable": 0, "boxes without area": 0}


def test_an_empty_model_gets_the_floor_and_every_answer_is_unparsable(files):
    scored = scored_by(task(files))
    assert set(values(scored).values()) == {0.0}
    assert scored.counts["unparsable"] == 3


def test_a_constant_box_is_right_where_it_overlaps_by_half(files):
    # (0, 0) to (999, 999) of 32 x 32 pixels, against areas of 16, 64 and 400: IoU 0.0156, 0.0625 and 0.3906 exactly.
    asked = task(files)
    everything = scored_by(asked, ToyModel(asked.samples(), lambda sample: "(000,000)(999,999)"))
    assert values(everything)["mean IoU"] == pytest.approx((16 + 64 + 400) / 3 / SIDE**2)
    assert values(everything)["accuracy"] == 0.0
    # The third box itself: right on it, and no overlap by half with the others.
    third = format_box(corners(BOXES[2]), (SIDE, SIDE))
    found = values(scored_by(asked, ToyModel(asked.samples(), lambda sample: third)))
    assert (found["accuracy"], found["size/large"], found["size/small"]) == (pytest.approx(1 / 3), 1.0, 0.0)
    # The second lies in the third: its 64 pixels over the 400. The first touches it nowhere.
    assert found["mean IoU"] == pytest.approx((1 + 64 / 400) / 3, abs=0.01)


def test_scores_are_broken_down_by_the_size_of_the_true_box(files):
    asked = task(files)
    small = ToyModel(asked.samples(), lambda s: format_box(s.meta["box"], (SIDE, SIDE)) if s.id == "3" else "no")
    scored = scored_by(asked, small)
    assert {k: v for k, v in values(scored).items() if k.startswith("size/")} == {
        "size/small": 1.0,
        "size/medium": 0.0,
        "size/large": 0.0,
    }
    assert scored.counts["unparsable"] == 2


def test_sizes_are_those_of_coco_unless_said_otherwise(files):
    asked = replace(task(files), size_limits=RefCOCO.size_limits)
    assert {sample.meta["box size"] for sample in asked.samples()} == {"small"}
    assert box_size((10, 10, 106, 106)) == "large"


def test_boxes_without_area_are_misses_counted_apart_from_texts_without_a_box(files):
    asked = task(files)
    texts = iter(["(500,500)(100,100)", "on the left", "(000,000)(000,999)"])
    scored = scored_by(asked, ToyModel(asked.samples(), lambda sample: next(texts)))
    assert scored.counts == {"unparsable": 1, "boxes without area": 2}
    assert values(scored)["mean IoU"] == 0.0


def test_a_changed_file_is_read_again(files, tmp_path):
    shutil.copytree(files, tmp_path / "copy")
    asked = task(tmp_path / "copy")
    assert asked.samples() == asked.samples()
    reference = Reference(0, 0, "val", 1, BOXES[0], ReferenceImage(0, "0.png", (SIDE, SIDE)), ())
    changed = replace(reference, expressions=(Expression(77, "a new thing", "a new thing", ("a", "new", "thing")),))
    write_refcoco(tmp_path / "copy" / "refcoco", [changed], "unc")
    assert [sample.id for sample in asked.samples()] == ["77"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"split": "testA", "dataset": "refcocog"}, 'refcocog has no split "testA"; its splits are: train, val, test.'),
        ({"split": "test"}, 'refcoco has no split "test"; its splits are: train, val, testA, testB.'),
        ({"train_split": "training"}, 'refcoco has no split "training"'),
        ({"size_limits": (96.0, 32.0)}, "size_limits are [96.0, 32.0]; expected two sides in pixels, rising."),
    ],
    ids=["split of another set", "no such split", "no such training split", "falling limits"],
)
def test_wrong_settings_are_one_sentence(files, settings, sentence):
    with pytest.raises(FormatError) as caught:
        replace(task(files), **settings).check()
    assert sentence in str(caught.value)


LAYOUTS = {
    "text": {"sent_id": 3, "answer": "(000,000)(125,125)"},
    "left, top, width, height": {"id": 3, "pred_box_xywh": [0, 0, 4, 4]},
    "left, top, right, bottom": {"id": 3, "pred_box_xyxy": [0, 0, 4, 4]},
    "box by sent_id": {"sent_id": 3, "pred_box_xywh": [0, 0, 4, 4]},
}


@pytest.mark.parametrize("row", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_each_layout_of_results_is_scored(files, tmp_path, row):
    (tmp_path / "results.json").write_text(json.dumps([row]))
    asked = task(files)
    read = read_results(tmp_path / "results.json")
    samples = [sample for sample in asked.samples() if sample.id in read]
    found = values(asked.score(samples, [read[sample.id] for sample in samples]))
    assert (found["accuracy"], found["accuracy, quantised truth"]) == (1.0, 1.0)
    assert found["mean IoU"] == pytest.approx(1.0, abs=0.01)


def test_written_boxes_are_read_back(tmp_path):
    boxes = {7: (1.5, 2.0, 10.0, 20.5), 8: (0.0, 0.0, 1.0, 1.0)}
    assert write_box_results(tmp_path / "boxes.json", boxes) == 2
    assert read_box_results(tmp_path / "boxes.json") == {str(i): box for i, box in boxes.items()}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("id 1", "holds neither a JSON list nor an object on each line"),
        ('{"id": 1}', "line 1 has the keys id"),
        ("[3]", "entry 0 holds 3; expected an object"),
        ('[{"pred_box_xywh": [0, 0, 1, 1]}]', 'expected exactly one of "sent_id", "id"'),
        ('[{"id": 1}]', 'expected exactly one of "answer", "pred_box_xywh", "pred_box_xyxy"'),
        ('[{"id": 1, "pred_box_xywh": [0, 0, 1]}]', '"pred_box_xywh" is [0, 0, 1]; expected four numbers'),
        ('[{"id": 1, "answer": "x"}, {"id": 1, "answer": "y"}]', "the id 1 is there twice"),
    ],
    ids=["no list", "one object", "no object", "no id", "no answer", "three numbers", "twice"],
)
def test_wrong_results_are_one_sentence(tmp_path, content, sentence):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(FormatError) as caught:
        read_results(tmp_path / "results.json")
    assert sentence in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_texts_need_the_size_of_the_picture_and_boxes_do_not(tmp_path):
    rows = [GroundingRow("1.png", "the thing", (0.0, 0.0, 4.0, 4.0), "pixels", row_id=5)]
    write_grounding_rows(tmp_path / "truth.jsonl", rows)
    (tmp_path / "boxes.json").write_text('[{"id": 5, "pred_box_xywh": [0, 0, 4, 4]}]')
    found = values(score_results(tmp_path / "boxes.json", tmp_path / "truth.jsonl"))
    assert found == {"accuracy": 1.0, "mean IoU": 1.0, "size/small": 1.0}
    (tmp_path / "texts.json").write_text('[{"id": 5, "answer": "(000,000)(125,125)"}]')
    with pytest.raises(FormatError, match="the size of its picture is not known"):
        score_results(tmp_path / "texts.json", tmp_path / "truth.jsonl")
    write_grounding_rows(tmp_path / "sized.jsonl", [replace(rows[0], size=(SIDE, SIDE))])
    assert values(score_results(tmp_path / "texts.json", tmp_path / "sized.jsonl"))["accuracy"] == 1.0


def test_results_of_other_expressions_are_refused_and_missing_ones_counted(tmp_path):
    rows = [GroundingRow(f"{i}.png", "the thing", (0.0, 0.0, 4.0, 4.0), "pixels", row_id=i) for i in range(3)]
    write_grounding_rows(tmp_path / "truth.jsonl", rows)
    write_box_results(tmp_path / "one.json", {2: (0.0, 0.0, 4.0, 4.0)})
    assert score_results(tmp_path / "one.json", tmp_path / "truth.jsonl").counts["not in the file"] == 2
    write_box_results(tmp_path / "other.json", {2: (0.0, 0.0, 4.0, 4.0), 9: (0.0, 0.0, 4.0, 4.0)})
    with pytest.raises(
        FormatError, match=r"other.json answers 1 expressions that .*truth.jsonl does not hold, such as 9"
    ):
        score_results(tmp_path / "other.json", tmp_path / "truth.jsonl")


@pytest.mark.parametrize("name", ["keyword_rule", "first_detection", "shifted_gt", "oracle_detection"])
def test_real_boxes_get_the_scores_of_the_toolkit(name):
    folder = shared_path("evaldata/refcoco")
    expected = json.loads(shared_path("evaldata/expected.json").read_text())["refcoco"][f"refcoco_{name}"]
    truths = folder / "refcoco_testA_sample.json"
    scored = score_results(folder / f"{name}_predictions.json", truths)
    assert scored.values["accuracy"].n == expected["n"] == len(read_references(truths))
    assert scored.values["accuracy"].value == pytest.approx(expected["acc50_continuous"], abs=1e-12)
    assert scored.values["mean IoU"].value == pytest.approx(expected["mean_iou_continuous"], abs=1e-12)
