"""What the micro-world is made of: places, colours, shapes, textures, positions, sizes, printed words, the people who
live there and what is known of them.

Changing anything here, or how scenes are drawn from it, changes the world: raise ``VERSION``.
"""

from __future__ import annotations

from dataclasses import dataclass

VERSION = 2

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Place:
    """A background of two broad bands, recognisable at any resolution.

    Args:
        name: Also the short answer to "what place is this".
        phrase: With its preposition.
        upper: Colour of the upper half.
        lower: Colour of the lower half.
    """

    name: str
    phrase: str
    upper: RGB
    lower: RGB


@dataclass(frozen=True)
class Colour:
    """A colour of things and the ink that prints on it."""

    name: str
    rgb: RGB
    ink: RGB


@dataclass(frozen=True)
class Character:
    """Somebody who looks the same in every picture; nothing else in the world has that shape in that colour."""

    name: str
    shape: str
    colour: str


@dataclass(frozen=True)
class Position:
    """A cell of the 3x3 grid, row by row.

    Args:
        name: Also the short answer to "where".
        phrase: With its preposition.
    """

    name: str
    phrase: str


@dataclass(frozen=True)
class Fact:
    """Something known in this world that no picture shows.

    Args:
        subject: A character's name or a shape.
        relation: ``home``, ``food``, ``job`` or ``friend`` of a character, ``material`` or ``use`` of a shape.
        value: One word.
    """

    subject: str
    relation: str
    value: str


BLACK: RGB = (10, 10, 10)
WHITE: RGB = (255, 255, 255)

# Backgrounds are pale or dark, things are saturated: each thing stands out from each place (tests measure it).
PLACES = (
    Place("meadow", "in the meadow", (205, 228, 246), (176, 212, 160)),
    Place("beach", "on the beach", (190, 218, 240), (240, 226, 190)),
    Place("snow", "in the snow", (214, 216, 230), (246, 247, 252)),
    Place("desert", "in the desert", (250, 232, 214), (226, 196, 160)),
    Place("forest", "in the forest", (178, 200, 178), (118, 146, 118)),
    Place("town", "in the town", (214, 214, 214), (158, 158, 162)),
    Place("lake", "at the lake", (216, 232, 232), (140, 182, 208)),
    Place("cave", "in the cave", (52, 54, 70), (88, 86, 98)),
)
COLOURS = (
    Colour("red", (214, 24, 36), WHITE),
    Colour("orange", (250, 126, 14), BLACK),
    Colour("yellow", (252, 218, 20), BLACK),
    Colour("green", (20, 146, 48), WHITE),
    Colour("blue", (28, 74, 214), WHITE),
    Colour("purple", (128, 36, 168), WHITE),
    Colour("pink", (252, 120, 190), BLACK),
    Colour("brown", (110, 58, 16), WHITE),
)
SHAPES = ("square", "circle", "triangle", "diamond", "cross", "heart")
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "dotted")
PRINT_SIZES = ("large", "small", "very small")
# Two letters fit a large square or circle of a picture of 32 pixels, four letters one of 64.
WORDS = (
    *("an", "as", "do", "go", "no", "on", "or", "us"),
    *("bus", "dog", "egg", "pen", "sea", "sun"),
    *("bank", "book", "desk", "door", "park", "rose"),
)
ROOMY_SHAPES = ("square", "circle")
"""Shapes that carry words and large digits; the others have room for a small digit."""
POSITIONS = (
    Position("top left", "at the top left"),
    Position("top", "at the top"),
    Position("top right", "at the top right"),
    Position("left", "on the left"),
    Position("middle", "in the middle"),
    Position("right", "on the right"),
    Position("bottom left", "at the bottom left"),
    Position("bottom", "at the bottom"),
    Position("bottom right", "at the bottom right"),
)
CHARACTERS = (
    Character("Ada", "circle", "red"),
    Character("Ben", "square", "blue"),
    Character("Cleo", "triangle", "yellow"),
    Character("Dan", "diamond", "green"),
    Character("Eva", "heart", "pink"),
    Character("Finn", "cross", "purple"),
)
LORE = tuple(
    Fact(subject, relation, value)
    for subject, relations in {
        "Ada": {"home": "lake", "food": "plums", "job": "baker", "friend": "Finn"},
        "Ben": {"home": "town", "food": "soup", "job": "doctor", "friend": "Eva"},
        "Cleo": {"home": "desert", "food": "dates", "job": "singer", "friend": "Ada"},
        "Dan": {"home": "forest", "food": "nuts", "job": "farmer", "friend": "Cleo"},
        "Eva": {"home": "beach", "food": "fish", "job": "sailor", "friend": "Dan"},
        "Finn": {"home": "cave", "food": "bread", "job": "miner", "friend": "Ben"},
        "square": {"material": "wood", "use": "building"},
        "circle": {"material": "rubber", "use": "rolling"},
        "triangle": {"material": "stone", "use": "sailing"},
        "diamond": {"material": "glass", "use": "trading"},
        "cross": {"material": "iron", "use": "healing"},
        "heart": {"material": "wool", "use": "giving"},
    }.items()
    for relation, value in relations.items()
)
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

PLACE_BY_NAME = {place.name: place for place in PLACES}
COLOUR_BY_NAME = {colour.name: colour for colour in COLOURS}
CHARACTER_BY_NAME = {character.name: character for character in CHARACTERS}
NAME_BY_LOOK = {(character.shape, character.colour): character.name for character in CHARACTERS}

FACTS = {(fact.subject, fact.relation): fact.value for fact in LORE}
