"""Sampling points are looked up where the model lives, and given up while they wait or are computed."""

from __future__ import annotations

import threading

import pytest
from factories import picture
from tiny_looks import looking_generator

from mmi.serving.answering import Answerer
from mmi.serving.looking import Overlay
from mmi.serving.uploads import Picture, UploadFolders
from mmi.serving.visits import Visits

BEFORE = [Picture.of(picture(1)), "what is it?"]


@pytest.fixture
def answerer():
    answerer = Answerer(looking_generator())
    yield answerer
    answerer.engine.stop()


def show(answerer: Answerer, begun=lambda ticket: None) -> str | None:
    overlay = Overlay(answerer)
    return overlay.show(BEFORE, "a cat", "cat", overlay.layers[0], overlay.heads[0], "page", begun)


def test_a_word_is_looked_up(answerer):
    shown = show(answerer)
    assert shown is not None
    assert shown.startswith('<img src="data:image/png;base64,')


@pytest.mark.parametrize("part", ["visual_tokenizer", "language_model"])
def test_what_is_computed_stops_between_two_layers(answerer, part):
    network = answerer.generator.network
    tickets, passed = [], []
    layers = network.language_model.layers if part == "language_model" else [network.visual_tokenizer]

    def give_up(*_) -> None:
        passed.append(1)
        tickets[0].cancel()

    hook = layers[0].register_forward_hook(give_up)
    assert show(answerer, tickets.append) is None
    assert answerer.engine.wait_until_idle(10)
    hook.remove()
    assert len(passed) == 1
    assert answerer.measurements.total("answers", {"end": "left"}) == 1
    # Nothing of it stays in the network.
    assert show(answerer) is not None


def test_what_waits_is_given_up_at_once_when_its_visitor_stops_or_leaves(answerer, tmp_path):
    visits = Visits(UploadFolders(tmp_path), answerer.forget)
    let_go = threading.Event()
    answerer.engine.submit(lambda ticket: let_go.wait(20), lambda event: None)
    for end in (lambda: visits.of("page").stop(), lambda: visits.leave("page")):
        begun = threading.Event()

        def look(ticket, begun=begun) -> None:
            visits.of("page").look(ticket)
            begun.set()

        shown: list = []
        waiting = threading.Thread(
            target=lambda look=look, shown=shown: shown.append(show(answerer, look)), daemon=True
        )
        waiting.start()
        assert begun.wait(10)
        end()
        waiting.join(10)
        assert shown == [None]
    let_go.set()


def test_the_next_look_takes_the_place_of_the_one_before(answerer, tmp_path):
    visit = Visits(UploadFolders(tmp_path), answerer.forget).of("page")
    first, second = (answerer.engine.hold("page") for _ in range(2))
    visit.look(first)
    visit.look(second)
    assert (first.left, second.left) == (True, False)
    second.cancel()
