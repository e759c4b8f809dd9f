"""A word or a position means one token, of the answer first."""

from __future__ import annotations

import pytest
from factories import byte_tokenizer

from mmi.config import ConfigError
from mmi.inspection.words import find_token, tokens_of

TOKENIZER = byte_tokenizer()
BOI, IMAGE = TOKENIZER.special.image_start, TOKENIZER.special.image
PROMPT = [1, BOI, IMAGE, IMAGE, *TOKENIZER.encode("a red cat, a Red hat: "), BOI, IMAGE, IMAGE]
TOKENS = tokens_of([*PROMPT, *TOKENIZER.encode("cat é"), 2], len(PROMPT), TOKENIZER)


def test_every_token_is_named():
    assert [t.position for t in TOKENS] == list(range(len(TOKENS)))
    kinds = [(t.kind, t.picture) for t in TOKENS]
    assert kinds[:4] == [("start", 0), ("picture start", 1), ("picture", 1), ("picture", 1)]
    assert kinds[len(PROMPT) - 3 : len(PROMPT)] == [("picture start", 2), ("picture", 2), ("picture", 2)]
    assert "".join(t.text for t in TOKENS if not t.is_answer) == "a red cat, a Red hat: "
    # The two bytes of one letter: the letter stands where it is finished.
    assert [t.text for t in TOKENS if t.is_answer] == ["c", "a", "t", " ", "", "é", ""]
    assert TOKENS[-1].name == "the end"


def test_a_word_of_the_answer_is_looked_for_where_its_first_token_is_chosen():
    found = find_token(TOKENS, "cat")
    assert found.is_answer
    assert found.text == "c"
    assert found.query == found.position - 1 == len(PROMPT) - 1
    assert found.moment == 'choosing "c"'


def test_a_word_of_the_prompt_looks_where_its_last_token_was_read():
    red, other = find_token(TOKENS, "red"), find_token(TOKENS, "Red")
    assert red.query == red.position == 4 + "a red".index("d")
    assert other.position == 4 + "a red cat, a Red".rindex("d")
    assert find_token(TOKENS, "HAT").moment == 'reading "t"'  # capital letters do not count where nothing else is found


def test_positions_and_the_default():
    assert find_token(TOKENS, "1") is find_token(TOKENS, 1) is TOKENS[1]
    assert find_token(TOKENS, -1) is TOKENS[-1]
    assert find_token(TOKENS) is TOKENS[len(PROMPT)]
    assert find_token(TOKENS[: len(PROMPT)]) is TOKENS[len(PROMPT) - 1]


@pytest.mark.parametrize(
    ("wanted", "said"), [("bat", 'the word "bat" is .* hat'), (99, "no token 99; .* counted from")]
)
def test_what_is_not_there_is_one_sentence(wanted, said):
    with pytest.raises(ConfigError, match=said):
        find_token(TOKENS, wanted)
