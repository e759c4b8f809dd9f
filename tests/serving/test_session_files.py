"""A session that was saved goes on as if it had never left memory; what does not fit is refused in one sentence."""

from __future__ import annotations

import json
import os

import pytest
import torch
from factories import byte_tokenizer, picture, tiny_config
from safetensors.torch import load_file, save_file
from told_sessions import DRAW, SAMPLED, SETTINGS, assert_same, story, tiny_generator

from mmi.inference import Generator
from mmi.models.build import build_network
from mmi.serving.session import Session, SessionError


@pytest.fixture(scope="module")
def generator() -> Generator:
    return tiny_generator()


def nothing(session: Session) -> None:
    pass


def only_appended(session: Session) -> None:
    session.append("x")
    session.append(picture(4, 50))


def a_text_last(session: Session) -> None:
    story(session)


def a_drawn_picture_last(session: Session) -> None:
    story(session)
    session.ask_image()


def appended_behind_a_drawn_picture(session: Session) -> None:
    a_drawn_picture_last(session)
    session.append("so")


@pytest.mark.parametrize(
    "begin", [nothing, only_appended, a_text_last, a_drawn_picture_last, appended_behind_a_drawn_picture]
)
def test_a_restored_session_goes_on_with_the_same_pieces(generator, tmp_path, begin):
    session = Session(generator, SETTINGS)
    begin(session)
    session.save(tmp_path / "s")
    restored = Session.restore(generator, tmp_path / "s")
    assert_same([i.content for i in session.items], [i.content for i in restored.items])
    assert [(i.generated, i.seed, i.closed) for i in session.items] == [
        (i.generated, i.seed, i.closed) for i in restored.items
    ]
    assert restored.settings == SETTINGS
    pieces = []
    for each in (session, restored):
        each.append("and")
        pieces.append([each.ask_text(SAMPLED), each.ask_image(DRAW), each.ask_text()])
    assert_same(*pieces)
    assert session._state.language.text_ids.tolist() == restored._state.language.text_ids.tolist()
    torch.testing.assert_close(
        session._state.language.hidden_states, restored._state.language.hidden_states, rtol=1e-4, atol=1e-5
    )


def test_what_the_model_wanted_next_is_kept(generator, tmp_path):
    session = story(Session(generator, SETTINGS))
    session._expects_image, session._ended, session._unread = True, False, []
    session.save(tmp_path / "s")
    assert Session.restore(generator, tmp_path / "s").expects_image


def test_saving_again_replaces_and_other_folders_are_left_alone(generator, tmp_path):
    session = Session(generator, SETTINGS)
    session.append("one")
    session.save(tmp_path / "s")
    session.append("two")
    session.save(tmp_path / "s")
    assert len(Session.restore(generator, tmp_path / "s").items) == 2
    assert sorted(os.listdir(tmp_path)) == ["s"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("...")
    with pytest.raises(SessionError, match="mine holds something else than a session"):
        session.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").is_file()


def test_a_folder_with_anything_else_in_it_is_never_replaced(generator, tmp_path):
    session = Session(generator, SETTINGS)
    session.append("x")
    mixed, foreign, beside = tmp_path / "mixed", tmp_path / "foreign", tmp_path / "s.tmp"
    session.save(mixed)
    (mixed / "thesis.txt").write_text("mine")
    foreign.mkdir()
    (foreign / "session.json").write_text('{"of": "another program"}')
    beside.mkdir()
    (beside / "mine.txt").write_text("mine")
    for folder in (mixed, foreign):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(SessionError, match="holds something else than a session"):
            session.save(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    session.save(tmp_path / "s")
    session.save(tmp_path / "s")
    assert (beside / "mine.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"mixed", "foreign", "s.tmp", "s"}


def change(folder, **entries) -> None:
    record = json.loads((folder / "session.json").read_text())
    (folder / "session.json").write_text(json.dumps(record | entries))


def another_version(folder):
    change(folder, schema_version=9)


def no_json(folder):
    (folder / "session.json").write_text("{")


def cut_tensors(folder):
    path = folder / "session.safetensors"
    path.write_bytes(path.read_bytes()[:-50])


def no_tensors(folder):
    (folder / "session.safetensors").unlink()


def a_picture_of_floats(folder):
    tensors = {
        k: v.float() if k.startswith("picture") else v for k, v in load_file(folder / "session.safetensors").items()
    }
    save_file(tensors, folder / "session.safetensors")


def a_strange_id(folder):
    change(folder, ids=[1, 99999])


def a_picture_at_the_wrong_place(folder):
    change(folder, image_starts=[0, 1])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (another_version, "schema_version 9"),
        (no_json, "is damaged"),
        (cut_tensors, "is damaged"),
        (no_tensors, "is damaged"),
        (a_picture_of_floats, "no uint8"),
        (a_strange_id, "an id is none of the vocabulary"),
        (a_picture_at_the_wrong_place, "no picture begins at token 0"),
    ],
)
def test_damaged_files_are_one_sentence(generator, tmp_path, damage, sentence):
    story(Session(generator, SETTINGS)).save(tmp_path / "s")
    damage(tmp_path / "s")
    with pytest.raises(SessionError, match=sentence):
        Session.restore(generator, tmp_path / "s")


def test_a_folder_without_a_session_and_another_network_are_refused(generator, tmp_path):
    with pytest.raises(SessionError, match=r"holds no session; expected session.json"):
        Session.restore(generator, tmp_path)
    story(Session(generator, SETTINGS)).save(tmp_path / "s")
    other = Generator(generator.network, generator.tokenizer, model_hash="b" * 64)
    with pytest.raises(SessionError, match="its weights is aaaaaaaaaaaa, here it is bbbbbbbbbbbb"):
        Session.restore(other, tmp_path / "s")
    wider = Generator(build_network(tiny_config(n_tokens=5)), byte_tokenizer())
    with pytest.raises(SessionError, match="its tokens_per_image is 3, here it is 5"):
        Session.restore(wider, tmp_path / "s")
