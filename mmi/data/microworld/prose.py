"""Longer texts about a scene: a written paragraph, and what somebody says who looks at it."""

from __future__ import annotations

from .dice import Dice
from .language import join, look, sentence, with_article
from .programs import RELATIONS
from .scene import Scene, Thing
from .vocabulary import NUMBERS, PLACE_BY_NAME, POSITIONS


def paragraph(scene: Scene, dice: Dice) -> str:
    """Return four or more sentences: the place, each thing with all that is seen of it, and how two of them lie.

    Args:
        scene: What it is about.
        dice: Source of choices.
    """
    place, things = PLACE_BY_NAME[scene.place], dice.shuffled(scene.things)
    count = f"{NUMBERS[len(things)]} {'shape' if len(things) == 1 else 'shapes'}"
    verb = "is" if len(things) == 1 else "are"
    texts = [
        dice.pick(
            (
                f"this is a picture of the {place.name}",
                f"the picture was made {place.phrase}",
                f"{place.phrase} there {verb} {count}",
                f"{count} {verb} {place.phrase}",
            )
        )
    ]
    for thing in things:
        texts += _described(thing, dice)
    texts += _how_two_lie(scene, dice)
    texts.append(_ending(scene, dice))
    return " ".join(map(sentence, texts))


def _described(thing: Thing, dice: Dice) -> list[str]:
    where = POSITIONS[thing.cell].phrase
    if thing.name is not None:
        who = f"{thing.name} the {thing.colour} {thing.shape}"
        return [dice.pick((f"{who} is {where}", f"{where} stands {who}"))]
    plain = with_article(look(thing, print=False))
    texts = [dice.pick((f"{plain} is {where}", f"{where} there is {plain}"))]
    if thing.print is not None:
        kind = "number" if thing.digit is not None else "word"
        printed = thing.print.text
        texts.append(
            dice.pick(
                (
                    f"the {kind} {printed} is printed on it",
                    f"in {thing.print.size} print it says {printed}",
                    f"on it one can read the {kind} {printed}",
                )
            )
        )
    return texts


def known(thing: Thing, scene: Scene) -> str:
    """Say which thing of a scene is meant: a name, or colour and shape, with its place where another is alike.

    Example:
        >>> from mmi.data.microworld.scene import Thing, arrange
        >>> scene = arrange("beach", [Thing("heart", "red", 0, "large"), Thing("heart", "red", 8, "small")])
        >>> known(scene.things[1], scene)
        'the red heart at the bottom right'
    """
    if thing.name is not None:
        return thing.name
    alike = sum((other.colour, other.shape) == (thing.colour, thing.shape) for other in scene.things)
    return f"the {thing.colour} {thing.shape}" + (f" {POSITIONS[thing.cell].phrase}" if alike > 1 else "")


def _how_two_lie(scene: Scene, dice: Dice) -> list[str]:
    if len(scene.things) < 2:
        return []
    first, second = dice.sample(scene.things, 2)
    relations = [words for words, holds in RELATIONS.items() if holds(first, second)]
    return [f"{known(first, scene)} is {dice.pick(relations)} {known(second, scene)}"]


def _ending(scene: Scene, dice: Dice) -> str:
    people = [thing.name for thing in scene.things if thing.name is not None]
    if people:
        verb = "looks" if len(people) == 1 else "look"
        return f"{join(people)} {verb} {dice.pick(('at us', 'out of the picture'))}"
    return dice.pick(("there is nobody in the picture", "nobody is there", "there is nothing else to see"))


def narrative(scene: Scene, dice: Dice) -> str:
    """Return what somebody says who points at one thing after the other: long, spoken, with words to spare.

    Args:
        scene: What it is about.
        dice: Source of choices.
    """
    place = PLACE_BY_NAME[scene.place]
    frame = dice.pick(("image", "picture"))
    texts: list[str] = []
    for number, thing in enumerate(dice.shuffled(scene.things)):
        where = POSITIONS[thing.cell].phrase
        start = dice.pick((f"in this {frame} we can see", f"in this {frame} I can see", f"in this {frame} there is"))
        if number:
            start = dice.pick(("we can also see", "then there is", "I can see", "and there is also"))
        texts.append(f"{start} {_spoken(thing, dice)} {dice.pick((where, f'which is {where}', f'here {where}'))}")
    texts.append(
        dice.pick(
            (
                f"in the background we can see the {place.name}",
                f"and all of this is {place.phrase}",
                f"it seems that the {frame} was taken {place.phrase}",
            )
        )
    )
    return " ".join(map(sentence, texts))


def _spoken(thing: Thing, dice: Dice) -> str:
    if thing.name is not None:
        return dice.pick((thing.name, f"{thing.name} who is {with_article(thing.colour)} {thing.shape}"))
    texture = "" if thing.texture == "plain" else f" and which is {thing.texture}"
    plain = with_article(look(thing, size=False, print=False, texture=False))
    size = dice.pick((f" which is {thing.size}", f" which looks {thing.size}"))
    if thing.print is None:
        return f"{plain}{size}{texture}"
    kind = "number" if thing.digit is not None else "word"
    printed = dice.pick((f" with the {kind} {thing.print.text} on it", f" on which {thing.print.text} is written"))
    return f"{plain}{printed}{size}{texture}"
