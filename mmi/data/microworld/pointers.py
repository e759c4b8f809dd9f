"""Words for one thing of a scene and no other, with the steps of a program that lead to it.

A word that stands for a thing carries its number (``heart#0``), from which the word-to-object pointers of the GQA
layout are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from mmi_eval.formats.gqa import GQAOperation

from .dice import Dice
from .programs import ATTRIBUTES, RELATIONS
from .scene import Scene, Thing


@dataclass(frozen=True)
class Pointer:
    """Words for one thing, the steps that lead to it, and how it is pointed at."""

    words: str
    steps: tuple[GQAOperation, ...]
    tag: str


def plain(marked: str) -> tuple[str, dict[str, str]]:
    """Return a text without marks, and word places with the numbers that were on them.

    Example:
        >>> plain("Is the red heart#0 above Ada#1?")
        ('Is the red heart above Ada?', {'3': '0', '5': '1'})
    """
    words, numbers = [], {}
    for place, word in enumerate(marked.split(" ")):
        text, mark, rest = word.partition("#")
        number = rest.rstrip(".,?")
        if mark:
            numbers[str(place)] = number
        words.append(text + rest[len(number) :])
    return " ".join(words), numbers


def pointers(scene: Scene, thing: Thing, hide: str = "") -> list[Pointer]:
    """Return the shortest ways to point at a thing by its name or its look.

    Args:
        scene: Where it is.
        thing: One of the scene's things.
        hide: The attribute that the words must not give away.
    """
    number = scene.things.index(thing)
    if thing.name is not None:
        # A character's name gives its colour and shape away, and so does half of its look.
        named = Pointer(f"{thing.name}#{number}", (GQAOperation("select", f"{thing.name} ({number})"),), "by name")
        return [] if hide in ("colour", "shape") else [named]
    shown = [attribute for attribute in ("size", "texture", "colour") if attribute != hide]
    for n_attributes in range(3):
        found = []
        for attributes in combinations(shown, n_attributes):
            for noun in ("shape",) if hide == "shape" else (thing.shape, "shape"):
                if _alike(scene, thing, noun, attributes) == 1:
                    found.append(_by_look(thing, number, noun, attributes))
        if found:
            return found
    return []


def _alike(scene: Scene, thing: Thing, noun: str, attributes: Sequence[str]) -> int:
    """Count the things of a noun that share some attributes with a thing, itself included."""
    things = [other for other in scene.things if noun in ("shape", other.shape)]
    return sum(all(ATTRIBUTES[a](other) == ATTRIBUTES[a](thing) for a in attributes) for other in things)


def _by_look(thing: Thing, number: int, noun: str, attributes: Sequence[str]) -> Pointer:
    values = [ATTRIBUTES[attribute](thing) or "" for attribute in attributes]
    steps = [GQAOperation("select", f"{noun} ({number})")]
    for step, (attribute, value) in enumerate(zip(attributes, values, strict=True)):
        steps.append(GQAOperation(f"filter {attribute}", value, (step,)))
    return Pointer(" ".join(["the", *values, f"{noun}#{number}"]), tuple(steps), "by look")


def point(scene: Scene, thing: Thing, hide: str, dice: Dice) -> Pointer | None:
    """Return one way to point at a thing, by look or by where it lies; ``None`` where there is none.

    Args:
        scene: Where it is.
        thing: One of the scene's things.
        hide: The attribute that the words must not give away.
        dice: Source of choices.
    """
    direct, number = pointers(scene, thing, hide), scene.things.index(thing)
    # Of a character half of the look would say the rest.
    only_shape = hide == "shape" or (hide == "colour" and thing.name is not None)
    beside = []
    for other in scene.things:
        for relation, holds in RELATIONS.items():
            noun = "shape" if only_shape else dice.pick((thing.shape, "shape"))
            there = [t for t in scene.things if t is not other and holds(t, other) and noun in ("shape", t.shape)]
            if there == [thing] and (ways := pointers(scene, other)):
                way = dice.pick(ways)
                step = GQAOperation("relate", f"{noun},{relation},s ({number})", (len(way.steps) - 1,))
                words = f"the {noun}#{number} {relation} {way.words}"
                beside.append(Pointer(words, (*way.steps, step), "by relation"))
    if beside and (not direct or dice.chance(0.5)):
        return dice.pick(beside)
    return dice.pick(direct) if direct else None


def joined(first: Pointer, second: Pointer) -> tuple[tuple[GQAOperation, ...], tuple[int, int]]:
    """Return the steps of both, and where each of them ends."""
    by = len(first.steps)
    moved = [
        GQAOperation(step.operation, step.argument, tuple(i + by for i in step.dependencies)) for step in second.steps
    ]
    return (*first.steps, *moved), (by - 1, by + len(moved) - 1)
