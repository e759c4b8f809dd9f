"""The scene graph: a place and the things in it, drawn so that no scene belongs to two splits."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, get_args

from .dice import Dice
from .vocabulary import CHARACTER_BY_NAME, CHARACTERS, COLOURS, NAME_BY_LOOK, PLACES, POSITIONS, SHAPES, SIZES

Split = Literal["train", "val", "test", "pretraining"]

# Of ten scene graphs, six are for training, one each for val and test, two for vision networks trained beforehand.
_SPLIT_OF_RESIDUE: tuple[Split, ...] = ("val", "test", "pretraining", "pretraining", *["train"] * 6)  # type: ignore[assignment]


@dataclass(frozen=True)
class Thing:
    """A shape in a cell.

    Args:
        shape: One of ``SHAPES``.
        colour: Name of one of ``COLOURS``.
        cell: 0 to 8, row by row.
        size: ``small`` or ``large``.
        digit: Printed on it, or ``None``; only large things have room.
    """

    shape: str
    colour: str
    cell: int
    size: str
    digit: int | None = None

    @property
    def name(self) -> str | None:
        """The character it is, if it is one."""
        return NAME_BY_LOOK.get((self.shape, self.colour))


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
        text = "|".join([self.place, *(f"{t.cell},{t.shape},{t.colour},{t.size},{t.digit}" for t in self.things)])
        return _SPLIT_OF_RESIDUE[blake2b(text.encode(), digest_size=8).digest()[-1] * 10 // 256]

    def record(self) -> dict[str, object]:
        """Return the scene graph as plain types."""
        things = [
            {"cell": POSITIONS[t.cell].name, "colour": t.colour, "digit": t.digit, "name": t.name, "shape": t.shape}
            | {"size": t.size}
            for t in self.things
        ]
        return {"place": self.place, "things": things}


def arrange(place: str, things: list[Thing]) -> Scene:
    """Return the scene of these things in any order."""
    return Scene(place, tuple(sorted(things, key=lambda thing: thing.cell)))


def character(name: str, cell: int) -> Thing:
    """Return a character standing in a cell: always large, always of one shape and colour."""
    look = CHARACTER_BY_NAME[name]
    return Thing(look.shape, look.colour, cell, "large")


def draw_thing(dice: Dice, cell: int, digit_share: float) -> Thing:
    """Draw a thing that is nobody.

    Args:
        dice: Source of choices.
        cell: Where it stands.
        digit_share: Share of things that are large and carry a digit.
    """
    while True:
        shape, colour = dice.pick(SHAPES), dice.pick(COLOURS).name
        if (shape, colour) not in NAME_BY_LOOK:
            break
    if dice.chance(digit_share):
        return Thing(shape, colour, cell, "large", dice.below(10))
    return Thing(shape, colour, cell, dice.pick(SIZES))


def draw_scene(
    dice: Dice, split: Split, *, n_things: tuple[int, int] = (1, 3), name_share: float = 0.3, digit_share: float = 0.6
) -> Scene:
    """Draw a scene of a split.

    Args:
        dice: Source of choices.
        split: Scenes of other splits are drawn again.
        n_things: Fewest and most things, each count equally often.
        name_share: Share of things that are characters.
        digit_share: Share of the others that carry a digit.

    Raises:
        ValueError: If the split is unknown.
    """
    if split not in get_args(Split):
        raise ValueError(f'unknown split "{split}"; expected one of {", ".join(get_args(Split))}.')
    while True:
        count = n_things[0] + dice.below(n_things[1] - n_things[0] + 1)
        cells = dice.sample(range(len(POSITIONS)), count)
        names = dice.sample(CHARACTERS, min(count, len(CHARACTERS)))
        things = [
            character(names.pop().name, cell)
            if names and dice.chance(name_share)
            else draw_thing(dice, cell, digit_share)
            for cell in cells
        ]
        scene = arrange(dice.pick(PLACES).name, things)
        if scene.split == split:
            return scene
