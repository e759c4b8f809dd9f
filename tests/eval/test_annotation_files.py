"""COCO caption files and VQA files: written and read back equal, real samples, malformed rows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shared_data import shared_path

from mmi_eval.formats.coco_captions import CaptionedImage, read_coco_captions, write_coco_captions
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.vqa import VQAAnnotation, VQAAnswer, VQAItem, read_vqa, write_vqa

ids = st.integers(0, 10**12) | st.text(min_size=1, max_size=5)
images = st.builds(
    CaptionedImage,
    ids,
    st.text(min_size=1, max_size=10),
    st.lists(st.text(max_size=20), max_size=3).map(tuple),
    st.none() | st.tuples(st.integers(1, 99), st.integers(1, 99)),
)
answers = st.lists(st.tuples(st.text(max_size=5), st.sampled_from(["yes", "maybe", "no", None])), max_size=3).map(
    lambda given: tuple(VQAAnswer(text, sure, i) for i, (text, sure) in enumerate(given, start=1))
)
optional_text = st.none() | st.text(max_size=5)
annotations = st.builds(VQAAnnotation, optional_text, optional_text, st.text(max_size=5), answers)
items = st.builds(VQAItem, ids, ids, st.text(max_size=10), annotations, optional_text)


@pytest.mark.parametrize("layout", ["official", "karpathy_blip", "plain"])
@settings(deadline=None, max_examples=40)
@given(written=st.lists(images, min_size=1, max_size=4, unique_by=lambda image: image.image_id))
def test_written_captions_are_read_back_equal(tmp_path_factory, layout, written):
    path = tmp_path_factory.mktemp("coco") / "captions.json"
    assert write_coco_captions(path, written, layout) == len(written)
    assert read_coco_captions(path) == written


@settings(deadline=None, max_examples=40)
@given(written=st.lists(items, max_size=4, unique_by=lambda item: item.question_id))
def test_written_questions_are_read_back_equal(tmp_path_factory, written):
    folder = tmp_path_factory.mktemp("vqa")
    assert write_vqa(folder / "q.json", folder / "a.json", written) == len(written)
    assert read_vqa(folder / "q.json", folder / "a.json") == written
    assert [item.annotation for item in read_vqa(folder / "q.json")] == [None] * len(written)


def test_real_captions_with_their_photographs():
    read = read_coco_captions(shared_path("evaldata/photos/coco_captions.json"))
    assert len(read) == 6
    for image in read:
        with Image.open(image.path(shared_path("evaldata/photos/coco"))) as photo:
            assert (photo.height, photo.width) == image.size
        assert image.captions


@pytest.mark.parametrize(
    ("name", "n", "per_image"),
    [("captions/flickr30k_test1k_refs", 1000, 5), ("captions/coco_subset500_refs", 500, 5)],
)
def test_real_official_files(name, n, per_image):
    read = read_coco_captions(shared_path(f"evaldata/{name}.json"))
    assert len(read) == n
    assert all(len(image.captions) >= per_image for image in read)


def test_a_list_without_ids_takes_them_from_the_file_names():
    read = read_coco_captions(shared_path("evaldata/formats/coco_karpathy_blip_layout.json"))
    assert read[0].image_id == 27440
    assert read[0].file_name == "val2014/COCO_val2014_000000027440.jpg"
    assert len(read[0].captions) == 5


@pytest.mark.parametrize(("name", "n"), [("vqav2_sample", 3), ("textvqa_val60", 60), ("vizwiz_val", 300)])
def test_real_questions_with_ten_answers(name, n):
    folder = shared_path("evaldata/vqa")
    read = read_vqa(folder / f"{name}_questions.json", folder / f"{name}_annotations.json")
    assert len(read) == n
    assert all(item.annotation is not None and len(item.annotation.answers) == 10 for item in read)


BAD_CAPTIONS = {
    "text": ("3", "neither an object"),
    "no images": ({"annotations": []}, 'no key "images"'),
    "id twice": ({"images": [{"id": 1, "file_name": "a"}] * 2, "annotations": []}, "there twice"),
    "caption of no image": ({"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}, 'not in "images"'),
    "caption not text": (
        {"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "caption": 2}]},
        '"annotations" 0: "caption" is 2',
    ),
    "true as id": ({"images": [{"id": True, "file_name": "a"}], "annotations": []}, '"id" is true'),
    "row without image": ([{"caption": "x"}], 'entry 0 has no key "image"'),
    "captions as text": ([{"file_name": "a", "captions": "x"}], '"captions" is "x"'),
}


@pytest.mark.parametrize(("content", "said"), BAD_CAPTIONS.values(), ids=BAD_CAPTIONS.keys())
def test_a_malformed_caption_file_is_one_sentence(tmp_path, content, said):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError) as error:
        read_coco_captions(path)
    assert "captions.json" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


QUESTION = {"question_id": 1, "image_id": 2, "question": "what?"}
ANNOTATION = {"question_id": 1, "image_id": 2, "multiple_choice_answer": "x", "answers": [{"answer": "x"}]}
BAD_VQA = {
    "question twice": ([QUESTION] * 2, [ANNOTATION], "there twice"),
    "answers twice": ([QUESTION], [ANNOTATION] * 2, "there twice"),
    "no answers": ([QUESTION], [], "has no answers in"),
    "answers to nothing": ([], [ANNOTATION], "answers 1 questions that"),
    "another picture": ([QUESTION], [ANNOTATION | {"image_id": 3}], "image_id is 2 but"),
    "question not text": ([QUESTION | {"question": 3}], [ANNOTATION], '"question" is 3'),
    "answer not text": ([QUESTION], [ANNOTATION | {"answers": [{"answer": 3}]}], "answer 1: "),
}


@pytest.mark.parametrize(("questions", "annotations", "said"), BAD_VQA.values(), ids=BAD_VQA.keys())
def test_malformed_vqa_files_are_one_sentence(tmp_path, questions, annotations, said):
    (tmp_path / "q.json").write_text(json.dumps({"questions": questions}))
    (tmp_path / "a.json").write_text(json.dumps({"annotations": annotations}))
    with pytest.raises(FormatError) as error:
        read_vqa(tmp_path / "q.json", tmp_path / "a.json")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_says_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a VQA questions file"):
        read_vqa(tmp_path / "q.json")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_coco_captions(tmp_path)
