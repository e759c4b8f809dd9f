"""VIST stories in the official layout and regrouped."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_path

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.vist import VISTAlbum, VISTFile, VISTPhoto, VISTSentence, VISTStory, read_vist, write_vist

ids = st.text(min_size=1, max_size=6)
texts = st.text(max_size=12)
optional = st.none() | texts


@st.composite
def stories(draw, *, official: bool):
    if not official:
        sentences = tuple(VISTSentence(draw(ids), draw(texts), i) for i in range(draw(st.integers(0, 5))))
        return VISTStory(draw(ids), sentences)
    sentences = tuple(
        VISTSentence(draw(ids), draw(texts), i, draw(optional), draw(optional)) for i in range(draw(st.integers(1, 5)))
    )
    return VISTStory(draw(ids), sentences, draw(optional), draw(optional), draw(optional))


def files(layout):
    official = layout == "official"
    told = st.lists(stories(official=official), max_size=3, unique_by=lambda s: s.story_id).map(tuple)
    if not official:
        return st.builds(VISTFile, told)
    photos = st.lists(st.builds(VISTPhoto, ids, ids, optional, optional), max_size=2).map(tuple)
    albums = st.lists(st.builds(VISTAlbum, ids, optional, optional, optional), max_size=2).map(tuple)
    return st.builds(VISTFile, told, photos, albums)


@pytest.mark.parametrize("layout", ["official", "formatted"])
@settings(deadline=None, max_examples=30)
@given(st.data())
def test_written_stories_are_read_back_equal(tmp_path_factory, layout, data):
    written = data.draw(files(layout))
    path = tmp_path_factory.mktemp("vist") / "vist.json"
    assert write_vist(path, written, layout) == len(written.stories)
    read = read_vist(path)
    # JSON keys are sorted, so the regrouped layout has its stories by id.
    assert sorted(read.stories, key=lambda s: s.story_id) == sorted(written.stories, key=lambda s: s.story_id)
    assert (read.photos, read.albums) == (written.photos, written.albums)


def test_the_real_official_sample():
    (story,) = read_vist(shared_path("evaldata/formats/vist_sis_sample.json")).stories
    assert (story.story_id, story.album_id, story.setting) == ("45530", "44277", "first-2-pick-and-tell")
    (sentence,) = story.sentences
    assert sentence.text == "the local parish holds a craft show each year ."
    assert sentence.original_text == "The local parish holds a craft show each year."
    assert (sentence.photo_id, sentence.order, sentence.storylet_id) == ("1741642", 0, "227650")


def test_the_real_regrouped_sample():
    read = read_vist(shared_path("evaldata/formats/vist_formatted_filtered_layout.json")).stories
    assert [story.story_id for story in read] == ["story_a", "story_b"]
    assert [[s.order for s in story.sentences] for story in read] == [[0, 1, 2, 3, 4]] * 2
    assert read[0].sentences[4].path("images/test_images").as_posix() == "images/test_images/8605117.png"


def test_sentences_are_put_in_order(tmp_path):
    turns = [{"sequence_index": i, "image_id": str(i), "caption": f"{i}."} for i in (2, 0, 1)]
    (tmp_path / "v.json").write_text(json.dumps({"annotations": {"a": turns}}))
    assert [s.photo_id for s in read_vist(tmp_path / "v.json").stories[0].sentences] == ["0", "1", "2"]


SENTENCE = {"story_id": "1", "photo_flickr_id": "2", "worker_arranged_photo_order": 0, "text": "x"}
TURN = {"sequence_index": 0, "image_id": "2", "caption": "x"}
BAD = {
    "a list": ([], "holds []; expected an object"),
    "no annotations": ({}, 'no key "annotations"'),
    "bare sentence": ({"annotations": [SENTENCE]}, "is not a list of one sentence"),
    "two sentences": ({"annotations": [[SENTENCE, SENTENCE]]}, "is not a list of one sentence"),
    "number as id": ({"annotations": [[SENTENCE | {"photo_flickr_id": 2}]]}, '"photo_flickr_id" is 2; expected text'),
    "place twice": ({"annotations": [[SENTENCE], [SENTENCE]]}, 'story "1" has two sentences for place 0'),
    "two albums": (
        {"annotations": [[SENTENCE], [SENTENCE | {"worker_arranged_photo_order": 1, "album_id": "9"}]]},
        "several albums",
    ),
    "picture without album": ({"annotations": [], "images": [{"id": "1"}]}, '"images" 0 has no key "album_id"'),
    "album without id": ({"annotations": [], "albums": [{}]}, '"albums" 0 has no key "id"'),
    "story is text": ({"annotations": {"a": "x"}}, 'story "a" is no list'),
    "turn without text": ({"annotations": {"a": [{"sequence_index": 0, "image_id": "1"}]}}, 'no key "caption"'),
    "turn twice": ({"annotations": {"a": [TURN, TURN]}}, "two sentences for place 0"),
}


@pytest.mark.parametrize(("content", "said"), BAD.values(), ids=BAD.keys())
def test_a_malformed_file_is_one_sentence(tmp_path, content, said):
    (tmp_path / "vist.json").write_text(json.dumps(content))
    with pytest.raises(FormatError) as error:
        read_vist(tmp_path / "vist.json")
    assert "vist.json" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_ids_do_not_lead_out_and_layouts_are_known(tmp_path):
    with pytest.raises(FormatError, match="relative path"):
        VISTSentence("../../secret", "x", 0).path("images")
    with pytest.raises(ValueError, match='unknown VIST layout "dii"'):
        write_vist(tmp_path / "v.json", VISTFile(()), "dii")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="expected a JSON file of VIST stories"):
        read_vist(tmp_path / "v.json")
