"""The page of looks: whole, self-contained, and switched by rules that find what they switch."""

from __future__ import annotations

import re

import pytest
from html_page import Page, is_usable, is_whole, needs_nothing
from tiny_looks import DRAWING, PROMPT, looking_generator

from mmi.inspection import look, look_from_pixel
from mmi.inspection.looks import mass


@pytest.fixture(scope="module")
def model():
    return looking_generator()


@pytest.fixture(scope="module")
def told(model):
    return look(model, PROMPT, answer="<b>no</b>").with_facts({"question": "a < b?"})


@pytest.fixture(scope="module")
def source(told):
    return told.page("Looks & more")


@pytest.fixture(scope="module")
def drawn(model):
    return look_from_pixel(model, PROMPT, (28, 3), settings=DRAWING)


def test_pages_need_nothing_and_can_be_used_by_everybody(source, drawn):
    for text in (source, drawn.page()):
        page = Page(text)
        is_whole(page)
        needs_nothing(page)
        is_usable(page)
        assert all(link["href"].startswith(("#", "data:image/png")) for link in page.all("use") + page.all("image"))


def test_words_of_the_document_stay_words(source):
    page = Page(source)
    assert "<b>no</b>" in page.text
    assert "a < b?" in page.text
    assert not [a for a in page.all("b") if a.get("class")]
    assert page.headings[0] == (1, "Looks & more")
    assert "the model is choosing" in page.text


def test_every_button_switches_something_that_is_there(source, drawn):
    for text in (source, drawn.page()):
        page = Page(text)
        classes = {name for _, a in page.elements for name in a.get("class", "").split()}
        ids = {a["id"] for a in page.all("input")}
        rules = re.findall(r"^body:has\(.*$", text, re.MULTILINE)
        assert ids == {i for rule in rules for i in re.findall(r"#([a-z]+-\w+):checked", rule)}
        for rule in rules:
            for name in re.findall(r"\.([a-z][\w-]*)", rule.rpartition(":checked)")[2]):
                assert name in classes, rule
        for group in {a["name"] for a in page.all("input")}:
            assert sum("checked" in a for a in page.all("input") if a["name"] == group) == 1


def test_buttons_are_radio_buttons_with_words(source):
    page = Page(source)
    named = {a["for"] for a in page.all("label")}
    assert named == {a["id"] for a in page.all("input")}
    assert all(a["type"] == "radio" for a in page.all("input"))
    assert len(page.all("legend")) == len(page.all("fieldset")) == 4


def test_one_heat_map_for_each_choice_of_head_and_level(source, told):
    page = Page(source)
    heats = [a["class"] for a in page.all("image") if "heat" in a.get("class", "")]
    per_panel = 5 * 4  # four heads and all, three levels and all
    assert len(heats) == len(told.records) * 3 * per_panel
    assert set(heats) == {f"heat h{h} l{n}" for h in ("all", 0, 1, 2, 3) for n in ("all", 1, 2, 3)}


def test_the_table_holds_every_weight(source, told):
    shown = Page(source).text
    for one in told.records:
        for share in mass(one).flatten().tolist():
            assert f"{100 * share:.1f}%" in shown
        assert f"{100 * float(one.null.mean()):.1f}%" in shown


def test_pages_of_wide_networks_stay_small():
    wide = looking_generator(language={"n_heads": 32, "n_points": 64})
    looks = look(wide, PROMPT, answer="a")
    text = looks.page()
    assert len(text) < 6e6
    assert 'class="heat h31' not in text
    assert 'class="heat hall lall"' in text
    assert 'id="head-31"' in text


def test_saving_writes_the_page_and_a_picture_per_layer(told, tmp_path):
    page = told.save(tmp_path / "looks")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(p.name for p in page.parent.iterdir()) == ["index.html", "layer-0.png", "layer-2.png"]
