"""A session gives what reading everything again gives, computes nothing twice, and is never left in between."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from factories import byte_tokenizer, picture, tiny_config
from PIL import Image
from told_sessions import DRAW, SAMPLED, SETTINGS, assert_same, story, tiny_generator

from mmi.inference import Generator
from mmi.models.build import build_network
from mmi.models.generation import GenerationSettings, InterleavedState
from mmi.models.image_sampling import ImageSampling
from mmi.models.text_decoding import TextDecoding
from mmi.serving.session import ContextFullError, GenerationCancelled, Session, SessionError


@pytest.fixture(scope="module")
def generator() -> Generator:
    return tiny_generator()


def read_again(session: Session) -> InterleavedState:
    """Read the ids and pictures of a session from the start, in one pass."""
    ids = session._state.language.text_ids
    starts = torch.tensor(session._state.image_starts)
    pictures = [item for item in session.items[: session._n_read] if not item.is_text]
    from mmi.serving.stretch import encoder_pixels

    state = InterleavedState(session.generator.network)
    views = torch.stack([encoder_pixels(session.generator, item) for item in pictures])
    state.read(ids, None, views, torch.zeros_like(starts), starts)
    return state


def test_going_on_gives_the_pieces_of_a_generator(generator):
    prompt = ["once", "upon", picture(1), "then "]
    session = Session(generator)
    for item in prompt:
        session.append(item)
    assert_same(list(session.go_on(SETTINGS)), generator.generate(prompt, SETTINGS))


def test_sampled_text_is_that_of_a_generator(generator):
    settings = GenerationSettings(text=SAMPLED, image=DRAW, max_images=1, min_images=1, seed=5)
    session = Session(generator, settings)
    session.append("once")
    assert_same(list(session.go_on()), generator.generate(["once"], settings))


def test_what_a_session_holds_equals_reading_everything_from_the_start(generator):
    session = story(Session(generator, SETTINGS))
    again = read_again(session)
    torch.testing.assert_close(session._state.language.hidden_states, again.language.hidden_states)
    for mine, theirs in zip(session._state.language.values, again.language.values, strict=True):
        torch.testing.assert_close(mine.value, theirs.value)
    place = torch.tensor([session._state.image_starts[-1]])
    target = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    losses = [s.image_losses(place * 0, place, target, [1]) for s in (session._state, again)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-5)


def test_nothing_is_computed_twice(generator):
    """Every token passes each layer once, every picture the encoder once, and a projection at most once."""
    network = generator.network
    layers = [branch.attention.value_proj for branch in network.language_model.branches]
    modules = [module.attention.value_proj for module in network.image_decoder.unet.spatial_mmfs]
    passed = Counter()
    watched = {network.visual_tokenizer: "pictures", network.language_model.layers[0]: "tokens"}
    watched |= dict.fromkeys(layers[:1], "values") | dict.fromkeys(modules[:1], "decoder values")

    def count(module, inputs, _):
        passed[watched[module]] += inputs[0].shape[1 if watched[module] == "tokens" else 0]

    hooks = [module.register_forward_hook(count) for module in watched]
    session = story(Session(generator, SETTINGS))
    session.ask_image()
    session.append("end")
    session.ask_text()
    for hook in hooks:
        hook.remove()
    assert passed["tokens"] == session._state.language.text_ids.shape[1]
    assert passed["pictures"] == 3
    assert passed["values"] == 3
    # Each picture looks at the nearest before it: the second at the given one; the first and third are never looked at.
    assert passed["decoder values"] == 1


def test_texts_that_are_appended_apart_are_tokenized_as_one(generator):
    apart, together = Session(generator, SETTINGS), Session(generator, SETTINGS)
    apart.append("once")
    apart.append("upon a time ")
    apart.append(picture(1))
    apart.append(" there")
    together.append("once upon a time")
    together.append(picture(1))
    together.append("there")
    assert apart.ask_text() == together.ask_text()
    assert apart._state.language.text_ids.tolist() == together._state.language.text_ids.tolist()


def test_a_text_behind_a_written_one_is_joined_by_a_space(generator):
    session = Session(generator, SETTINGS)
    session.append("once")
    session.ask_text(TextDecoding(max_new_tokens=3, min_new_tokens=3, n_beams=1))
    session.append("more")
    session.ask_text()
    ids = session._state.language.text_ids[0].tolist()
    assert generator.tokenizer.encode(" more") == ids[1 + 4 + 3 : 1 + 4 + 3 + 5]


class Scripted:
    """Stands in for decoding: writes given ids, as a network would that wants to."""

    def __init__(self, monkeypatch, ids: list[int]) -> None:
        def write(state, settings, *, may_end=True, generator=None, on_step=None):
            for i in ids[:-1]:
                on_step([i])
                state.read(torch.tensor([[i]]))
            on_step(ids[-1:])
            return [ids]

        monkeypatch.setattr(InterleavedState, "write", write)


def test_a_new_turn_stands_behind_the_end_of_an_answer_and_a_picture_does_not(generator, monkeypatch):
    special = generator.tokenizer.special
    Scripted(monkeypatch, [*generator.tokenizer.encode("yes"), special.eos])
    session = Session(generator, SETTINGS)
    session.append("is it?")
    assert session.ask_text() == "yes"
    assert session.ended
    other = session.fork()
    session.append("sure?")
    session.ask_text()
    assert session.items[1].closed
    encode = generator.tokenizer.encode
    expected = [special.bos, *encode("is it?"), *encode("yes"), special.eos, *encode("sure?"), *encode("yes")]
    assert session._state.language.text_ids[0].tolist() == expected
    other.ask_image()
    assert special.eos not in other._state.language.text_ids[0].tolist()


def test_an_image_start_is_drawn_or_forgotten(generator, monkeypatch):
    special = generator.tokenizer.special
    Scripted(monkeypatch, [*generator.tokenizer.encode("see"), special.image_start])
    session = Session(generator, SETTINGS)
    session.append("look")
    assert session.ask_text() == "see"
    assert session.expects_image
    other = session.fork()
    session.ask_image()
    assert session._state.language.text_ids[0].tolist().count(special.image_start) == 1
    other.append("no")
    assert not other.expects_image
    other.ask_text()
    assert special.image_start not in other._state.language.text_ids[0].tolist()


def test_told_text_is_the_text(generator):
    session = Session(generator, SETTINGS)
    session.append("once")
    told: list[str] = []
    text = session.ask_text(TextDecoding(max_new_tokens=20, min_new_tokens=20, n_beams=1), on_text=told.append)
    assert "".join(told) == text
    assert all(told)
    beams: list[str] = []
    assert "".join([session.ask_text(TextDecoding(max_new_tokens=5, n_beams=2, min_new_tokens=0), beams.append)]) == (
        "".join(beams)
    )


def test_a_fork_goes_on_alone_and_shares_what_was_computed(generator):
    session = story(Session(generator, SETTINGS))
    other = session.fork()
    mine, theirs = (s._state.language._cache.layers[0].keys for s in (session, other))
    assert mine.data_ptr() == theirs.data_ptr()
    before = session._state.language.hidden_states.clone()
    other.append("elsewhere")
    elsewhere = other.ask_text(SAMPLED)
    other.ask_image()
    assert len(session.items) == len(other.items) - 3 + (not elsewhere)
    torch.testing.assert_close(session._state.language.hidden_states, before, rtol=0, atol=0)
    alone = story(Session(generator, SETTINGS))
    assert_same([session.ask_image(), session.ask_text(SAMPLED)], [alone.ask_image(), alone.ask_text(SAMPLED)])


@pytest.mark.parametrize("after", [0, 1, 3], ids=["at once", "after one step", "after three steps"])
@pytest.mark.parametrize("beams", [1, 2], ids=["sampled", "beams"])
def test_a_cancelled_text_leaves_everything_as_it_was(generator, after, beams):
    session, other = (story(Session(generator, SETTINGS)) for _ in range(2))
    decoding = SAMPLED if beams == 1 else TextDecoding(max_new_tokens=6, min_new_tokens=5, n_beams=2)
    asked = iter(range(100))
    with pytest.raises(GenerationCancelled):
        session.ask_text(decoding, cancelled=lambda: next(asked) >= after)
    assert next(asked) == after + 1
    assert session.items[-1] == other.items[-1]
    assert session.n_tokens == other.n_tokens
    assert_same([session.ask_text(SAMPLED), session.ask_image()], [other.ask_text(SAMPLED), other.ask_image()])


@pytest.mark.parametrize("wants", ["text", "picture"])
@pytest.mark.parametrize("fails", ["at once", "on the way", "for lack of room"])
def test_going_on_in_vain_leaves_the_random_numbers_as_they_were(generator, wants, fails):
    session, other = (story(Session(generator, SETTINGS)) for _ in range(2))
    for each in (session, other):
        each.ask_text(SAMPLED)
        each._expects_image = wants == "picture"
    asked = iter(range(100))
    after = {"at once": 0, "on the way": 2, "for lack of room": 100}[fails]
    if fails == "for lack of room":
        # More is appended than there is room for; of the copy that went on in vain nothing may be shared.
        session, full = session.fork(), session
        full.append("a" * 300)
        full._expects_image = wants == "picture"
    else:
        full = session
    settings = GenerationSettings(text=SAMPLED, image=DRAW, max_images=2, min_images=1, seed=77)
    state = full._random.get_state()
    with pytest.raises((GenerationCancelled, ContextFullError)):
        list(full.go_on(settings, cancelled=lambda: next(asked) >= after))
    assert torch.equal(full._random.get_state(), state)
    assert_same([session.ask_text(SAMPLED)], [other.ask_text(SAMPLED)])


def test_a_released_session_goes_on_as_if_nothing_had_been_given_back(generator):
    session, other = (story(Session(generator, SETTINGS)) for _ in range(2))
    for request in ("ask_text", "ask_image", "ask_image", "ask_text"):
        session.release()
        session.release()
        assert session._state.language.text_ids.shape[1] == 0
        assert session.n_tokens == other.n_tokens
        assert_same([getattr(session, request)()], [getattr(other, request)()])
    assert session.token_ids == other.token_ids
    torch.testing.assert_close(session._state.language.hidden_states, other._state.language.hidden_states)


def test_a_cancelled_picture_stops_between_steps_and_leaves_everything_as_it_was(generator):
    session, other = (story(Session(generator, SETTINGS)) for _ in range(2))
    steps: list[int] = []
    with pytest.raises(GenerationCancelled):
        session.ask_image(
            ImageSampling(n_steps=9), progress=lambda done, _: steps.append(done), cancelled=lambda: len(steps) == 2
        )
    assert steps == [1, 2]
    assert_same([session.ask_image()], [other.ask_image()])
    assert [i.seed for i in session.items] == [i.seed for i in other.items]


def test_pictures_are_seeded_in_their_order(generator):
    session = Session(generator, SETTINGS)
    session.append("a")
    for _ in range(2):
        session.ask_image()
    session.ask_image(seed=40)
    assert [i.seed for i in session.items if not i.is_text] == [3, 4, 40]
    assert session.n_drawn == 3


@pytest.mark.parametrize("items", [(), ("x",), ("x", 1)], ids=["nothing", "a text", "a picture last"])
def test_any_beginning_can_be_gone_on_from(generator, items):
    session = Session(generator, SETTINGS)
    for item in items:
        session.append(item if isinstance(item, str) else picture(item))
    session.ask_text()
    assert isinstance(session.ask_image(), Image.Image)


def test_a_full_context_is_one_sentence_and_nothing_is_lost(generator):
    session = Session(generator, SETTINGS)
    session.append("a" * 250)
    text = session.ask_text(TextDecoding(max_new_tokens=90, min_new_tokens=80, n_beams=1))
    assert session.n_tokens == session.max_tokens == 256  # cut where the context ends
    with pytest.raises(ContextFullError, match=r"the context is full: 256 tokens and 1 more .* has 256 positions"):
        session.ask_text()
    with pytest.raises(ContextFullError, match="257 tokens and 3 more"):
        session.ask_image()
    assert [i.content for i in session.items] == ["a" * 250, *([text] if text else [])]


def test_a_context_too_long_for_the_image_decoder_is_one_sentence():
    network = build_network(tiny_config(decoder={"n_context_positions": 20}))
    session = Session(Generator(network, byte_tokenizer()), SETTINGS)
    session.append("a" * 30)
    with pytest.raises(ContextFullError, match=r"32 tokens of context, but image_decoder\.n_context_positions is 20"):
        session.ask_image()
    assert isinstance(session.ask_text(), str)


@pytest.mark.parametrize(("item", "sentence"), [("", "the text is empty"), (7, "a int was appended")])
def test_what_is_neither_text_nor_picture_is_refused(generator, item, sentence):
    session = Session(generator)
    with pytest.raises(SessionError, match=sentence):
        session.append(item)
    assert session.items == ()
