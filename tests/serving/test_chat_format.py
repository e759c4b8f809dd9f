"""What requests mean, and that nonsense of any kind ends in a sentence."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from factories import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from serving.served import SETTINGS, data_url, user

from mmi.config import ConfigError
from mmi.serving.chat_format import ChatRules, RequestError, picture_bytes
from mmi.serving.conversation import Message, key_of
from mmi.serving.limits import Limits
from mmi.serving.uploads import Picture

RULES = ChatRules(SETTINGS, Limits(text_characters=50, new_tokens=9), wording="Q: {question} A:")


def read(rules: ChatRules = RULES, **fields):
    return rules.read(json.dumps({"messages": [user("hi")], **fields}).encode())


def test_texts_and_pictures_keep_their_order_and_only_users_are_worded():
    said = [
        {"role": "system", "content": "be kind"},
        user(picture(0), "what?"),
        {"role": "assistant", "content": [{"type": "text", "text": "that"}]},
        user("and?"),
    ]
    question = read(messages=said).question
    roles = [message.role for message in question.messages]
    assert roles == ["system", "user", "assistant", "user"]
    assert question.messages[0].parts == ("be kind",)
    seen, asked = question.messages[1].parts
    assert isinstance(seen, Picture)
    assert seen.image.tobytes() == picture(0).tobytes()
    assert asked == "Q: what? A:"
    assert question.messages[2].parts == ("that",)


def test_settings_are_the_servers_where_a_request_does_not_say():
    assert read().question.settings.text == SETTINGS.text
    chosen = read(
        max_tokens=4, temperature=0.5, seed=7, image_steps=3, guidance_scale=1.5, min_images=2
    ).question.settings
    assert (chosen.text.max_new_tokens, chosen.text.temperature, chosen.text.do_sample) == (4, 0.5, True)
    assert (chosen.seed, chosen.image.n_steps, chosen.image.guidance_scale) == (7, 3, 1.5)
    assert (chosen.min_images, chosen.max_images) == (2, 2)
    assert not read(temperature=0).question.settings.text.do_sample


def test_a_model_that_does_not_draw_is_not_asked_to():
    rules = ChatRules(SETTINGS, Limits(), can_draw=False)
    assert read(rules).question.settings.max_images == SETTINGS.max_images
    with pytest.raises(RequestError, match="does not draw"):
        read(rules, max_images=1)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"nonsense", b"\xff\xfe", b"[" * 100_000, b'{"messages": ' + b"9" * 10_000 + b"}", b"null"],
    ids=["empty", "list", "words", "bytes", "deep", "digits", "null"],
)
def test_what_is_no_request_is_refused(body):
    with pytest.raises(RequestError):
        RULES.read(body)


NAMES = ["role", "content", "type", "text", "image_url", "url", "x"]
FIELDS = ["messages", "max_tokens", "temperature", "seed", "stream", "sampler", "n", "model"]
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("data:image/png;base64,AA")
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(JSON, st.sampled_from(FIELDS), JSON)
def test_any_json_ends_in_a_question_or_a_sentence(content, name, value):
    told = {"messages": [{"role": "user", "content": content}], name: value}
    with suppress(ConfigError):  # any other error is a fault
        RULES.read(json.dumps(told).encode())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("HTTP://example.org/a.png", "fetches nothing"),
        ("data:text/html;base64,aGk=", "another kind"),
        ("data:image/png,aGk=", "another kind"),
        ("data:image/png;base64,%%%", "no base64"),
        (7, "no url"),
    ],
)
def test_only_pictures_in_the_request_itself_are_taken(url, says):
    with pytest.raises(RequestError, match=says):
        picture_bytes(url, "part")


def test_texts_add_up_to_their_limit():
    with pytest.raises(ConfigError, match="more than 50 characters"):
        read(messages=[user("a" * 30), user("a" * 30)])


def test_json_has_a_limit_of_its_own_and_pictures_do_not_count():
    rules = ChatRules(SETTINGS, Limits(json_bytes=2000))
    large = user(picture(0, 64), picture(1, 64))
    assert len(json.dumps(large)) > 20_000
    read(rules, messages=[large])
    escaped = json.dumps({"messages": [large]}).replace("/", "\\/")
    assert len(rules.read(escaped.encode()).question.messages[0].parts) == 2
    with pytest.raises(ConfigError, match=r"the request has \d+ bytes without its pictures; .* at most 2000"):
        read(rules, messages=[user("hi")] * 40)
    # Seen before anything is read.
    with pytest.raises(ConfigError, match="without its pictures"):
        rules.read(b"[" * 2001)


def test_equal_keys_are_equal_contexts():
    one = (Message("user", ("a", Picture.of(picture(0)))), Message("assistant", ("b",)))
    assert key_of(one) == key_of((Message("user", ("a",)), Message("user", one[0].parts[1:]), one[1]))
    assert key_of(one) != key_of((Message("user", ("a", Picture.of(picture(1)))), one[1]))
    assert key_of(one) != key_of((one[0], Message("user", ("b",))))
    assert data_url(picture(0)) != data_url(picture(1))
