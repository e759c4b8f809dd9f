"""People who answer questions about the world and do not always agree, as those behind the official answers.

Most say what is right. Others use another word for it, take it for something near, misspell it or do not know; the
harder the question, the more of them. The right answer always has the most votes, and enough of them (four of ten) to
be fully right under the three-matches rule of VQA accuracy. Answers are lower case, as the official files are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .dice import Dice
from .vocabulary import CHARACTERS, POSITIONS

SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("scarlet", "bright red"),
    "orange": ("light orange",),
    "yellow": ("gold",),
    "green": ("dark green",),
    "blue": ("dark blue", "royal blue"),
    "purple": ("violet",),
    "pink": ("light pink", "rose"),
    "brown": ("dark brown",),
    "square": ("box", "block"),
    "circle": ("disc", "round"),
    "triangle": ("pyramid",),
    "diamond": ("rhombus",),
    "cross": ("plus", "plus sign"),
    "heart": ("love heart",),
    "meadow": ("field", "grass"),
    "beach": ("seaside", "sand"),
    "snow": ("snowy field", "winter"),
    "desert": ("dunes",),
    "forest": ("woods", "trees"),
    "town": ("city", "street"),
    "lake": ("lakeside", "water"),
    "cave": ("cavern",),
    "top left": ("upper left", "left top"),
    "top": ("top middle", "upper middle"),
    "top right": ("upper right", "right top"),
    "left": ("left side", "middle left"),
    "middle": ("center", "centre"),
    "right": ("right side", "middle right"),
    "bottom left": ("lower left", "left bottom"),
    "bottom": ("bottom middle", "lower middle"),
    "bottom right": ("lower right", "right bottom"),
    "large": ("big",),
    "small": ("little", "tiny"),
    "plain": ("no pattern",),
    "striped": ("stripes", "lines"),
    "dotted": ("dots", "spots"),
    "yes": ("yeah",),
    "no": ("nope",),
}
"""Other words for the same answer."""

NEAR: dict[str, tuple[str, ...]] = {
    "red": ("orange", "brown"),
    "orange": ("red", "yellow"),
    "yellow": ("orange",),
    "green": ("blue",),
    "blue": ("purple",),
    "purple": ("blue", "pink"),
    "pink": ("purple", "red"),
    "brown": ("red", "orange"),
    "square": ("diamond",),
    "circle": ("heart",),
    "triangle": ("diamond",),
    "diamond": ("square",),
    "cross": ("diamond",),
    "heart": ("triangle",),
    "meadow": ("forest",),
    "beach": ("desert",),
    "snow": ("town",),
    "desert": ("beach",),
    "forest": ("meadow",),
    "town": ("cave",),
    "lake": ("beach",),
    "cave": ("town",),
    "large": ("small",),
    "small": ("large",),
    "plain": ("dotted",),
    "striped": ("dotted",),
    "dotted": ("striped",),
    "yes": ("no",),
    "no": ("yes",),
}
"""What a right answer is taken for at a quick look."""

ABSTENTIONS = ("not sure", "can't tell", "unknown")
_LOOKALIKES = dict(zip("0123456789aceghiklmnopstux", "87789651361aeoqnljnmcqzfvk", strict=True))
# By tag: how many do not say the same.
_EFFORT = {
    "print very small": 0.3,
    "print small": 0.2,
    "count": 0.1,
    "place": 0.15,
    "position": 0.15,
    "lore": 0.2,
    "dark": 0.2,
    "blurred": 0.2,
    "cropped": 0.2,
}
_LEAST_EFFORT = 0.06
_FEWEST_VOTES = 4


@dataclass(frozen=True)
class Opinion:
    """What one person says.

    Args:
        answer: Lower case.
        confidence: ``yes``, ``maybe`` or ``no``.
    """

    answer: str
    confidence: str


def answer_type(answer: str, tags: Collection[str] = ()) -> str:
    """Return the kind the official files tell apart: ``yes/no``, ``number`` or ``other`` (a printed "no" is a word)."""
    if answer in ("yes", "no") and "print" not in tags:
        return "yes/no"
    return "number" if answer.isdigit() else "other"


def opinions(
    truth: str,
    dice: Dice,
    *,
    tags: Collection[str] = (),
    n: int = 10,
    guesses: Sequence[str] = (),
    abstentions: Sequence[str] = ABSTENTIONS,
) -> tuple[Opinion, ...]:
    """Ask ``n`` people.

    Args:
        truth: The right answer.
        dice: Source of choices.
        tags: What the question tests; small print, counts, places, positions and bad pictures are harder.
        n: How many people.
        guesses: What those say who are wrong, where that cannot be told from the right answer.
        abstentions: What those say who do not know.
    """
    truth = truth.lower()
    effort = max([_LEAST_EFFORT, *(_EFFORT.get(tag, 0.0) for tag in tags)])
    # Some pictures are clearer than others: about every third question has one answer.
    share = effort * dice.pick((0.2, 1.0, 2.0))
    others = _others(truth, tags, guesses, abstentions)
    said = [_another(others, dice) if others and dice.chance(share) else truth for _ in range(n)]
    fewest = -(-_FEWEST_VOTES * n // 10)
    order = dice.shuffled(range(n))
    while True:
        votes = Counter(said)
        most = max((count for answer, count in votes.items() if answer != truth), default=0)
        if votes[truth] >= fewest and votes[truth] > most:
            break
        persuaded = next(i for i in order if said[i] != truth)
        said[persuaded] = truth
    return tuple(Opinion(answer, _confidence(answer, answer == truth, dice, abstentions)) for answer in said)


def _others(
    truth: str, tags: Collection[str], guesses: Sequence[str], abstentions: Sequence[str]
) -> list[tuple[str, ...]]:
    """Return what else is said, kind by kind, as often as the kind is met."""
    wrong = tuple(guess.lower() for guess in guesses) or _near(truth, tags)
    right = () if "print" in tags else SYNONYMS.get(truth, ())
    kinds = [right] * 5 + [wrong] * 3 + [tuple(abstentions)] * 2
    kept = [tuple(answer for answer in kind if answer != truth) for kind in kinds]
    return [kind for kind in kept if kind]


def _another(others: Sequence[Sequence[str]], dice: Dice) -> str:
    answer = dice.pick(dice.pick(others))
    return _misspelt(answer, dice) if dice.chance(0.06) else answer


def _near(truth: str, tags: Collection[str]) -> tuple[str, ...]:
    if "print" in tags:
        misread = [truth[:i] + _LOOKALIKES[c] + truth[i + 1 :] for i, c in enumerate(truth) if c in _LOOKALIKES]
        return tuple(misread)
    if truth.isdigit():
        return tuple(str(n) for n in (int(truth) - 1, int(truth) + 1) if n > 0)
    cells = [position.name for position in POSITIONS]
    if truth in cells:
        row, column = divmod(cells.index(truth), 3)
        beside = ((row, column - 1), (row, column + 1), (row - 1, column), (row + 1, column))
        return tuple(cells[3 * r + c] for r, c in beside if 0 <= r < 3 and 0 <= c < 3)
    names = [who.name.lower() for who in CHARACTERS]
    if truth in names:
        place = names.index(truth)
        return (names[place - 1], names[(place + 1) % len(names)])
    return NEAR.get(truth, ())


def _misspelt(answer: str, dice: Dice) -> str:
    """Swap, double or drop a letter, as one does in a hurry."""
    places = [i for i in range(1, len(answer) - 1) if answer[i].isalpha() and answer[i + 1].isalpha()]
    if not places:
        return answer
    i = dice.pick(places)
    before, letter, after = answer[:i], answer[i], answer[i + 1 :]
    return dice.pick((before + after[0] + letter + after[1:], before + letter + letter + after, before + after))


def _confidence(answer: str, agrees: bool, dice: Dice, abstentions: Sequence[str]) -> str:
    if answer in abstentions and not agrees:
        return dice.pick(("no", "maybe"))
    sure = 0.92 if agrees else 0.45
    return "yes" if dice.chance(sure) else dice.pick(("maybe", "maybe", "no"))
