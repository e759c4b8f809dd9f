"""Phrases for what a scene holds, and captions that say it in several ways."""

from __future__ import annotations

from collections.abc import Sequence

from .dice import Dice
from .scene import Scene, Thing
from .vocabulary import NUMBERS, PLACE_BY_NAME, POSITIONS


def with_article(phrase: str) -> str:
    """Put "a" or "an" before a phrase of this world.

    Example:
        >>> with_article("orange heart")
        'an orange heart'
    """
    return f"{'an' if phrase[0] in 'aeio' else 'a'} {phrase}"


def look(thing: Thing, *, size: bool = True, print: bool = True, texture: bool = True) -> str:
    """Say what a thing looks like, without article.

    Example:
        >>> from mmi.data.microworld.scene import Print
        >>> look(Thing("square", "red", 0, "large", "striped", Print("7", "small")))
        'large striped red square with the number 7'
    """
    words = f"{thing.size} " if size else ""
    words += f"{thing.texture} " if texture and thing.texture != "plain" else ""
    printed = ""
    if print and thing.print is not None:
        printed = f" with the {'number' if thing.digit is not None else 'word'} {thing.print.text}"
    return f"{words}{thing.colour} {thing.shape}{printed}"


def mention(thing: Thing, *, size: bool = True, print: bool = True, texture: bool = True, position: bool = True) -> str:
    """Say a character's name or an unknown thing with its article, and where it is."""
    words = thing.name or with_article(look(thing, size=size, print=print, texture=texture))
    return f"{words} {POSITIONS[thing.cell].phrase}" if position else words


def join(phrases: Sequence[str]) -> str:
    """Join phrases as one says them.

    Example:
        >>> join(["Ada", "Ben", "a heart"])
        'Ada, Ben and a heart'
    """
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def sentence(text: str) -> str:
    """Return the text with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def full_captions(scene: Scene, dice: Dice) -> list[str]:
    """Return captions that say everything: each thing with size, texture, print and position, and the place."""
    place = PLACE_BY_NAME[scene.place]

    def things() -> str:
        return join([mention(thing) for thing in dice.shuffled(scene.things)])

    return [
        sentence(f"{things()}, {place.phrase}"),
        sentence(f"{place.phrase} there is {things()}"),
        sentence(f"a picture of {things()}, {place.phrase}"),
        sentence(f"{place.phrase} we see {things()}"),
        sentence(f"the {place.name}, with {things()}"),
    ]


def short_captions(scene: Scene, dice: Dice) -> list[str]:
    """Return captions that leave something out, as people do."""
    place = PLACE_BY_NAME[scene.place]
    order = dice.shuffled(scene.things)
    bare = join([mention(t, size=False, print=False, texture=False, position=False) for t in order])
    count = len(order)
    shapes = f"{NUMBERS[count]} shape{'s' if count > 1 else ''}"
    return [
        sentence(f"{bare} {place.phrase}"),
        sentence(f"{shapes} {place.phrase}: {bare}"),
        sentence(f"{place.phrase}, {join([mention(t, size=False, print=False, texture=False) for t in order])}"),
    ]


def further_captions(scene: Scene, dice: Dice) -> list[str]:
    """Return two more captions that say everything, for who asks for more than eight."""
    place = PLACE_BY_NAME[scene.place]
    shown, seen = (join([mention(thing) for thing in dice.shuffled(scene.things)]) for _ in range(2))
    return [sentence(f"this picture shows {shown}, {place.phrase}"), sentence(f"{seen} can be seen {place.phrase}")]


def captions(scene: Scene, dice: Dice, n: int = 5) -> tuple[str, ...]:
    """Return ``n`` different captions of a scene, the first of them a full one.

    Args:
        scene: What they say.
        dice: Source of choices.
        n: At most 10; of five, three are full.

    Raises:
        ValueError: If more are asked for than there are ways to say it.
    """
    full, short = full_captions(scene, dice), short_captions(scene, dice)
    if n > len(full) + len(short):
        full += further_captions(scene, dice)
    if not 1 <= n <= len(full) + len(short):
        raise ValueError(f"{n} captions were asked for; a scene has between 1 and {len(full) + len(short)}.")
    full = dice.shuffled(full)
    n_short = min(len(short), n * 2 // 5)
    chosen = [full.pop(), *dice.shuffled([*full[: n - 1 - n_short], *dice.sample(short, n_short)])]
    left = full[n - 1 - n_short :] + short
    return tuple(chosen + [text for text in left if text not in chosen][: n - len(chosen)])
