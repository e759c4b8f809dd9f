"""Labels decided per document equal the official rules applied to whole packed rows, wherever rows are cut."""

from __future__ import annotations

import random

import numpy as np
import plain_reference as plain
import pytest
from factories import byte_tokenizer, document
from safetensors.torch import load_file
from shared_data import shared_path

from mmi.data.encode import EncodingRules, encode_document
from mmi.data.pack import OfficialPacker, Piece, RowCut

TOKENIZER = byte_tokenizer()
SPECIAL = TOKENIZER.special
N_TOKENS = 3


def random_items(dice: random.Random) -> list[str | int]:
    """A pair, image or text first, or an interleaved document."""
    kind = dice.random()
    text = "".join(dice.choices("abc", k=dice.randint(1, 9)))
    if kind < 0.35:
        return [text, 1]
    if kind < 0.7:
        return [1, text]
    return [x for i in range(dice.randint(1, 3)) for x in dice.choice([[text, i], [i, text]])]


@pytest.mark.parametrize("rule_2", [False, True], ids=["without rule 2", "with rule 2"])
@pytest.mark.parametrize("cut", ["sample", "image"])
@pytest.mark.parametrize("seed", range(8))
def test_labels_of_packed_rows_are_those_of_the_official_rules(seed: int, cut: RowCut, rule_2: bool) -> None:
    dice = random.Random(seed)
    rules = EncodingRules(tokens_per_image=N_TOKENS, ignore_caption_before_image=rule_2)
    encoded = [encode_document(document(*random_items(dice)), TOKENIZER, rules) for _ in range(30)]
    packer = OfficialPacker(24, 3, cut, SPECIAL)
    stream = iter([Piece(each, (0, i, 0)) for i, each in enumerate(encoded)])
    mid_document = 0
    while (row := packer.next_row(stream)) is not None:
        ids = np.concatenate([piece.document.ids for piece in row]).tolist()
        labels = np.concatenate([piece.document.labels for piece in row]).tolist()
        expected = plain.shifted_labels(
            ids,
            [1] * len(ids),
            bos=SPECIAL.bos,
            pad=SPECIAL.pad,
            soi=SPECIAL.image_start,
            image=SPECIAL.image,
            offset=0,
            rule_2=rule_2,
        )
        assert labels[1:] == expected
        mid_document += ids[0] != SPECIAL.bos
    assert mid_document > 2


@pytest.mark.parametrize(
    ("case", "offsets", "rule_2"),
    [("plain", (0, 0), False), ("prompt_offset", (5, 2), False), ("skip_text_without_image", (0, 0), True)],
    ids=["rules 3 to 7", "rule 1", "rule 2"],
)
def test_the_plain_rules_are_those_of_the_official_code(case: str, offsets: tuple[int, int], rule_2: bool) -> None:
    golden = load_file(shared_path("golden/d_multimodal_llm.safetensors"))
    for row in range(2):
        ids, mask = golden["text_ids"][row].tolist(), golden["attention_mask"][row].tolist()
        found = plain.shifted_labels(ids, mask, bos=1, pad=95, soi=96, image=97, offset=offsets[row], rule_2=rule_2)
        assert found == golden[f"labels_{case}"][row].tolist()
