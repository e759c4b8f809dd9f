"""What is kept of conversations is bounded by the memory it holds, and what went on makes room."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from factories import picture
from serving.served import SETTINGS, tiny_generator

from mmi.models.text_decoding import TextDecoding
from mmi.serving.conversation import Message, SessionStore, key_of
from mmi.serving.held_memory import bytes_of, held_by
from mmi.serving.session import Session
from mmi.serving.uploads import Picture


@pytest.fixture(scope="module")
def generator():
    return tiny_generator()


def turn(store: SessionStore, messages: list[Message]) -> Session:
    """Answer a conversation in words; the answer becomes part of it."""
    session, _ = store.open(messages)
    text = session.ask_text(SETTINGS.text)
    messages.append(Message("assistant", (text,)))
    store.keep(messages, session)
    return session


def asked(text: str, *pictures: int) -> list[Message]:
    return [Message("user", (*(Picture.of(picture(n)) for n in pictures), text))]


def test_memory_is_that_of_keys_values_hidden_states_pyramids_and_projections(generator):
    session = Session(generator, SETTINGS)
    for n in (1, 2):
        session.append(picture(n))
    session.append("once")
    session.ask_text()
    session.ask_image()
    language = session._state.language
    told = [*session._state._pyramid, language.hidden_states, *(v.value for v in language.values)]
    for layer in language._cache.layers:
        told += [layer.keys, layer.values]
    told += [v.value for values in session._state._decoder_values.values() for v in values]
    least = sum(tensor.nbytes for tensor in told)
    held = bytes_of([held_by(session)])
    assert least < held < 1.1 * least
    # A fork holds what its origin holds, and nothing besides.
    assert bytes_of([held_by(session), held_by(session.fork())]) == held


def test_a_view_counts_with_all_it_keeps_alive():
    assert bytes_of([held_by([torch.zeros(1000)[:1]])]) == 4000


def test_kept_sessions_hold_no_more_than_they_may(generator):
    store = SessionStore(generator, 100, 10**9)
    turn(store, asked("once", 1))
    one = store.n_bytes
    small = SessionStore(generator, 100, int(2.5 * one))
    for n in range(5):
        turn(small, asked("once", n))
        assert small.n_bytes <= 2.5 * one
    assert len(small) == 2
    tiny = SessionStore(generator, 100, one // 2)
    turn(tiny, asked("once", 1))
    assert (len(tiny), tiny.n_bytes) == (0, 0)


def test_of_a_conversation_that_goes_on_only_its_end_and_the_state_before_stay(generator):
    store = SessionStore(generator, 100, 10**9)
    other = asked("another", 2)
    turn(store, other)
    messages, sessions = asked("once", 1), []
    for n in range(4):
        sessions.append(weakref.ref(turn(store, messages)))
        messages.append(Message("user", (f"more {n}",)))
    gc.collect()
    assert [session() is None for session in sessions] == [True, True, False, False]
    assert len(store) == 3
    # The last answer may be asked for again, and another conversation is not touched.
    assert store.open(messages[:-2])[1] > 0
    assert store.open([*other, Message("user", ("so",))])[1] > 0


def test_a_state_that_two_conversations_went_on_from_stays_while_one_may_come_back_to_it(generator):
    store = SessionStore(generator, 100, 10**9)
    common = asked("once")
    turn(store, common)
    one, two = ([*common, Message("user", (text,))] for text in ("this", "that"))
    turn(store, one)
    turn(store, two)
    one.append(Message("user", ("and",)))
    turn(store, one)
    assert {key for _, key in store._kept} == {key_of(m) for m in (common, two, one[:-2], one)}


def test_what_one_client_asked_is_never_used_for_another(generator):
    store = SessionStore(generator, 100, 10**9)
    messages = asked("once", 1)
    session, _ = store.open(messages, "one")
    answer = Message("assistant", (session.ask_text(SETTINGS.text),))
    store.keep([*messages, answer], session, "one")
    again = [*messages, answer, Message("user", ("more",))]
    assert store.open(again, "one")[1] > 0
    assert store.open(again, "two")[1] == 0
    session, _ = store.open(messages, "two")
    session.ask_text(SETTINGS.text)
    store.keep([*messages, answer], session, "two")
    store.forget("one")
    assert (len(store), store.open(again, "one")[1]) == (1, 0)
    assert store.open(again, "two")[1] > 0


def test_nothing_is_kept_for_who_has_left(generator):
    store = SessionStore(generator, 100, 10**9)
    session, _ = store.open(asked("once"), "one")
    store.keep(asked("once"), session, "one", lambda: True)
    assert len(store) == 0


@pytest.mark.parametrize("ending", ["text", "picture"])
def test_tokens_that_are_called_reused_are_those_that_are_not_read_again(generator, ending):
    store = SessionStore(generator, 100, 10**9)
    messages = asked("once", 1)
    session, reused = store.open(messages)
    assert reused == 0
    answer = session.ask_text(SETTINGS.text) if ending == "text" else Picture.of(session.ask_image(SETTINGS.image))
    store.keep([*messages, Message("assistant", (answer,))], session)
    session, reused = store.open([*messages, Message("assistant", (answer,)), Message("user", ("then",))])
    n_prompt = session.n_tokens
    passed: list[int] = []
    layer = generator.network.language_model.layers[0]
    hook = layer.register_forward_hook(lambda module, inputs, _: passed.append(inputs[0].shape[1]))
    session.ask_text(TextDecoding(max_new_tokens=1, min_new_tokens=1, n_beams=1))
    hook.remove()
    assert 0 < reused < n_prompt
    assert sum(passed) == n_prompt - reused
