"""The scene graph: a place and the things in it, drawn so that no scene belongs to two splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Literal, get_args

from .dice import Dice
from .recipe import PRESETS, Recipe
from .vocabulary import (
    CHARACTER_BY_NAME,
    CHARACTERS,
    COLOURS,
    NAME_BY_LOOK,
    PLACES,
    POSITIONS,
    ROOMY_SHAPES,
    SHAPES,
    SIZES,
    TEXTURES,
    WORDS,
)

Split = Literal["train", "val", "test", "pretraining"]

# Of ten scene graphs, six are for training, one each for val and test, two for vision networks trained beforehand.
_SPLIT_OF_RESIDUE: tuple[Split, ...] = ("val", "test", "pretraining", "pretraining", *["train"] * 6)  # type: ignore[assignment]
_CELLS = {position.name: cell for cell, position in enumerate(POSITIONS)}


@dataclass(frozen=True)
class Print:
    """A digit or a word on a thing.

    Args:
        text: ``"0"`` to ``"9"`` or one of ``WORDS``.
        size: One of ``PRINT_SIZES``.
    """

    text: str
    size: str


@dataclass(frozen=True)
class Thing:
    """A shape in a cell.

    Args:
        shape: One of ``SHAPES``.
        colour: Name of one of ``COLOURS``.
        cell: 0 to 8, row by row.
        size: ``small`` or ``large``.
        texture: One of ``TEXTURES``.
        print: What is printed on it; only large things have room.
    """

    shape: str
    colour: str
    cell: int
    size: str
    texture: str = "plain"
    print: Print | None = None

    @property
    def name(self) -> str | None:
        """The character it is, if it is one."""
        return NAME_BY_LOOK.get((self.shape, self.colour))

    @property
    def digit(self) -> int | None:
        """The digit on it, if there is one."""
        return int(self.print.text) if self.print is not None and self.print.text.isdigit() else None

    @property
    def word(self) -> str | None:
        """The word on it, if there is one."""
        return self.print.text if self.print is not None and not self.print.text.isdigit() else None

    @property
    def key(self) -> str:
        """All attributes in one text, the same for equal things only."""
        printed = (self.print.text, self.print.size) if self.print is not None else ()
        return ",".join([str(self.cell), self.shape, self.colour, self.size, self.texture, *printed])


@dataclass(frozen=True)
class Scene:
    """A place and its things, ordered by cell; two equal scenes are the same picture."""

    place: str
    things: tuple[Thing, ...]

    def __post_init__(self) -> None:
        cells = [thing.cell for thing in self.things]
        assert cells == sorted(set(cells)), "things stand in different cells, in order"

    @property
    def split(self) -> Split:
        """The split this scene belongs to, decided by the scene graph alone."""
        text = "|".join([self.place, *(thing.key for thing in self.things)])
        return _SPLIT_OF_RESIDUE[blake2b(text.encode(), digest_size=8).digest()[-1] * 10 // 256]

    def record(self) -> dict[str, object]:
        """Return the scene graph as plain types."""
        things = [
            {
                "cell": POSITIONS[t.cell].name,
                "colour": t.colour,
                "name": t.name,
                "print": None if t.print is None else {"size": t.print.size, "text": t.print.text},
                "shape": t.shape,
                "size": t.size,
                "texture": t.texture,
            }
            for t in self.things
        ]
        return {"place": self.place, "things": things}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Scene:
        """Return the scene that ``record`` was made of; other keys are left alone.

        Raises:
            KeyError: If something is absent or a cell has no such name.
        """
        things = [
            Thing(
                t["shape"],
                t["colour"],
                _CELLS[t["cell"]],
                t["size"],
                t["texture"],
                None if t["print"] is None else Print(t["print"]["text"], t["print"]["size"]),
            )
            for t in record["things"]
        ]
        return cls(record["place"], tuple(things))


def arrange(place: str, things: Sequence[Thing]) -> Scene:
    """Return the scene of these things in any order."""
    return Scene(place, tuple(sorted(things, key=lambda thing: thing.cell)))


def character(name: str, cell: int) -> Thing:
    """Return a character standing in a cell: always large and plain, always of one shape and colour."""
    look = CHARACTER_BY_NAME[name]
    return Thing(look.shape, look.colour, cell, "large")


def draw_thing(dice: Dice, cell: int, recipe: Recipe = PRESETS["tiny"]) -> Thing:
    """Draw a thing that is nobody.

    Args:
        dice: Source of choices.
        cell: Where it stands.
        recipe: Shares of prints and textures.
    """
    while True:
        shape, colour = dice.pick(SHAPES), dice.pick(COLOURS).name
        if (shape, colour) not in NAME_BY_LOOK:
            break
    if not dice.chance(recipe.print_share):
        return Thing(shape, colour, cell, dice.pick(SIZES), _texture(dice, recipe.texture_share))
    texture = _texture(dice, recipe.printed_texture_share)
    return Thing(shape, colour, cell, "large", texture, draw_print(dice, shape, recipe))


def draw_print(dice: Dice, shape: str, recipe: Recipe) -> Print:
    """Draw a print for a large thing of a shape."""
    fine = "very small" if dice.chance(recipe.very_small_print_share) else "small"
    if shape in ROOMY_SHAPES and dice.chance(recipe.word_share):
        fewest, most = recipe.word_letters
        word = dice.pick([word for word in WORDS if fewest <= len(word) <= most])
        # Longer words have room only where they are very small.
        return Print(word, fine if len(word) == 2 or recipe.very_small_print_share == 0 else "very small")
    large = shape in ROOMY_SHAPES and dice.chance(recipe.large_print_share)
    return Print(str(dice.below(10)), "large" if large else fine)


def _texture(dice: Dice, share: float) -> str:
    return dice.pick(TEXTURES[1:]) if dice.chance(share) else TEXTURES[0]


def _similar(dice: Dice, thing: Thing, cell: int, recipe: Recipe) -> Thing | None:
    """Return a thing like another but for its colour, shape or print, or ``None`` where that would be a character."""
    fresh = draw_thing(dice, cell, recipe)
    change = dice.pick(("colour", "shape", "print"))
    if change == "colour":
        found = replace(thing, cell=cell, colour=fresh.colour)
    elif change == "shape":
        printed = thing.print if thing.digit is None or thing.print is None else Print(thing.print.text, "small")
        keeps = fresh.shape in ROOMY_SHAPES or thing.word is None
        found = replace(thing, cell=cell, shape=fresh.shape, print=printed if keeps else None)
    else:
        printed = draw_print(dice, thing.shape, recipe) if thing.size == "large" else None
        found = replace(thing, cell=cell, print=printed)
    return None if found.name is not None else found


def draw_scene(
    dice: Dice, split: Split, *, recipe: Recipe = PRESETS["tiny"], n_things: tuple[int, int] | None = None
) -> Scene:
    """Draw a scene of a split.

    Args:
        dice: Source of choices.
        split: Scenes of other splits are drawn again.
        recipe: Shares of everything.
        n_things: Fewest and most things where they differ from the recipe's.

    Raises:
        ValueError: If the split is unknown.
    """
    if split not in get_args(Split):
        raise ValueError(f'unknown split "{split}"; expected one of {", ".join(get_args(Split))}.')
    fewest, most = n_things or recipe.n_things
    while True:
        cells = dice.sample(range(len(POSITIONS)), fewest + dice.below(most - fewest + 1))
        names = dice.sample(CHARACTERS, len(CHARACTERS))
        things: list[Thing] = []
        for cell in cells:
            models = [thing for thing in things if thing.name is None]
            if names and dice.chance(recipe.name_share):
                things.append(character(names.pop().name, cell))
            elif models and dice.chance(recipe.similar_share):
                things.append(_similar(dice, dice.pick(models), cell, recipe) or draw_thing(dice, cell, recipe))
            else:
                things.append(draw_thing(dice, cell, recipe))
        scene = arrange(dice.pick(PLACES).name, things)
        if scene.split == split:
            return scene
