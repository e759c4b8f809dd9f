"""NoCaps files: with captions and without, written and read back equal; malformed rows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmi_eval.formats.coco_captions import read_coco_captions
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.nocaps import DOMAINS, NocapsImage, read_nocaps, write_nocaps

texts = st.text(max_size=20)


@st.composite
def files(draw):
    captions = st.lists(texts, max_size=3).map(tuple) if draw(st.booleans()) else st.none()
    sizes = st.none() | st.tuples(st.integers(1, 999), st.integers(1, 999))
    image = st.builds(NocapsImage, st.integers(0), texts, texts, st.none() | st.sampled_from(DOMAINS), captions, sizes)
    return draw(st.lists(image, min_size=1, max_size=4, unique_by=lambda image: image.image_id))


@settings(deadline=None, max_examples=40)
@given(files())
def test_written_pictures_are_read_back_equal(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("nocaps") / "nocaps.json"
    assert write_nocaps(path, written) == len(written)
    assert read_nocaps(path) == written


def test_the_layout_is_that_of_coco_captions_and_more(tmp_path):
    image = NocapsImage(0, "0013ea2087020901.jpg", "0013ea2087020901", "near-domain", ("a", "b"), (1024, 732))
    write_nocaps(tmp_path / "n.json", [image])
    (coco,) = read_coco_captions(tmp_path / "n.json")
    assert (coco.image_id, coco.file_name, coco.captions, coco.size) == (0, image.file_name, ("a", "b"), (1024, 732))
    content = json.loads((tmp_path / "n.json").read_text())
    assert content["images"][0]["domain"] == "near-domain"
    assert [row["id"] for row in content["annotations"]] == [0, 1]


def test_the_official_file_in_small(tmp_path):
    row = {"id": 0, "open_images_id": "0013ea2087020901", "height": 1024, "width": 732, "license": 0}
    row |= {"file_name": "0013ea2087020901.jpg", "coco_url": "https://x/0013ea2087020901.jpg", "domain": "in-domain"}
    caption = {"image_id": 0, "id": 0, "caption": "A baby is standing in front of a house."}
    path = tmp_path / "nocaps_val_4500_captions.json"
    path.write_text(json.dumps({"licenses": [], "info": {}, "images": [row], "annotations": [caption]}))
    (image,) = read_nocaps(path)
    assert image == NocapsImage(
        0, row["file_name"], row["open_images_id"], "in-domain", (caption["caption"],), (1024, 732)
    )
    assert image.path("photos").as_posix() == "photos/0013ea2087020901.jpg"
    with pytest.raises(FormatError, match="expected a relative path"):
        NocapsImage(0, "../x.jpg", "").path("photos")


GOOD = {"id": 0, "file_name": "a.jpg", "open_images_id": "a", "domain": "in-domain"}
BAD = {
    "a list": ([], "expected an object"),
    "no images": ({}, 'no key "images"'),
    "unknown domain": ({"images": [GOOD | {"domain": "in"}]}, '"domain" is "in"'),
    "id as text": ({"images": [GOOD | {"id": "0"}]}, '"id" is "0"'),
    "id twice": ({"images": [GOOD, GOOD]}, "there twice"),
    "no open images id": ({"images": [{"id": 0, "file_name": "a.jpg"}]}, 'no key "open_images_id"'),
    "caption of no image": ({"images": [], "annotations": [{"image_id": 4, "caption": "x"}]}, 'not in "images"'),
    "caption not text": ({"images": [GOOD], "annotations": [{"image_id": 0, "caption": 3}]}, '"caption" is 3'),
}


@pytest.mark.parametrize(("content", "said"), BAD.values(), ids=BAD.keys())
def test_a_malformed_file_is_one_sentence(tmp_path, content, said):
    (tmp_path / "n.json").write_text(json.dumps(content))
    with pytest.raises(FormatError) as error:
        read_nocaps(tmp_path / "n.json")
    assert "n.json" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_captions_of_some_pictures_only_are_refused(tmp_path):
    with pytest.raises(FormatError, match="image 1 has no captions but others have"):
        write_nocaps(tmp_path / "n.json", [NocapsImage(0, "a", "a", None, ()), NocapsImage(1, "b", "b")])
    with pytest.raises(FileNotFoundError, match="expected a NoCaps file"):
        read_nocaps(tmp_path / "none.json")
