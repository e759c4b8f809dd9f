"""Expressions that refer to one thing of a scene and to no other, in the manners of RefCOCO, RefCOCO+ and RefCOCOg."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from mmi.data.microworld.dice import Dice
from mmi.data.microworld.language import look, with_article
from mmi.data.microworld.scene import Scene, Thing
from mmi.data.microworld.vocabulary import PLACE_BY_NAME, POSITIONS

# How a thing is called by some of its attributes; a scene may hold several things alike in all of them.
_ATTRIBUTES: Mapping[str, Callable[[Thing], str | None]] = {
    "colour": lambda thing: thing.colour,
    "shape": lambda thing: thing.shape,
    "size": lambda thing: thing.size,
    "texture": lambda thing: thing.texture,
    "print": lambda thing: None if thing.print is None else thing.print.text,
}
# Words of a thing that stands somewhere from another, with the cells' rows and columns.
_RELATIONS: Mapping[str, Callable[[int, int, int, int], bool]] = {
    "left of": lambda row, column, other_row, other_column: column < other_column,
    "right of": lambda row, column, other_row, other_column: column > other_column,
    "above": lambda row, column, other_row, other_column: row < other_row,
    "below": lambda row, column, other_row, other_column: row > other_row,
}


@dataclass(frozen=True)
class Referral:
    """An expression and what it tests.

    Args:
        text: Without full stop.
        tags: How the thing is pointed at, ``similar`` where another thing has its shape or colour, ``character``.
    """

    text: str
    tags: tuple[str, ...]


def by_place_or_look(scene: Scene, thing: Thing, dice: Dice, n: int = 3) -> tuple[Referral, ...]:
    """Return up to ``n`` short expressions, most of them saying where the thing is, as in RefCOCO.

    Args:
        scene: The picture.
        thing: One of its things.
        dice: Source of choices.
        n: How many at most.
    """
    position = POSITIONS[thing.cell]
    placed = [
        f"the shape {position.phrase}",
        f"{thing.name or f'{thing.colour} {thing.shape}'} {position.phrase}",
        f"{position.name} {thing.shape}",
        f"{thing.colour} one {position.phrase}",
    ]
    chosen = [_referral(scene, thing, text, ("by position",)) for text in dice.sample(placed, max(1, n - 1))]
    return (*chosen, *by_look(scene, thing, dice, n - len(chosen)))[:n]


def by_look(scene: Scene, thing: Thing, dice: Dice, n: int = 3) -> tuple[Referral, ...]:
    """Return up to ``n`` short expressions that say only what the thing looks like, as in RefCOCO+.

    None where another thing looks the same.

    Args:
        scene: The picture.
        thing: One of its things.
        dice: Source of choices.
        n: How many at most.
    """
    found = [] if thing.name is None else [_referral(scene, thing, thing.name, ("by name",))]
    others = [other for other in scene.things if other != thing]
    told: list[tuple[str, ...]] = []
    for count in (1, 2, 3, 4):
        for names in combinations(_ATTRIBUTES, count):
            # What is said already needs no further attribute.
            if not _says_something(thing, names) or any(set(shorter) <= set(names) for shorter in told):
                continue
            if all(any(_ATTRIBUTES[name](other) != _ATTRIBUTES[name](thing) for name in names) for other in others):
                told.append(names)
                found.append(_referral(scene, thing, _called(thing, names), tuple(f"by {name}" for name in names)))
    return tuple(dice.sample(found, min(n, len(found))))


def by_sentence(scene: Scene, thing: Thing, dice: Dice, n: int = 2) -> tuple[Referral, ...]:
    """Return up to ``n`` long expressions, as in RefCOCOg.

    Args:
        scene: The picture.
        thing: One of its things.
        dice: Source of choices.
        n: How many at most.
    """
    whole = thing.name or with_article(look(thing))
    phrase, place = POSITIONS[thing.cell].phrase, PLACE_BY_NAME[scene.place].phrase
    texts = [(f"{whole} that is {phrase} of the picture {place}", "by position")]
    texts.append((f"{phrase} {place} there is {whole}", "by position"))
    relations = [(text, "by relation") for text in _relations(scene, thing)]
    chosen = dice.sample(relations, min(n - 1, len(relations)))
    chosen += dice.sample(texts, min(n - len(chosen), len(texts)))
    return tuple(_referral(scene, thing, text, (tag,)) for text, tag in chosen)


def _relations(scene: Scene, thing: Thing) -> list[str]:
    """Return expressions that say where the thing is from another one, and fit nothing else."""
    found = []
    noun = thing.name or f"the {thing.colour} {thing.shape}"
    alike = [other for other in scene.things if (other.colour, other.shape) == (thing.colour, thing.shape)]
    for anchor in scene.things:
        called = anchor.name or f"the {anchor.colour} {anchor.shape}"
        if called == noun or sum((t.colour, t.shape) == (anchor.colour, anchor.shape) for t in scene.things) > 1:
            continue
        for words, holds in _RELATIONS.items():
            if [other for other in alike if holds(*divmod(other.cell, 3), *divmod(anchor.cell, 3))] == [thing]:
                found.append(f"{noun} that is {words} {called}")
    return found


def _says_something(thing: Thing, names: Sequence[str]) -> bool:
    """Tell whether each of the attributes is something one would mention."""
    return not ("print" in names and thing.print is None) and not ("texture" in names and thing.texture == "plain")


def _called(thing: Thing, names: Sequence[str]) -> str:
    adjectives = [getattr(thing, name) for name in ("size", "texture", "colour") if name in names]
    noun = thing.shape if "shape" in names else "shape"
    printed = ""
    if "print" in names and thing.print is not None:
        printed = f" with the {'number' if thing.digit is not None else 'word'} {thing.print.text}"
    return f"the {' '.join([*adjectives, noun])}{printed}"


def _referral(scene: Scene, thing: Thing, text: str, tags: tuple[str, ...]) -> Referral:
    others = [other for other in scene.things if other != thing]
    if "by print" in tags and thing.print is not None:
        tags = (*tags, "print", f"print {thing.print.size}")
    if any(other.shape == thing.shape or other.colour == thing.colour for other in others):
        tags = (*tags, "similar")
    return Referral(text, tags if thing.name is None else (*tags, "character"))
