"""Data cards: every data set of the project has one, they are typed, and what is from memory is marked."""

from __future__ import annotations

from typing import get_args

import pytest

from mmi.config import ConfigError
from mmi.data.preparing.cards import find_card, read_cards
from mmi.data.sources.config import Format

PRETRAINING = {"mmc4", "obelics", "laion2b-en", "laion-coco", "relaion2b-en", "relaion-coco", "cc12m", "objects365"}
FINE_TUNING = {
    *("llava-mix-665k", "coco", "vqav2", "chartqa", "docvqa", "est-vqa", "infovqa", "st-vqa", "textcaps", "llavar"),
    *("ocr-vqa", "dvqa", "refcoco", "refcoco+", "refcocog", "ade20k", "vist", "pororosv", "flintstonessv"),
}
EVALUATION = {
    *("flickr30k", "nocaps", "image2paragraph", "localized-narratives", "okvqa", "textvqa", "vizwiz", "gqa", "visdial"),
}


def test_every_data_set_of_the_project_has_a_card():
    assert set(read_cards()) == PRETRAINING | FINE_TUNING | EVALUATION | {"own"}


@pytest.mark.parametrize("card", read_cards().values(), ids=read_cards().keys())
def test_cards_name_formats_that_are_read(card):
    assert card.format is None or card.format in get_args(Format)
    assert card.recipe != "files" or card.files
    assert all((card.licence, card.people, card.paper))


def test_a_told_card_marks_what_is_from_memory():
    lines = find_card("visdial").told().splitlines()
    assert "unverified" in next(line for line in lines if line.startswith("  counts:"))
    assert "unverified" not in next(line for line in lines if line.startswith("  licence:"))


def test_counts_are_those_of_the_protocol():
    assert find_card("refcoco").counts == {"val": 10834, "testA": 5657, "testB": 5095}
    assert find_card("pororosv").counts == {"train": 10191, "val": 2334, "test": 2208}
    assert find_card("flintstonessv").counts == {"train": 20132, "val": 2071, "test": 2309}


def test_an_unknown_card_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean mmc4"):
        find_card("mmc44")


WHOLE = "title: T\n  licence: L\n  recipe: pairs\n  size: S\n  availability: A\n  people: P\n  paper: N"
WRONG = {
    "missing field": (f"x:\n  {WHOLE}".replace("  people: P\n", ""), "people"),
    "unknown field": (f"x:\n  {WHOLE}\n  colour: red", "colour"),
    "wrong recipe": (f"x:\n  {WHOLE}".replace("pairs", "magic"), "recipe is magic"),
    "wrong type": (f"x:\n  {WHOLE}\n  counts: {{val: many}}", "counts is"),
    "text for a list": (f"x:\n  {WHOLE}\n  homes: here", "homes is 'here'; expected a list"),
    "unknown mark": (f"x:\n  {WHOLE}\n  unverified: [colour]", "unverified names colour"),
    "no card": ("x: 3", "data card x"),
    "no cards": ("[1]", "holds no data cards"),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_malformed_card_is_one_sentence(tmp_path, text, said):
    (tmp_path / "cards.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        read_cards(tmp_path / "cards.yaml")
