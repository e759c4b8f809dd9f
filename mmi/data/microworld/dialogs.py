"""Dialogs about a picture: ten questions that build on each other, and a hundred answers to choose from for each.

A question about "it" is about the thing of the last topic, so that it takes the dialog to answer. Options hold every
answer a question of that kind may have, each worded as often, so that their number tells nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from .annotators import SYNONYMS
from .dice import Dice
from .language import with_article
from .scene import Scene, Thing
from .vocabulary import (
    CHARACTERS,
    COLOURS,
    NAME_BY_LOOK,
    NUMBERS,
    PLACE_BY_NAME,
    PLACES,
    POSITIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    WORDS,
)

N_ROUNDS = 10
N_OPTIONS = 100

_POSITION_PHRASES = {position.name: position.phrase for position in POSITIONS}
_VALUES: dict[str, tuple[str, ...]] = {
    "yes/no": ("yes", "no"),
    "colour": tuple(colour.name for colour in COLOURS),
    "shape": SHAPES,
    "position": tuple(_POSITION_PHRASES),
    "texture": TEXTURES,
    "number": tuple("0123456789"),
    "word": WORDS,
    "count": tuple(map(str, range(1, len(NUMBERS)))),
    "place": tuple(place.name for place in PLACES),
    "name": tuple(who.name.lower() for who in CHARACTERS),
}
_WORDINGS: dict[str, tuple[str, ...]] = {
    "colour": ("{}", "it is {}", "{} i think"),
    "shape": ("{a}", "it is {a}", "{a} i think"),
    "position": ("{phrase}", "it is {phrase}", "{phrase} of the picture"),
    "texture": ("{}", "it is {}", "{} i think"),
    "number": ("{}", "it says {}", "{} i think"),
    "word": ('"{}"', 'it says "{}"', '"{}" i think'),
    "count": ("{}", "there are {}", "i count {}"),
    "place": ("{phrase}", "it looks like the {}", "the {} i think"),
    "name": ("{}", "it is {}", "{} i think"),
}
_YES_NO = {
    "yes": ("yes", "yes it is", "yes there is", "yes i see it", "i think so"),
    "no": ("no", "no it is not", "no there is not", "no i do not see it", "i don't think so"),
}
_ABSTENTIONS = ("i can't tell", "not sure", "it is too small to see")


@dataclass(frozen=True)
class Turn:
    """A question and what is right.

    Args:
        question: Lower case, without question mark.
        kind: What is asked for.
        value: The right answer, one of that kind's.
        tags: What it tests; ``history`` where the question alone does not say what it is about.
    """

    question: str
    kind: str
    value: str
    tags: tuple[str, ...]


def talk(scene: Scene, dice: Dice) -> tuple[str, tuple[Turn, ...]]:
    """Return a caption that says little and ten turns about the rest."""
    place = PLACE_BY_NAME[scene.place].phrase
    caption = dice.pick((f"a picture taken {place}", "a picture of some shapes"))
    singles = [Turn("how many shapes are there", "count", str(len(scene.things)), ("count",))]
    if place not in caption:
        singles.append(Turn("where is this", "place", scene.place, ("place",)))
    topics = [*([turn] for turn in singles), *(_topic(scene, thing, dice) for thing in scene.things)]
    missing = max(N_ROUNDS - sum(map(len, topics)), 2)
    # A topic stays together, so that "it" is the thing it began with.
    topics += [[turn] for turn in _yes_no_turns(scene, dice)[:missing]]
    turns = [turn for topic in dice.shuffled(topics) for turn in topic]
    return caption, tuple(turns[:N_ROUNDS])


def _topic(scene: Scene, thing: Thing, dice: Dice) -> list[Turn]:
    """Return a question that brings up a thing and some that go on about it."""
    where = POSITIONS[thing.cell]
    if thing.name is not None:
        return [Turn(f"who is {where.phrase}", "name", thing.name.lower(), ("name", "by position"))]
    size = dice.pick(SIZES)
    about = {
        "colour": Turn("what colour is it", "colour", thing.colour, ("colour", "history")),
        "position": Turn("where in the picture is it", "position", where.name, ("position", "history")),
        "texture": Turn("is it plain striped or dotted", "texture", thing.texture, ("texture", "history")),
        "size": Turn(f"is it {size}", "yes/no", "yes" if thing.size == size else "no", ("yes/no", "size", "history")),
    }
    if sum(other.colour == thing.colour for other in scene.things) == 1 and dice.chance(0.5):
        opened = Turn(f"what shape is the {thing.colour} one", "shape", thing.shape, ("shape", "by colour"))
        del about["colour"]
    else:
        opened = Turn(f"what shape is {where.phrase}", "shape", thing.shape, ("shape", "by position"))
        del about["position"]
    asked = dice.sample(list(about.values()), 2)
    if thing.print is not None:
        kind = "number" if thing.digit is not None else "word"
        tags = (kind, "history", "print", f"print {thing.print.size}")
        asked.append(Turn(f"what {kind} is on it", kind, thing.print.text, tags))
    return [opened, *dice.shuffled(asked)]


def _yes_no_turns(scene: Scene, dice: Dice) -> list[Turn]:
    """Return questions of several kinds, of each kind one that is answered by yes and one by no, in random order.

    The second of each kind comes after the first of all kinds.
    """
    thing = dice.pick(scene.things)
    who = thing.name.lower() if thing.name is not None else f"the {thing.colour} {thing.shape}"
    alike = {t.cell for t in scene.things if (t.colour, t.shape) == (thing.colour, thing.shape)}
    colours, shapes = {t.colour for t in scene.things}, {t.shape for t in scene.things}
    pairs = [
        _pair(dice, "is anything {}", [c.name for c in COLOURS], colours, "by colour"),
        _pair(dice, "is there {}", list(SHAPES), shapes, "by shape"),
        _pair(dice, f"is {who} {{}}", range(len(POSITIONS)), alike, "position"),
    ]
    looks = {(t.colour, t.shape) for t in scene.things if t.name is None}
    names = {t.name for t in scene.things if t.name is not None}
    if looks:
        nobodies = [(c.name, s) for c in COLOURS for s in SHAPES if (s, c.name) not in NAME_BY_LOOK]
        near = [look for look in nobodies if look[0] in colours or look[1] in shapes]
        pairs.append(_pair(dice, "do you see {}", near, looks, "by look"))
    if names:
        pairs.append(_pair(dice, "do you see {}", [c.name for c in CHARACTERS], names, "by name"))
    firsts, seconds = ([pair[i] for pair in pairs if pair] for i in range(2))
    return [*dice.shuffled(firsts), *dice.shuffled(seconds)]


def _pair(dice: Dice, form: str, all_values: Sequence[Any], here: Collection[Any], tag: str) -> list[Turn]:
    """Return a question whose answer is yes and one whose is no, or none where everything there can be is there."""
    others = [value for value in all_values if value not in here]
    if not others:
        return []
    values = {"yes": dice.pick([value for value in all_values if value in here]), "no": dice.pick(others)}
    turns = [Turn(form.format(_named(value)), "yes/no", answer, ("yes/no", tag)) for answer, value in values.items()]
    return dice.shuffled(turns)


def _named(value: str | int | tuple[str, str]) -> str:
    """Return the words for a colour, a shape, a character, the number of a cell, or a colour and a shape."""
    if isinstance(value, int):
        return POSITIONS[value].phrase
    words = value if isinstance(value, str) else " ".join(value)
    return with_article(words) if not isinstance(value, str) or value in SHAPES else words.lower()


def wordings(kind: str, value: str) -> tuple[str, ...]:
    """Return the ways to say an answer, the plainest first.

    Example:
        >>> wordings("position", "top left")
        ('at the top left', 'it is at the top left', 'at the top left of the picture')
    """
    if kind == "yes/no":
        return _YES_NO[value]
    phrase = PLACE_BY_NAME[value].phrase if kind == "place" else _POSITION_PHRASES.get(value, value)
    return tuple(form.format(value, a=with_article(value), phrase=phrase) for form in _WORDINGS[kind])


def say(turn: Turn, dice: Dice) -> str:
    """Return the answer in the words of the one who sees the picture: plain, or without doubt."""
    forms = wordings(turn.kind, turn.value)
    if turn.kind != "yes/no":
        return dice.pick(forms[:2])
    fitting = {"is there": forms[2], "do you see": forms[3], "is anything": forms[0]}
    longer = next((form for start, form in fitting.items() if turn.question.startswith(start)), forms[1])
    return dice.pick((forms[0], longer))


def options(turn: Turn, dice: Dice) -> tuple[str, ...]:
    """Return a hundred different answers in random order: all of the question's kind, and others.

    Args:
        turn: The question.
        dice: Source of choices.
    """
    own = [form for value in _VALUES[turn.kind] for form in (*wordings(turn.kind, value), *_synonym(turn.kind, value))]
    chosen = list(dict.fromkeys([*own, *_ABSTENTIONS, *_YES_NO["yes"], *_YES_NO["no"]]))
    others = [form for kind, values in _VALUES.items() for value in values for form in wordings(kind, value)]
    left = [form for form in dict.fromkeys(others) if form not in chosen]
    chosen = chosen[:N_OPTIONS]
    return tuple(dice.shuffled([*chosen, *dice.sample(left, N_OPTIONS - len(chosen))]))


def _synonym(kind: str, value: str) -> tuple[str, ...]:
    return SYNONYMS.get(value, ())[:1] if kind in ("colour", "shape", "place", "texture") else ()


def relevance(turn: Turn, answer: str, choices: Sequence[str]) -> tuple[float, ...]:
    """Return how well each option answers, in fifths as five people would say it.

    Args:
        turn: The question.
        answer: What was said, fully right.
        choices: The options.

    Returns:
        1 for what was said, 0.8 for another wording, 0.6 for a synonym or where doubt shows, 0.2 for saying that small
        print cannot be read, 0 for the rest.
    """
    right = dict.fromkeys(wordings(turn.kind, turn.value), 0.8)
    doubtful = ("i think so", "i don't think so")
    right |= {form: 0.6 for form in right if form.endswith("i think") or form in doubtful}
    right |= dict.fromkeys(_synonym(turn.kind, turn.value), 0.6)
    if "print small" in turn.tags or "print very small" in turn.tags:
        right |= dict.fromkeys(_ABSTENTIONS, 0.2)
    right[answer] = 1.0
    return tuple(right.get(choice, 0.0) for choice in choices)
