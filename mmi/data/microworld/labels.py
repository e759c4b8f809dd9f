"""What each patch of a picture shows, and pictures with such labels to train a vision network on beforehand."""

from __future__ import annotations

import math

import numpy as np

from .dice import Dice
from .draw import Drawing, draw
from .language import captions
from .recipe import PRESETS, Recipe
from .scene import Scene, draw_scene
from .vocabulary import COLOURS, PLACES, SHAPES, TEXTURES, WORDS

LABEL_COUNTS = {
    "background": len(PLACES) + 1,
    "shape": len(SHAPES) + 1,
    "colour": len(COLOURS) + 1,
    "texture": len(TEXTURES) + 1,
    "digit": 11,
    "word": len(WORDS) + 1,
}
"""Number of classes per label, "nothing" (0) included."""

_PLACE_ID = {place.name: i for i, place in enumerate(PLACES, start=1)}
_SHAPE_ID = {shape: i for i, shape in enumerate(SHAPES, start=1)}
_COLOUR_ID = {colour.name: i for i, colour in enumerate(COLOURS, start=1)}


def patch_labels(
    scene: Scene, grid: int, *, image_size: int | None = None, drawing: Drawing | None = None
) -> dict[str, np.ndarray]:
    """Say what each patch shows: place, and shape, colour, texture and print of the thing that fills most of it.

    A thing counts where it covers an eighth of the patch; one that would be left out gets the patch that holds most of
    it. A digit counts where a third of its print lies, or else most of it; a word where an eighth lies.

    Args:
        scene: The scene graph.
        grid: Patches per side.
        image_size: Picture the patches are cut from; the smallest that fits the grid, at least 32, unless given.
        drawing: The scene already drawn at that size.

    Returns:
        ``background``, ``shape``, ``colour``, ``texture``, ``digit``, ``word``: int64[grid, grid] counted from one,
        0 is nothing; digit ``d`` is ``d + 1``.

    Raises:
        ValueError: If the grid does not divide the picture.
    """
    if image_size is None:
        step = math.lcm(16, max(1, grid))
        image_size = step * math.ceil(32 / step)
    if grid < 1 or image_size % grid:
        raise ValueError(f"a grid of {grid} patches does not divide a picture of {image_size} pixels.")
    drawing = drawing or draw(scene, image_size)
    patch = image_size // grid
    labels = {name: np.zeros((grid, grid), np.int64) for name in LABEL_COUNTS}
    labels["background"][:] = _PLACE_ID[scene.place]
    covered = np.stack([_covered(drawing.thing == number, grid) for number in range(len(scene.things))])
    shown = np.where(8 * covered.max(0) >= patch * patch, covered.argmax(0), -1)
    for number in range(len(scene.things)):
        if number not in shown:
            shown.flat[covered[number].argmax()] = number
    for number, thing in enumerate(scene.things):
        labels["shape"][shown == number] = _SHAPE_ID[thing.shape]
        labels["colour"][shown == number] = _COLOUR_ID[thing.colour]
        labels["texture"][shown == number] = TEXTURES.index(thing.texture) + 1
    for thing, box in zip(scene.things, drawing.print_box, strict=True):
        if box is not None and thing.print is not None:
            printed = np.outer(_overlap(box[0], box[2], grid, patch), _overlap(box[1], box[3], grid, patch))
            enough = min(box[2] * box[3] / (3 if thing.digit is not None else 8), int(printed.max()))
            if thing.digit is not None:
                labels["digit"][printed >= enough] = thing.digit + 1
            else:
                labels["word"][printed >= enough] = WORDS.index(thing.print.text) + 1
    return labels


def _covered(mask: np.ndarray, grid: int) -> np.ndarray:
    patch = len(mask) // grid
    return mask.reshape(grid, patch, grid, patch).sum((1, 3))


def _overlap(start: int, length: int, grid: int, patch: int) -> np.ndarray:
    first = np.arange(grid) * patch
    return np.clip(np.minimum(first + patch, start + length) - np.maximum(first, start), 0, None)


def pretraining_pictures(
    n: int, seed: int = 0, image_size: int = 32, grid: int = 8, recipe: Recipe = PRESETS["tiny"]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw pictures with patch labels from scenes that occur in no story, caption or question.

    Args:
        n: Number of pictures.
        seed: Another seed draws other scenes.
        image_size: Height and width, a multiple of 16.
        grid: Patches per side; divides the size.
        recipe: Shares of everything in them.

    Returns:
        Pictures uint8[n, 3, image_size, image_size], and labels as in ``patch_labels``, int64[n, grid, grid] each.

    Raises:
        ValueError: If the size is not a multiple of 16 or of the grid.
    """
    pictures = np.empty((n, 3, image_size, image_size), np.uint8)
    labels = {name: np.zeros((n, grid, grid), np.int64) for name in LABEL_COUNTS}
    for i in range(n):
        scene = _pretraining_scene(seed, i, recipe)
        drawing = draw(scene, image_size)
        pictures[i] = drawing.rgb.transpose(2, 0, 1)
        for name, value in patch_labels(scene, grid, image_size=image_size, drawing=drawing).items():
            labels[name][i] = value
    return pictures, labels


def pretraining_captions(n: int, seed: int = 0, recipe: Recipe = PRESETS["tiny"]) -> list[str]:
    """Return a caption that says everything for each picture of ``pretraining_pictures``."""
    dice = (Dice("pretraining", "caption", seed, i) for i in range(n))
    return [captions(_pretraining_scene(seed, i, recipe), choices, 1)[0] for i, choices in enumerate(dice)]


def _pretraining_scene(seed: int, i: int, recipe: Recipe) -> Scene:
    # More things than elsewhere: more to learn from each picture.
    return draw_scene(Dice("pretraining", seed, i), "pretraining", recipe=recipe, n_things=(1, 5))
