"""LLaVA conversations: written and read back equal, the official sample, malformed records."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_path

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.llava import IMAGE_MARK, Conversation, Turn, read_conversations, write_conversations

texts = st.text(max_size=12) | st.just(f"{IMAGE_MARK}\nWhat is it?")
turns = st.lists(st.builds(Turn, st.sampled_from(["human", "gpt"]), texts), max_size=4).map(tuple)
conversations = st.builds(Conversation, texts, st.lists(texts, max_size=3).map(tuple), turns)


@settings(deadline=None, max_examples=60)
@given(written=st.lists(conversations, max_size=4), ending=st.sampled_from(["json", "jsonl", "jsonl.gz", "jsonl.zip"]))
def test_written_conversations_are_read_back_equal(tmp_path_factory, written, ending):
    path = tmp_path_factory.mktemp("llava") / f"train.{ending}"
    assert write_conversations(path, iter(written)) == len(written)
    assert read_conversations(path) == written


def test_one_picture_is_a_name_several_are_a_list_and_none_is_no_key(tmp_path):
    turn = (Turn("gpt", "a cat"),)
    write_conversations(tmp_path / "c.json", [Conversation(n, tuple(n), turn) for n in ("", "a", "ab")])
    rows = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert [row.get("image") for row in rows] == [None, "a", ["a", "b"]]
    assert rows[0] == {"id": "", "conversations": [{"from": "gpt", "value": "a cat"}]}


def test_the_official_sample_is_read(tmp_path):
    sample = shared_path("evaldata/formats/llava_conversation_sample.json")
    read = read_conversations(sample)
    (conversation,) = read
    assert conversation.images == (f"part-000001/{conversation.id}.jpg",)
    assert conversation.n_marks == 1
    assert [turn.speaker for turn in conversation.turns] == ["human", "gpt"]
    assert conversation.turns[0].text.startswith(IMAGE_MARK)
    write_conversations(tmp_path / "again.json", read)
    assert json.loads((tmp_path / "again.json").read_bytes()) == json.loads(sample.read_bytes())


def test_ids_may_be_numbers_and_repeat_as_in_the_official_mixtures(tmp_path):
    row = {"id": 33471, "image": "coco/33471.jpg", "conversations": []}
    (tmp_path / "c.json").write_text(json.dumps([row, row]))
    assert [c.id for c in read_conversations(tmp_path / "c.json")] == ["33471", "33471"]


TURN = {"from": "human", "value": "hello"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "is not JSON"),
        ({"id": "1", "conversations": []}, "not a list of conversations"),
        (["hello"], r"entry 0 holds .*expected an object"),
        ([{"conversations": []}], r'entry 0 has no key "id"'),
        ([{"id": None, "conversations": []}], r'entry 0: "id" is null'),
        ([{"id": "1"}], r'entry 0 has no key "conversations"'),
        ([{"id": "1", "conversations": "hi"}], r'entry 0: "conversations" is .*expected a list'),
        ([{"id": "1", "conversations": ["hi"]}], r'entry 0 \("1"\), turn 0 holds'),
        ([{"id": "1", "conversations": [TURN, {"value": "x"}]}], r'turn 1 has no key "from"'),
        ([{"id": "1", "conversations": [TURN | {"from": "user"}]}], r'turn 0 is from "user"; expected human or gpt'),
        ([{"id": "1", "conversations": [TURN | {"value": 3}]}], r'turn 0: "value" is 3; expected text'),
        ([{"id": "1", "conversations": [], "image": 5}], r'"image" is 5; expected a list of texts'),
        ([{"id": "1", "conversations": [], "image": ["a", 5]}], r'"image", entry 1 is 5; expected text'),
    ],
)
def test_a_malformed_file_is_named_in_one_sentence(tmp_path, content, message):
    (tmp_path / "c.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(FormatError, match=message) as error:
        read_conversations(tmp_path / "c.json")
    assert "c.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json does not exist; expected a LLaVA conversation file"):
        read_conversations(tmp_path / "none.json")
