"""How the VQA toolkits normalise an answer: punctuation, number words, articles, contractions.

The steps and their oddities are those of GT-Vision-Lab/VQA ``vqaEval.py``, the M4C evaluator and the VizWiz toolkit.
"""

from __future__ import annotations

import re
from functools import lru_cache

ARTICLES = frozenset({"a", "an", "the"})

NUMBER_WORDS = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'

# The toolkit's pattern means to keep a full stop after a digit, but its look-behind is mistyped, so that only a digit
# that follows keeps it.
_FULL_STOP = re.compile(r"\.(?!\d)")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")

# ``re.UNICODE`` stands where the count of a substitution belongs: its value is 32.
_MAX_FULL_STOPS = 32

_REMEMBERED = 1 << 16
"""Texts whose form is kept: people give the same short answers over and over, and every rule asks again."""

_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _contractions() -> dict[str, str]:
    """Map each spelling that lacks one apostrophe to the full one; the toolkit's one reversed entry is the last."""
    table = {}
    for word in _CONTRACTED.split():
        for place, letter in enumerate(word):
            if letter == "'":
                table[word[:place] + word[place + 1 :]] = word
    return table | {"somebody'd": "somebodyd"}


CONTRACTIONS = _contractions()

# The VizWiz toolkit keeps an older table that was typeset: all but a few of its apostrophes are curly, and people do
# not type those, so these entries turn a right answer into a wrong one.
_STRAIGHT_IN_VIZWIZ = {"ain't", "aren't", "can't", "could've", "couldn't", "we've", "where's", "who've"}
_STRAIGHT_KEYS_IN_VIZWIZ = {"couldn'tve", "hadn'tve"}


def _vizwiz_contractions() -> dict[str, str]:
    def curly(word: str, straight: set[str]) -> str:
        return word if word in straight else word.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}")

    return {
        curly(key, _STRAIGHT_KEYS_IN_VIZWIZ): curly(word, _STRAIGHT_IN_VIZWIZ) for key, word in CONTRACTIONS.items()
    }


VIZWIZ_CONTRACTIONS = _vizwiz_contractions()


def one_line(text: str) -> str:
    """Return the text with line breaks and tabs as spaces, stripped."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=_REMEMBERED)
def normalise(text: str) -> str:
    """Normalise as the VQA v2 toolkit does; ``text`` is one line.

    Example:
        >>> normalise("The two cats, dont run."), normalise("1,000"), normalise("7.5"), normalise("e-mail")
        ("2 cats don't run", '1000', '7.5', 'e mail')
    """
    return _words(_without_punctuation(text), CONTRACTIONS)


@lru_cache(maxsize=_REMEMBERED)
def normalise_m4c(text: str) -> str:
    """Normalise as the TextVQA (M4C) evaluator does: commas and question marks go first, possessives are split off.

    Example:
        >>> normalise_m4c("Dakota."), normalise_m4c("Bob's, bar?"), normalise_m4c("1,000")
        ('dakota', "bob 's bar", '1000')
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return _words(_without_punctuation(one_line(text)), CONTRACTIONS)


@lru_cache(maxsize=_REMEMBERED)
def normalise_vizwiz(text: str) -> str:
    """Normalise as the VizWiz toolkit does.

    Example:
        >>> normalise_vizwiz("A dog.\\n"), normalise_vizwiz("dont")
        ('dog', 'don’t')
    """
    return _words(_without_punctuation(one_line(text)), VIZWIZ_CONTRACTIONS)


def _without_punctuation(text: str) -> str:
    """Drop marks that touch a space or stand in a text with a comma inside a number; turn the others into spaces."""
    has_number_with_comma = _COMMA_IN_NUMBER.search(text) is not None
    kept = text
    for mark in PUNCTUATION:
        touches_space = mark + " " in text or " " + mark in text
        kept = kept.replace(mark, "" if touches_space or has_number_with_comma else " ")
    return _FULL_STOP.sub("", kept, count=_MAX_FULL_STOPS)


def _words(text: str, contractions: dict[str, str]) -> str:
    words = [NUMBER_WORDS.get(word, word) for word in text.lower().split()]
    return " ".join(contractions.get(word, word) for word in words if word not in ARTICLES)
