"""Pictures with everything that is known about them, to teach judges on scenes that occur nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .dice import Dice
from .draw import LAYOUT_CLASSES, Layout, draw, layout_map
from .language import captions, full_captions
from .recipe import PRESETS, Recipe
from .scene import Scene, Thing, arrange, draw_scene
from .vocabulary import COLOURS, PLACES, POSITIONS, SHAPES, SIZES, TEXTURES, WORDS

CELL_CLASSES = {
    "shape": ("", *SHAPES),
    "colour": ("", *(colour.name for colour in COLOURS)),
    "texture": ("", *TEXTURES),
    "size": ("", *SIZES),
    "print": ("", *"0123456789", *WORDS),
}
"""What is told about each cell, in the order of ``JudgedPictures.cells``; the first class of each is nothing."""

PLACE_CLASSES = tuple(place.name for place in PLACES)
MAP_CLASSES = ("", *LAYOUT_CLASSES[1:])


@dataclass(frozen=True)
class JudgedPictures:
    """Pictures with the truth about them.

    Args:
        pictures: uint8[n, 3, S, S].
        background: int64[n], rows of ``PLACE_CLASSES``.
        cells: int64[n, 9, 5] by ``CELL_CLASSES``, cells row by row.
        layout: uint8[n, S, S], rows of ``MAP_CLASSES``.
        captions: Five texts of each picture; the first says everything.
        foils: A text of each picture that says everything but one attribute right.
    """

    pictures: np.ndarray
    background: np.ndarray
    cells: np.ndarray
    layout: np.ndarray
    captions: tuple[tuple[str, ...], ...]
    foils: tuple[str, ...]


def judged_pictures(
    n: int, seed: int = 0, image_size: int = 32, recipe: Recipe = PRESETS["tiny"]
) -> tuple[JudgedPictures, Layout]:
    """Draw pictures of different scenes of the ``pretraining`` split, other ones than vision networks are taught on.

    Args:
        n: Number of pictures; no two show the same scene, so any of them can be held out.
        seed: Another seed draws other scenes.
        image_size: Height and width, a multiple of 16.
        recipe: Shares of everything in them.

    Returns:
        The pictures, and where their cells lie.

    Raises:
        ValueError: If the size is not a multiple of 16.
    """
    layout = Layout.of(image_size)
    scenes: dict[Scene, str] = {}
    i = 0
    while len(scenes) < n:
        dice = Dice("judging", seed, i)
        # More things than elsewhere: more to learn from each picture.
        scene = draw_scene(dice, "pretraining", recipe=recipe, n_things=(1, max(5, recipe.n_things[1])))
        scenes.setdefault(scene, foil(scene, dice))
        i += 1
    pictures = np.empty((n, 3, image_size, image_size), np.uint8)
    maps = np.empty((n, image_size, image_size), np.uint8)
    cells = np.zeros((n, len(POSITIONS), len(CELL_CLASSES)), np.int64)
    for i, scene in enumerate(scenes):
        drawing = draw(scene, image_size)
        pictures[i] = drawing.rgb.transpose(2, 0, 1)
        maps[i] = layout_map(drawing)
        for thing in scene.things:
            printed = "" if thing.print is None else thing.print.text
            names = (thing.shape, thing.colour, thing.texture, thing.size, printed)
            pairs = zip(CELL_CLASSES.values(), names, strict=True)
            cells[i, thing.cell] = [classes.index(name) for classes, name in pairs]
    background = np.array([PLACE_CLASSES.index(scene.place) for scene in scenes], np.int64)
    texts = tuple(captions(scene, Dice("judging", "captions", seed, i)) for i, scene in enumerate(scenes))
    return JudgedPictures(pictures, background, cells, maps, texts, tuple(scenes.values())), layout


def foil(scene: Scene, dice: Dice) -> str:
    """Return a full caption in which one thing has another colour, shape, texture or print, or stands elsewhere.

    Example:
        >>> scene = Scene("cave", (Thing("heart", "red", 4, "small"),))
        >>> foil(scene, Dice(2))
        'In the cave there is a small striped red heart in the middle.'
    """
    texts = set(full_captions(scene, dice))
    while True:
        thing = dice.pick(scene.things)
        free = [cell for cell in range(len(POSITIONS)) if all(cell != other.cell for other in scene.things)]
        change = dice.pick(("colour", "shape", "texture", "print", "cell"))
        changed = _changed(thing, change, dice, dice.pick(free) if free else thing.cell)
        if changed is None or changed == thing:
            continue
        other = arrange(scene.place, [changed if one is thing else one for one in scene.things])
        text = dice.pick(full_captions(other, dice))
        # Of a character only the name is said, so that not every change can be heard.
        if text not in texts and (thing.name is None or changed.name != thing.name or change == "cell"):
            return text


def _changed(thing: Thing, change: str, dice: Dice, cell: int) -> Thing | None:
    if change == "colour":
        return replace(thing, colour=dice.pick(COLOURS).name)
    if change == "shape":
        return replace(thing, shape=dice.pick(SHAPES))
    if change == "texture":
        return replace(thing, texture=dice.pick(TEXTURES))
    if change == "cell":
        return replace(thing, cell=cell)
    if thing.print is None:
        return None
    alike = "0123456789" if thing.digit is not None else [word for word in WORDS if len(word) == len(thing.print.text)]
    return replace(thing, print=replace(thing.print, text=dice.pick(alike)))
