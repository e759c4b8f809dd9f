"""Flickr30k: token file and COCO layout, written and read back equal, a real sample, malformed lines."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_path

from mmi_eval.formats.coco_captions import CaptionedImage
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.flickr30k import read_flickr30k, write_flickr30k, write_flickr30k_tokens

caption = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r"), max_size=20)
images = st.dictionaries(st.integers(1, 10**10), st.lists(caption, min_size=1, max_size=5), min_size=1, max_size=4).map(
    lambda found: [CaptionedImage(number, f"{number}.jpg", tuple(texts)) for number, texts in found.items()]
)


@settings(deadline=None, max_examples=40)
@given(images)
def test_written_captions_are_read_back_equal_from_either_layout(tmp_path_factory, written):
    folder = tmp_path_factory.mktemp("flickr30k")
    n_captions = sum(len(image.captions) for image in written)
    assert write_flickr30k_tokens(folder / "results_20130124.token", written) == n_captions
    assert write_flickr30k(folder / "test1k.token.coco_format", written) == len(written)
    assert read_flickr30k(folder / "results_20130124.token") == written
    assert read_flickr30k(folder / "test1k.token.coco_format") == written


def test_the_real_test_pictures():
    read = read_flickr30k(shared_path("evaldata/captions/flickr30k_test1k_refs.json"))
    assert len(read) == 1000
    assert all(len(image.captions) == 5 and image.file_name == f"{image.image_id}.jpg" for image in read)


def test_real_captions_survive_the_token_file(tmp_path):
    read = read_flickr30k(shared_path("evaldata/captions/flickr30k_test1k_refs.json"))
    assert write_flickr30k_tokens(tmp_path / "captions.token", read) == 5000
    assert read_flickr30k(tmp_path / "captions.token") == read


def test_captions_may_come_in_any_order(tmp_path):
    (tmp_path / "t.token").write_bytes(b"2.jpg#1\tb\r\n1.jpg#0\tc\r\n2.jpg#0\ta\r\n")
    assert read_flickr30k(tmp_path / "t.token") == [
        CaptionedImage(2, "2.jpg", ("a", "b")),
        CaptionedImage(1, "1.jpg", ("c",)),
    ]


BAD = {
    "no tab": (b"1.jpg#0 a caption\n", "row 1 starts with"),
    "no number": (b"1.jpg\ta caption\n", "expected NAME.jpg#0"),
    "number is a word": (b"1.jpg#one\ta caption\n", "expected NAME.jpg#0"),
    "no name": (b"#0\ta caption\n", "expected NAME.jpg#0"),
    "not utf-8": (b"1.jpg#0\t\xff\n", "not UTF-8"),
    "twice": (b"1.jpg#0\ta\n1.jpg#0\tb\n", "row 2: caption 0 of 1.jpg is there twice"),
    "one missing": (b"1.jpg#0\ta\n1.jpg#2\tb\n", "not caption 1"),
    "broken json": (b"{", "not JSON"),
}


@pytest.mark.parametrize(("content", "said"), BAD.values(), ids=BAD.keys())
def test_a_malformed_file_is_one_sentence(tmp_path, content, said):
    (tmp_path / "t.token").write_bytes(content)
    with pytest.raises(FormatError) as error:
        read_flickr30k(tmp_path / "t.token")
    assert "t.token" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_the_token_file_cannot_hold_is_refused(tmp_path):
    for image, said in (
        (CaptionedImage(1, "1.jpg", ()), "has no caption"),
        (CaptionedImage(1, "1.jpg", ("a\tb",)), "a tab or line end"),
        (CaptionedImage(1, "1.jpg", ("a\nb",)), "a tab or line end"),
    ):
        with pytest.raises(FormatError, match=said):
            write_flickr30k_tokens(tmp_path / "t.token", [image])
    with pytest.raises(FileNotFoundError):
        read_flickr30k(tmp_path / "none.token")
