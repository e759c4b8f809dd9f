"""Questions with short answers, each answerable from one picture only and hard to guess.

A question's tags say what it tests: its type, how the thing is pointed at (``by position``, ``by colour``, ``by
shape``, ``by look``), ``print`` where small print must be read, and ``earlier 1`` or ``earlier 2`` where the answer is
in a picture before the latest one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .dice import Dice
from .scene import Scene, Split, Thing, draw_scene
from .vocabulary import POSITIONS

PROMPT = "Question: {question} Short answer: {answer}"
"""How a question stands in a training document (the official few-shot template, SPEC 3.6)."""

_BEFORE = ("", "In the picture before, ", "Two pictures before, ")


@dataclass(frozen=True)
class Question:
    """A question and its answer.

    Args:
        text: The question.
        answer: One to three words.
        type: What is asked for; the answers of a type are about equally frequent.
        tags: What it tests.
        steps_back: Which picture it is about: 0 the latest, 1 the one before.
    """

    text: str
    answer: str
    type: str
    tags: tuple[str, ...]
    steps_back: int = 0

    @property
    def prompted(self) -> str:
        """Question and answer as one stretch of text."""
        return PROMPT.format(question=self.text, answer=self.answer)


@dataclass(frozen=True)
class Quiz:
    """Pictures with questions after each.

    Args:
        scenes: In order.
        questions: One tuple per picture: what is asked when it is the latest.
    """

    scenes: tuple[Scene, ...]
    questions: tuple[tuple[Question, ...], ...]


_Asked = tuple[str, str, tuple[str, ...]]  # question, answer, tags


def _pointers(scene: Scene, thing: Thing, *, colour: bool = True, shape: bool = True) -> list[tuple[str, str]]:
    """Return words that point at one thing and no other, with their tag."""
    pointers = [(f"the shape {POSITIONS[thing.cell].phrase}", "by position")]
    if thing.name is not None:
        # A character's colour gives its shape away.
        return pointers
    if colour and sum(other.colour == thing.colour for other in scene.things) == 1:
        pointers.append((f"the {thing.colour} shape", "by colour"))
    if shape and sum(other.shape == thing.shape for other in scene.things) == 1:
        pointers.append((f"the {thing.shape}", "by shape"))
    return pointers


def _colour(scene: Scene, dice: Dice) -> _Asked | None:
    thing = dice.pick(scene.things)
    words, tag = dice.pick(_pointers(scene, thing, colour=False))
    return f"what colour is {words}?", thing.colour, (tag,)


def _shape(scene: Scene, dice: Dice) -> _Asked | None:
    thing = dice.pick(scene.things)
    words, tag = dice.pick(_pointers(scene, thing, shape=False))
    asked = f"what shape is {POSITIONS[thing.cell].phrase}?" if tag == "by position" else f"what is {words}?"
    return asked, thing.shape, (tag,)


def _number(scene: Scene, dice: Dice) -> _Asked | None:
    printed = [thing for thing in scene.things if thing.digit is not None]
    if not printed:
        return None
    thing = dice.pick(printed)
    words, tag = dice.pick(_pointers(scene, thing))
    return f"what number is on {words}?", str(thing.digit), (tag, "print")


def _position(scene: Scene, dice: Dice) -> _Asked | None:
    thing = dice.pick(scene.things)
    if sum((other.shape, other.colour) == (thing.shape, thing.colour) for other in scene.things) > 1:
        return None
    return f"where is {thing.name or f'the {thing.colour} {thing.shape}'}?", POSITIONS[thing.cell].name, ("by look",)


def _name(scene: Scene, dice: Dice) -> _Asked | None:
    people = [thing for thing in scene.things if thing.name is not None]
    if not people:
        return None
    thing = dice.pick(people)
    return f"who is {POSITIONS[thing.cell].phrase}?", thing.name or "", ("by position",)


def _count(scene: Scene, dice: Dice) -> _Asked | None:
    return "how many shapes are there?", str(len(scene.things)), ()


def _place(scene: Scene, dice: Dice) -> _Asked | None:
    return "what place is this?", scene.place, ()


_ASKERS: dict[str, Callable[[Scene, Dice], _Asked | None]] = {
    "colour": _colour,
    "shape": _shape,
    "number": _number,
    "position": _position,
    "name": _name,
    "count": _count,
    "place": _place,
}
QUESTION_TYPES = tuple(_ASKERS)


def ask(scene: Scene, type: str, dice: Dice, steps_back: int = 0) -> Question | None:
    """Ask a question of a type, or return ``None`` where the scene has no answer.

    Args:
        scene: The picture it is about.
        type: One of ``QUESTION_TYPES``.
        dice: Source of choices.
        steps_back: How many pictures came since.
    """
    asked = _ASKERS[type](scene, dice)
    if asked is None:
        return None
    text, answer, tags = asked
    text = _BEFORE[steps_back] + (text if steps_back else text[0].upper() + text[1:])
    if steps_back:
        text = (
            text.replace("what place is this", "what place was it").replace(" is ", " was ").replace(" are ", " were ")
        )
        tags = (*tags, f"earlier {steps_back}")
    return Question(text, answer, type, (type, *tags), steps_back)


def ask_several(scene: Scene, n: int, dice: Dice, print_share: float = 0.5) -> tuple[Question, ...]:
    """Ask ``n`` questions of different types about a scene.

    Args:
        scene: The picture.
        n: At most 5, the types every scene allows.
        dice: Source of choices.
        print_share: Probability that one of them reads small print, where there is print.
    """
    order = dice.shuffled([t for t in QUESTION_TYPES if t != "number"])
    order.insert(0 if dice.chance(print_share) else len(order), "number")
    asked = (ask(scene, type, dice) for type in order)
    return tuple(dice.shuffled([q for q in asked if q is not None][:n]))


def draw_quiz(dice: Dice, split: Split, earlier_share: float = 0.5) -> Quiz:
    """Draw one to three pictures with two or three questions after each.

    Args:
        dice: Source of choices.
        split: Split of every scene.
        earlier_share: Probability that one question after a later picture is about an earlier one.
    """
    scenes = tuple(draw_scene(dice, split) for _ in range(dice.pick((1, 2, 2, 3))))
    rounds: list[tuple[Question, ...]] = []
    for latest in range(len(scenes)):
        questions = list(ask_several(scenes[latest], 2 + dice.below(2), dice))
        if latest and dice.chance(earlier_share):
            questions[dice.below(len(questions))] = _ask_earlier(scenes[: latest + 1], dice)
        rounds.append(tuple(questions))
    return Quiz(scenes, tuple(rounds))


def _ask_earlier(scenes: Sequence[Scene], dice: Dice) -> Question:
    steps_back = 1 + dice.below(len(scenes) - 1)
    while True:
        question = ask(scenes[-1 - steps_back], dice.pick(QUESTION_TYPES), dice, steps_back)
        if question is not None:
            return question
