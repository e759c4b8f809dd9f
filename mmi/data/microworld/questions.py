"""Questions with short answers, each answerable from one picture only and hard to guess.

A question's tags say what it tests: its type; how the thing is pointed at (``by position``, ``by colour``, ``by
shape``, ``by look``, ``by name``); ``similar`` where another thing has the same shape or colour; ``print`` with
``print large``, ``print small`` or ``print very small`` where a print must be read; and ``earlier 1`` or ``earlier 2``
where the answer is in a picture that many steps before the latest one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .dice import Dice
from .language import with_article
from .recipe import PRESETS, Recipe
from .scene import Scene, Split, Thing, draw_scene
from .vocabulary import COLOURS, NAME_BY_LOOK, POSITIONS, SHAPES

_BEFORE = ("", "In the picture before, ", "Two pictures before, ")
_PAST = {"what place is this": "what place was it", " is ": " was ", " are ": " were "}
_PLURALS = {shape: "crosses" if shape == "cross" else f"{shape}s" for shape in SHAPES}


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


def _alike(scene: Scene, thing: Thing, *attributes: str) -> int:
    """Count the things that share these attributes with a thing, itself included."""
    return sum(all(getattr(other, a) == getattr(thing, a) for a in attributes) for other in scene.things)


def _pointer(
    scene: Scene, thing: Thing, dice: Dice, recipe: Recipe, *, colour: bool = True, shape: bool = True
) -> tuple[str, tuple[str, ...]]:
    """Return words that point at one thing and no other, with their tags."""
    pointers = [(f"the shape {POSITIONS[thing.cell].phrase}", "by position")]
    # A character's colour gives its shape away.
    if thing.name is None:
        if colour and _alike(scene, thing, "colour") == 1:
            pointers.append((f"the {thing.colour} shape", "by colour"))
        if shape and _alike(scene, thing, "shape") == 1:
            pointers.append((f"the {thing.shape}", "by shape"))
        if colour and shape and len(pointers) == 1 and _alike(scene, thing, "colour", "shape") == 1:
            pointers.append((f"the {thing.colour} {thing.shape}", "by look"))
    others = pointers[1:]
    words, tag = pointers[0] if not others or dice.chance(recipe.position_share) else dice.pick(others)
    return words, (tag, *_similar(scene, thing))


def _similar(scene: Scene, thing: Thing) -> tuple[str, ...]:
    return ("similar",) if max(_alike(scene, thing, "shape"), _alike(scene, thing, "colour")) > 1 else ()


def _colour(scene: Scene, dice: Dice, recipe: Recipe) -> _Asked | None:
    thing = dice.pick(scene.things)
    words, tags = _pointer(scene, thing, dice, recipe, colour=False)
    return f"what colour is {words}?", thing.colour, tags


def _shape(scene: Scene, dice: Dice, recipe: Recipe) -> _Asked | None:
    thing = dice.pick(scene.things)
    words, tags = _pointer(scene, thing, dice, recipe, shape=False)
    asked = f"what shape is {POSITIONS[thing.cell].phrase}?" if tags[0] == "by position" else f"what is {words}?"
    return asked, thing.shape, tags


def _texture(scene: Scene, dice: Dice, recipe: Recipe) -> _Asked | None:
    things = [thing for thing in scene.things if thing.name is None]
    if all(thing.texture == "plain" for thing in things):
        return None
    plain = [thing for thing in things if thing.texture == "plain"]
    # Half of the time the plain one where there is one: each answer is about as frequent.
    thing = dice.pick(plain if plain and dice.chance(0.5) else [t for t in things if t.texture != "plain"])
    words, tags = _pointer(scene, thing, dice, recipe)
    return f"is {words} plain, striped or dotted?", thing.texture, tags


def _read(scene: Scene, things: Sequence[Thing], dice: Dice, recipe: Recipe) -> _Asked | None:
    if not things:
        return None
    thing = dice.pick(things)
    assert thing.print is not None
    words, tags = _pointer(scene, thing, dice, recipe)
    kind = "number" if thing.digit is not None else "word"
    return f"what {kind} is on {words}?", thing.print.text, (*tags, "print", f"print {thing.print.size}")


def _number(scene: Scene, dice: Dice, recipe: Recipe) -> _Asked | None:
    return _read(scene, [thing for thing in scene.things if thing.digit is not None], dice, recipe)


def _word(scene: Scene, dice: Dice, recipe: Recipe) -> _Asked | None:
    return _read(scene, [thing for thing in scene.things if thing.word is not None], dice, recipe)


def _position(scene: Scene, dice: Dice, recipe: Recipe) -> _Asked | None:
    thing = dice.pick(scene.things)
    if _alike(scene, thing, "shape", "colour") > 1:
        return None
    tags = ("by name" if thing.name else "by look", *_similar(scene, thing))
    return f"where is {thing.name or f'the {thing.colour} {thing.shape}'}?", POSITIONS[thing.cell].name, tags


def _name(scene: Scene, dice: Dice, recipe: Recipe) -> _Asked | None:
    people = [thing for thing in scene.things if thing.name is not None]
    if not people:
        return None
    thing = dice.pick(people)
    return f"who is {POSITIONS[thing.cell].phrase}?", thing.name or "", ("by position", *_similar(scene, thing))


def _count(scene: Scene, dice: Dice, recipe: Recipe) -> _Asked | None:
    return "how many shapes are there?", str(len(scene.things)), ()


def _count_alike(scene: Scene, dice: Dice, recipe: Recipe) -> _Asked | None:
    """Count the things of one shape or colour, where some repeat; each count there is gets the same chance."""
    if len(scene.things) < _FEWEST_FOR_ALIKE:
        return None
    groups = [(f"{_PLURALS[s]}", sum(t.shape == s for t in scene.things)) for s in SHAPES]
    groups += [(f"{c.name} shapes", sum(t.colour == c.name for t in scene.things)) for c in COLOURS]
    count = dice.pick(sorted({n for _, n in groups}))
    words = dice.pick([words for words, n in groups if n == count])
    return f"how many {words} are there?", str(count), ("count", "by look")


def _place(scene: Scene, dice: Dice, recipe: Recipe) -> _Asked | None:
    return "what place is this?", scene.place, ()


def _presence(scene: Scene, dice: Dice, recipe: Recipe) -> _Asked | None:
    """Ask for something that is there, or, as often, for the same with another colour or shape that is not."""
    things = [thing for thing in scene.things if thing.name is None]
    if not things:
        return None
    thing = dice.pick(things)
    here = {(t.colour, t.shape) for t in scene.things}
    others = [(colour.name, thing.shape) for colour in COLOURS] + [(thing.colour, shape) for shape in SHAPES]
    absent = [look for look in others if look not in here and (look[1], look[0]) not in NAME_BY_LOOK]
    there = dice.chance(0.5)
    colour, shape = (thing.colour, thing.shape) if there else dice.pick(absent)
    return f"is there {with_article(f'{colour} {shape}')}?", "yes" if there else "no", ("by look", "similar")


_ASKERS: dict[str, Callable[[Scene, Dice, Recipe], _Asked | None]] = {
    "colour": _colour,
    "shape": _shape,
    "texture": _texture,
    "number": _number,
    "word": _word,
    "position": _position,
    "name": _name,
    "count": _count,
    "count alike": _count_alike,
    "place": _place,
    "yes/no": _presence,
}
QUESTION_TYPES = tuple(_ASKERS)
_READING = ("number", "word")
_FEWEST_FOR_ALIKE = 4
_MOST_ROUNDS = 3


def ask(scene: Scene, type: str, dice: Dice, steps_back: int = 0, recipe: Recipe = PRESETS["tiny"]) -> Question | None:
    """Ask a question of a type, or return ``None`` where the scene has no answer.

    Args:
        scene: The picture it is about.
        type: One of ``QUESTION_TYPES``.
        dice: Source of choices.
        steps_back: How many pictures came since.
        recipe: How often things are pointed at by their position.
    """
    return _question(_ASKERS[type](scene, dice, recipe), type, steps_back)


def _question(asked: _Asked | None, type: str, steps_back: int = 0) -> Question | None:
    if asked is None:
        return None
    text, answer, tags = asked
    if steps_back:
        text = f" {text}"
        for now, then in _PAST.items():
            text = text.replace(now, then)
        text = _BEFORE[steps_back] + text[1:]
        tags = (*tags, f"earlier {steps_back}")
    return Question(text[0].upper() + text[1:], answer, type, (type, *tags), steps_back)


def ask_print(scene: Scene, dice: Dice, sizes: Sequence[str], recipe: Recipe = PRESETS["tiny"]) -> Question | None:
    """Ask for a number or word printed in one of some sizes, or return ``None`` where there is none.

    Args:
        scene: The picture it is about.
        dice: Source of choices.
        sizes: Some of ``PRINT_SIZES``.
        recipe: How often things are pointed at by their position.
    """
    things = [thing for thing in scene.things if thing.print is not None and thing.print.size in sizes]
    if not things:
        return None
    thing = dice.pick(things)
    return _question(_read(scene, [thing], dice, recipe), "number" if thing.digit is not None else "word")


def ask_several(scene: Scene, n: int, dice: Dice, recipe: Recipe = PRESETS["tiny"]) -> tuple[Question, ...]:
    """Ask up to ``n`` different questions about a scene, each type once before one comes again.

    Args:
        scene: The picture.
        n: Most questions; where fewer are possible, fewer are asked.
        dice: Source of choices.
        recipe: Share of rounds in which one question reads small print, and of yes or no.
    """
    asked: dict[str, Question] = {}
    for _ in range(_MOST_ROUNDS):
        for question in _round(scene, dice, recipe):
            if len(asked) < n:
                asked.setdefault(question.text, question)
    return tuple(dice.shuffled(list(asked.values())))


def _round(scene: Scene, dice: Dice, recipe: Recipe) -> list[Question]:
    """Ask a question of each type the scene allows, small print first where it is asked for."""
    asked = [ask_print(scene, dice, ("small", "very small"), recipe)] if dice.chance(recipe.small_print_share) else []
    order = dice.shuffled([type for type in QUESTION_TYPES if type not in (*_READING, "yes/no")])
    if dice.chance(recipe.yes_no_share):
        order.insert(0, "yes/no")
    order.insert(dice.below(len(order)), "large print")
    for type in order:
        asked.append(
            ask_print(scene, dice, ("large",), recipe) if type == "large print" else ask(scene, type, dice, 0, recipe)
        )
    return [question for question in asked if question is not None]


def draw_quiz(dice: Dice, split: Split, recipe: Recipe = PRESETS["tiny"]) -> Quiz:
    """Draw a few pictures with questions after each.

    Args:
        dice: Source of choices.
        split: Split of every scene.
        recipe: Shares of everything in the scenes, numbers of pictures and questions, shares of questions about small
            print and earlier pictures.
    """
    fewest, most = recipe.quiz_questions
    scenes = tuple(draw_scene(dice, split, recipe=recipe) for _ in range(dice.pick(recipe.quiz_pictures)))
    rounds: list[tuple[Question, ...]] = []
    for latest in range(len(scenes)):
        n = fewest + dice.below(most - fewest + 1)
        questions = list(ask_several(scenes[latest], n, dice, recipe))
        if latest and dice.chance(recipe.earlier_share):
            for place in dice.sample(range(len(questions)), min(recipe.earlier_questions, len(questions))):
                earlier = ask_earlier(scenes[: latest + 1], dice, recipe)
                if earlier not in questions:
                    questions[place] = earlier
        rounds.append(tuple(questions))
    return Quiz(scenes, tuple(rounds))


def ask_earlier(scenes: Sequence[Scene], dice: Dice, recipe: Recipe = PRESETS["tiny"]) -> Question:
    """Ask about one of the pictures before the latest one.

    Args:
        scenes: Two or three pictures in order.
        dice: Source of choices.
        recipe: How often things are pointed at by their position.
    """
    steps_back = 1 + dice.below(len(scenes) - 1)
    types = [type for type in QUESTION_TYPES if type != "yes/no"]
    while True:
        question = ask(scenes[-1 - steps_back], dice.pick(types), dice, steps_back, recipe)
        if question is not None:
            return question
