"""Does the world test what it claims? One oracle sees the scene graph, another the question only, both answer.

The first reads a question's text and looks the answer up, without knowing how the question came about: every question
has one answer, and it is right. The second answers with what was most frequent in training: what it reaches can be
guessed. A third, which reads print from a coarser picture, is in ``print_reader``.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from .dice import Dice
from .questions import Question, ask_several
from .recipe import PRESETS
from .scene import Scene, Split, Thing, draw_scene
from .vocabulary import CHARACTER_BY_NAME, COLOUR_BY_NAME, POSITIONS, SHAPES

_BEFORE = {"in the picture before, ": 1, "two pictures before, ": 2}
_PRESENT = (("what place was it", "what place is this"), ("was ", "is "), ("were ", "are "))
_CELLS = {position.phrase: cell for cell, position in enumerate(POSITIONS)}
_SINGULAR = {"crosses": "cross"} | {f"{shape}s": shape for shape in SHAPES}
_WORDS_OF_A_KIND = {
    "COLOUR": list(COLOUR_BY_NAME),
    "SHAPE": [*SHAPES, *_SINGULAR],
    "POSITION": sorted(_CELLS, key=len, reverse=True),
    "NAME": [name.lower() for name in CHARACTER_BY_NAME],
}


def answer_from_scenes(scenes: Sequence[Scene], text: str) -> str:
    """Answer a question from the scene graphs of the pictures shown so far.

    Args:
        scenes: In order; the last one is the latest.
        text: The question.

    Raises:
        ValueError: If it is no question of this world, or has none or several answers.
    """
    asked, steps_back = text.lower().rstrip("?"), 0
    for opening, steps in _BEFORE.items():
        if asked.startswith(opening):
            asked, steps_back = asked.removeprefix(opening), steps
    if steps_back:
        for then, now in _PRESENT:
            asked = re.sub(rf"\b{then}(?=\b|$)", now, asked)
    scene = scenes[-1 - steps_back]
    for pattern, answer in _FORMS.items():
        match = re.fullmatch(pattern, asked)
        if match:
            return answer(scene, *match.groups())
    raise ValueError(f'"{text}" is no question of this world.')


def _pointed_at(scene: Scene, words: str) -> Thing:
    """Return the one thing that words point at."""
    for phrase, cell in _CELLS.items():
        if words in (phrase, f"the shape {phrase}"):
            return _only([thing for thing in scene.things if thing.cell == cell], words)
    return _only([thing for thing in scene.things if _fits(thing, words.removeprefix("the ").split())], words)


def _fits(thing: Thing, words: Sequence[str]) -> bool:
    known = {thing.colour, thing.shape, "shape", "shapes", (thing.name or "").lower()}
    return all(_SINGULAR.get(word, word) in known for word in words)


def _only(things: Sequence[Thing], words: str) -> Thing:
    if len(things) != 1:
        raise ValueError(f'"{words}" points at {len(things)} things.')
    return things[0]


def _digit(scene: Scene, words: str) -> str:
    return str(_pointed_at(scene, words).digit)


def _word(scene: Scene, words: str) -> str:
    return str(_pointed_at(scene, words).word)


def _count(scene: Scene, words: str) -> str:
    return str(sum(_fits(thing, words.split()) for thing in scene.things))


def _presence(scene: Scene, words: str) -> str:
    return "yes" if any(_fits(thing, words.split()) for thing in scene.things) else "no"


_FORMS: dict[str, Callable[..., str]] = {
    "what place is this": lambda scene: scene.place,
    "what colour is (.+)": lambda scene, words: _pointed_at(scene, words).colour,
    "what shape is (.+)": lambda scene, words: _pointed_at(scene, words).shape,
    "what is (.+)": lambda scene, words: _pointed_at(scene, words).shape,
    "is (.+) plain, striped or dotted": lambda scene, words: _pointed_at(scene, words).texture,
    "what number is on (.+)": _digit,
    "what word is on (.+)": _word,
    "where is (.+)": lambda scene, words: POSITIONS[_pointed_at(scene, words).cell].name,
    "who is (.+)": lambda scene, words: str(_pointed_at(scene, words).name),
    "how many (.+) are there": _count,
    "is there an? (.+)": _presence,
}


def template(text: str) -> str:
    """Return a question with its colours, shapes, positions and names taken out.

    Example:
        >>> template("What colour is the shape at the top left?")
        'what colour is the shape POSITION?'
    """
    text = text.lower()
    for kind, words in _WORDS_OF_A_KIND.items():
        text = re.sub(rf"\b({'|'.join(words)})\b", kind, text)
    return text


@dataclass(frozen=True)
class Guessing:
    """What is reached by guessing the answers of one type.

    Args:
        n: Number of questions.
        majority: Accuracy of the most frequent training answer of the type.
        by_template: Accuracy of the most frequent one of the template.
        by_text: Accuracy of the most frequent one of the very question, or of the template where it is new.
    """

    n: int
    majority: float
    by_template: float
    by_text: float


def guess(train: Iterable[Question], test: Iterable[Question]) -> dict[str, Guessing]:
    """Answer test questions with the most frequent training answers; return the accuracy by question type."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for question in train:
        for key in _keys(question):
            seen[key][question.answer] += 1
    right: dict[str, list[list[bool]]] = defaultdict(list)
    for question in test:
        guesses = [seen[key].most_common(1)[0][0] if seen[key] else "" for key in _keys(question)]
        of_type, of_template, of_text = guesses
        tried = (of_type, of_template or of_type, of_text or of_template or of_type)
        right[question.type].append([guessed == question.answer for guessed in tried])
    return {
        kind: Guessing(len(rows), *(round(sum(column) / len(rows), 4) for column in zip(*rows, strict=True)))
        for kind, rows in sorted(right.items())
    }


def _keys(question: Question) -> tuple[str, str, str]:
    return f"type {question.type}", f"template {question.type} {template(question.text)}", f"text {question.text}"


def asked(preset: str, split: Split, n: int) -> Iterator[Question]:
    """Yield up to three questions about each of ``n`` scenes, drawn as a world of that preset draws them."""
    for i in range(n):
        dice = Dice("oracles", preset, split, i)
        yield from ask_several(draw_scene(dice, split, recipe=PRESETS[preset]), 3, dice, PRESETS[preset])
