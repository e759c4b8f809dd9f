"""What the page's buttons call, without a browser: answers with their records, what is held back, looks, leaving."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from factories import picture
from serving.served import SETTINGS, tiny_generator

from mmi.commands.png_metadata import read_record
from mmi.serving.answering import Answerer
from mmi.serving.events import WITHHELD
from mmi.serving.page_app import private_folder
from mmi.serving.uploads import Picture

pytest.importorskip("gradio", reason='the page needs gradio: pip install "mmi[demo]"', exc_type=ImportError)
HERE = SimpleNamespace(session_hash="page")


@pytest.fixture(params=[False, True], ids=["shown", "held back"])
def called(request):
    """A page, and whether its pictures are held back."""
    with private_folder() as folder:
        from mmi.serving.page import Page, PageFacts
        from mmi.serving.pngs import Provenance
        from mmi.serving.uploads import UploadFolders
        from mmi.serving.visits import Visits

        answerer = Answerer(tiny_generator(), is_unsafe=(lambda image: True) if request.param else None)
        visits = Visits(UploadFolders(folder), answerer.forget)
        provenance = Provenance(answerer.generator, embed_prompt=True)
        yield Page(answerer, SETTINGS, visits, provenance, PageFacts("tiny", "")), visits, answerer, request.param
        answerer.engine.stop()


def send(page, text: str) -> str:
    """Say something with one picture to draw; return the conversation at the end, as JSON."""
    states = list(page._send(text, 1, 1, 7, 2.0, 2, 4, HERE))
    return json.dumps(states[-1][0], default=lambda part: part.value["path"])


def test_an_answer_is_shown_with_its_record_or_the_sentence_in_its_place(called):
    page, visits, _, is_withheld = called
    visit = visits.of("page")
    visit.pending.append(Picture.of(picture(1)))
    shown = send(page, "once")
    assert (WITHHELD in shown) is is_withheld
    assert len(visit.records) == (not is_withheld)
    for digest, record in visit.records.items():
        assert (record.seed, record.prompt and record.prompt[1]) == (7, "once")
        # What can be saved from the page is the picture as it was drawn.
        assert read_record(visit.shown[digest]) == record
    shown = send(page, "then")
    assert shown.count(WITHHELD) == 2 * is_withheld


def test_the_state_of_a_page_is_kept_while_it_is_open(called):
    page, visits, answerer, is_withheld = called
    send(page, "once")
    assert len(answerer._sessions) == (not is_withheld)
    page._left(HERE)
    assert (len(answerer._sessions), len(visits)) == (0, 0)


def test_a_look_is_shown_and_can_be_stopped(called):
    page, visits, answerer, _ = called
    visits.of("page").pending.append(Picture.of(picture(1)))
    send(page, "once")
    layer, head = page._overlay.layers[0], page._overlay.heads[0]
    assert page._look(None, layer, head, HERE)[0].startswith("<img")
    encoder = answerer.generator.network.visual_tokenizer
    hook = encoder.register_forward_hook(lambda *_: page._stop(HERE) and None)
    shown, status = page._look(None, layer, head, HERE)
    hook.remove()
    assert shown == ""
    assert "Stopped." in status
