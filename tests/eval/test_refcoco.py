"""RefCOCO: pickled references with COCO instances, and rows of picture, words and box."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_path

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.grounding_rows import GroundingRow, read_grounding_rows, write_grounding_rows
from mmi_eval.formats.refcoco import SPLITS, Expression, Reference, ReferenceImage, read_refcoco, write_refcoco

numbers = st.floats(0, 999).map(lambda x: round(x, 2))
boxes = st.tuples(numbers, numbers, numbers, numbers)
texts = st.text(max_size=12)


@st.composite
def sets(draw, partition):
    images = [ReferenceImage(i, draw(texts), (draw(st.integers(1, 999)), 640)) for i in range(3)]
    references, sent_id = [], 0
    for ref_id in range(draw(st.integers(0, 4))):
        expressions = []
        for _ in range(draw(st.integers(0, 3))):
            words = draw(st.lists(texts, max_size=3))
            expressions.append(Expression(sent_id, " ".join(words), draw(texts), tuple(words)))
            sent_id += 1
        image, split = draw(st.sampled_from(images)), draw(st.sampled_from(SPLITS[partition]))
        box, name = draw(boxes), draw(texts)
        references.append(Reference(ref_id, 100 + ref_id, split, 7, box, image, tuple(expressions), name))
    return references


@pytest.mark.parametrize("partition", SPLITS)
@settings(deadline=None, max_examples=30)
@given(st.data())
def test_written_references_are_read_back_equal(tmp_path_factory, partition, data):
    written = data.draw(sets(partition))
    folder = tmp_path_factory.mktemp("refcoco")
    assert write_refcoco(folder, written, partition) == len(written)
    assert read_refcoco(folder / f"refs({partition}).p", folder / "instances.json") == written


def image() -> ReferenceImage:
    return ReferenceImage(5, "COCO_train2014_000000000005.jpg", (480, 640))


def reference(ref_id: int = 0, split: str = "train") -> Reference:
    words = Expression(ref_id, "red one", "RED one!", ("red", "one"))
    return Reference(ref_id, 50 + ref_id, split, 1, (1.0, 2.0, 3.0, 4.0), image(), (words,), "COCO_5_50.jpg")


def test_splits_are_told_apart(tmp_path):
    write_refcoco(tmp_path, [reference(0, "testA"), reference(1, "testB"), reference(2, "testA")], "unc")
    files = tmp_path / "refs(unc).p", tmp_path / "instances.json"
    assert [r.ref_id for r in read_refcoco(*files, split="testA")] == [0, 2]
    with pytest.raises(FormatError, match=r'no split "val"; its splits are: testA, testB'):
        read_refcoco(*files, split="val")


def test_the_usual_reader_of_the_pickle_finds_what_it_expects(tmp_path):
    write_refcoco(tmp_path, [reference()], "umd", categories={1: "person"})
    (row,) = pickle.loads((tmp_path / "refs(umd).p").read_bytes())
    instances = json.loads((tmp_path / "instances.json").read_text())
    assert row["sent_ids"] == [0]
    assert row["sentences"][0] == {"tokens": ["red", "one"], "raw": "RED one!", "sent_id": 0, "sent": "red one"}
    annotation = next(a for a in instances["annotations"] if a["id"] == row["ann_id"])
    assert annotation["bbox"] == [1, 2, 3, 4]
    assert annotation["segmentation"] == [[1, 2, 4, 2, 4, 6, 1, 6]]
    assert instances["categories"] == [{"id": 1, "name": "person", "supercategory": "thing"}]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_real_record_in_the_pickles_of_both_pythons(tmp_path, protocol):
    sample = json.loads(shared_path("evaldata/formats/refcoco_refs_record_sample.json").read_text())
    image = sample["image"] | {"file_name": "COCO_train2014_000000581857.jpg"}
    instances = {"images": [image], "annotations": [sample["instances_annotation_for_it"]]}
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([sample["ref"]], protocol))
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    (read,) = read_refcoco(tmp_path / "refs(unc).p", tmp_path / "instances.json", "train")
    assert read.box == (103.93, 299.99, 134.22, 177.42)
    assert read.image == ReferenceImage(581857, "COCO_train2014_000000581857.jpg", (640, 427))
    assert [e.text for e in read.expressions] == ["the lady with the blue shirt"]
    assert read.expressions[0].raw == "THE LADY WITH THE BLUE SHIRT"


def test_texts_of_python_2_are_read(tmp_path):
    write_refcoco(tmp_path, [reference()], "unc")
    rows = (
        b"(lp0\n(dp1\nS'sent_ids'\n(lp2\nI0\nasS'file_name'\nS'x_50.jpg'\nsS'ann_id'\nI50\nsS'ref_id'\nI0\n"
        b"sS'image_id'\nI5\nsS'split'\nS'val'\nsS'sentences'\n(lp3\n(dp4\nS'tokens'\n(lp5\nS'red'\nasS'raw'\n"
        b"V r\xe9d\nsS'sent_id'\nI0\nsS'sent'\nS'red'\nsasS'category_id'\nI1\nsa."
    )
    (tmp_path / "refs(unc).p").write_bytes(rows)
    (read,) = read_refcoco(tmp_path / "refs(unc).p", tmp_path / "instances.json")
    assert (read.split, read.expressions) == ("val", (Expression(0, "red", " réd", ("red",)),))


def broken(**changes) -> tuple[list[dict], dict]:
    row = {"ref_id": 0, "ann_id": 50, "image_id": 5, "category_id": 1, "split": "train"}
    row |= {"sentences": [{"sent_id": 0, "sent": "red"}]} | changes
    picture = {"id": 5, "file_name": "a.jpg", "height": 4, "width": 4}
    annotation = {"id": 50, "image_id": 5, "category_id": 1, "bbox": [0, 0, 1, 1]}
    return [row], {"images": [picture], "annotations": [annotation]}


def with_annotation(**changes) -> tuple[list[dict], dict]:
    rows, instances = broken()
    instances["annotations"][0] |= changes
    return rows, instances


ROWS, INSTANCES = broken()
BAD = {
    "no list": ((ROWS[0], INSTANCES), "holds no list of references"),
    "no row": (([3], INSTANCES), "reference 0 holds 3"),
    "no annotation": (broken(ann_id=51), "ann_id 51 is not in"),
    "another picture": (broken(image_id=6), "image_id is 6 but annotation 50"),
    "split": (broken(split="dev"), '"split" is "dev"; expected one of train, val'),
    "ref twice": ((ROWS * 2, INSTANCES), "ref_id 0 is there twice"),
    "sentence twice": (broken(sentences=[{"sent_id": 0, "sent": "red"}] * 2), "sent_id 0 is there twice"),
    "no text": (broken(sentences=[{"sent_id": 0}]), 'sentence 0 has no key "sent"'),
    "tokens": (broken(sentences=[{"sent_id": 0, "sent": "a", "tokens": "a"}]), '"tokens" is "a"'),
    "box of three": (with_annotation(bbox=[0, 0, 1]), '"bbox" is [0, 0, 1]; expected four numbers'),
    "box of texts": (with_annotation(bbox=["0", 0, 1, 1]), "expected four numbers"),
    "annotation of no picture": (with_annotation(image_id=7), 'image_id 7 is not in "images"'),
    "annotation twice": ((ROWS, INSTANCES | {"annotations": INSTANCES["annotations"] * 2}), "id 50 is there twice"),
    "picture twice": ((ROWS, INSTANCES | {"images": INSTANCES["images"] * 2}), "id 5 is there twice"),
    "no instances": ((ROWS, {"images": []}), 'no key "annotations"'),
}


@pytest.mark.parametrize(("content", "said"), BAD.values(), ids=BAD.keys())
def test_malformed_files_are_one_sentence(tmp_path, content, said):
    rows, instances = content
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(rows))
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    with pytest.raises(FormatError) as error:
        read_refcoco(tmp_path / "refs(unc).p", tmp_path / "instances.json")
    assert str(tmp_path) in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_code_in_the_references_is_not_run(tmp_path):
    write_refcoco(tmp_path, [reference()], "unc")
    (tmp_path / "refs(unc).p").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "x").encode() + b"'\ntR.")
    with pytest.raises(FormatError, match=r'names "os.system", which could run code'):
        read_refcoco(tmp_path / "refs(unc).p", tmp_path / "instances.json")
    assert not (tmp_path / "x").exists()
    with pytest.raises(FileNotFoundError, match="expected the pickled references"):
        read_refcoco(tmp_path / "refs(umd).p", tmp_path / "instances.json")


def test_what_does_not_fit_is_not_written(tmp_path):
    other = Reference(1, 50, "train", 1, (0.0, 0.0, 1.0, 1.0), image(), ())
    elsewhere = Reference(1, 51, "train", 1, other.box, ReferenceImage(5, "b", (1, 1)), ())
    with pytest.raises(ValueError, match='partition umd has no split "testA"'):
        write_refcoco(tmp_path, [reference(0, "testA")], "umd")
    with pytest.raises(ValueError, match="differ about the annotation 50"):
        write_refcoco(tmp_path, [reference(), other], "unc")
    with pytest.raises(ValueError, match="differ about the picture 5"):
        write_refcoco(tmp_path, [reference(), elsewhere], "unc")
    with pytest.raises(ValueError, match="unknown partition"):
        write_refcoco(tmp_path, [], "google")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def rows_of(layout):
    corners = st.tuples(numbers, numbers, numbers, numbers)
    if layout != "detected":
        corners = corners.map(lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])))
    sizes = st.none() | st.tuples(st.integers(1, 99), st.integers(1, 99))
    names = st.none() | st.sampled_from(["refcoco", "refcocog"])
    candidates = st.lists(corners, max_size=2).map(tuple)
    row_ids = st.none() | st.integers(0, 9)
    return st.builds(GroundingRow, texts, texts, corners, st.just(layout), sizes, names, row_ids, candidates)


@pytest.mark.parametrize("layout", ["fractions", "pixels", "detected"])
@settings(deadline=None, max_examples=30)
@given(st.data())
def test_written_rows_are_read_back_equal(tmp_path_factory, layout, data):
    written = data.draw(st.lists(rows_of(layout), max_size=4))
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    assert write_grounding_rows(path, written) == len(written)
    assert read_grounding_rows(path) == written


def test_real_rows_in_fractions():
    read = read_grounding_rows(shared_path("evaldata/formats/rec_rows_sample.jsonl"))
    assert [row.dataset for row in read] == ["refcoco+", "refcocog", "refcocog", "refcoco", "refcoco+"]
    assert read[0].corners == pytest.approx((145.875, 194, 306, 459))
    for row in read:
        assert row.size is not None
        left, top, right, bottom = row.corners
        assert 0 <= left < right <= row.size[1]
        assert 0 <= top < bottom <= row.size[0]


def test_real_expressions_with_detections_and_official_predictions():
    read = read_grounding_rows(shared_path("evaldata/refcoco/refcoco_testA_sample.json"))
    assert len(read) == 26
    assert read[0].text == "person in red"
    assert read[0].corners == pytest.approx((0, 95.32, 113.34, 419.59))
    assert all(row.candidates and row.path("train2014").name == row.image for row in read)


PIXELS = {"image": "a.jpg", "sent": "it", "bbox": [0, 0, 2, 2]}
BAD_ROWS = {
    "not a row": ([3], "entry 0 holds 3"),
    "no words": ([{"image": "a.jpg", "bbox": [0, 0, 1, 1]}], 'no key "sent"'),
    "no picture": ([{"expression": "it", "bbox": [0, 0, 1, 1]}], 'no key "img_path"'),
    "box as text": ([PIXELS | {"bbox": "0"}], '"bbox" is "0"'),
    "box of three": ([PIXELS | {"bbox": [0, 0, 1]}], "expected four numbers"),
    "box turned round": ([PIXELS | {"bbox": [2, 0, 1, 1]}], "left, top, right and bottom in this order"),
    "candidate": ([PIXELS | {"detector_boxes_xywh": [3]}], "0 is no list"),
}


@pytest.mark.parametrize(("content", "said"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_malformed_rows_are_one_sentence(tmp_path, content, said):
    (tmp_path / "rows.json").write_text(json.dumps(content))
    with pytest.raises(FormatError) as error:
        read_grounding_rows(tmp_path / "rows.json")
    assert "rows.json, entry 0" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_say_what_they_lack(tmp_path):
    with pytest.raises(FormatError, match="in fractions; add height and width"):
        _ = GroundingRow("a.jpg", "it", (0, 0, 1, 1), "fractions").corners
    with pytest.raises(FormatError, match="relative path"):
        GroundingRow("../a.jpg", "it", (0, 0, 1, 1)).path("photos")
    rows = [GroundingRow("a", "b", (0, 0, 1, 1), "pixels"), GroundingRow("a", "b", (0, 0, 1, 1), "detected")]
    with pytest.raises(ValueError, match="detected and pixels cannot share a file"):
        write_grounding_rows(tmp_path / "x", rows)
