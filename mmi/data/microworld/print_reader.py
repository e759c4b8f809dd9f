"""Can print be read from a coarser picture? An ideal reader tells.

The reader knows the whole scene but what one print says, and every way the candidates may look in its place. It sees
the picture averaged over squares of ``coarseness`` pixels a side, each value rounded to 8 bits, with Gaussian noise on
each of them, and names the most likely candidate. No model that sees the same can do better.

Without noise the flat colours of this world give away some prints by an exact shade of grey. Noise of a tenth of the
range is what a reader has to stand anyway; at full resolution it does not matter at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .dice import Dice
from .draw import PALETTE, Layout, draw, print_places
from .recipe import PRESETS
from .scene import Print, Scene, Thing, draw_scene
from .vocabulary import COLOUR_BY_NAME, WORDS

NOISE = 25.0
"""Standard deviation of the noise, of 255 levels."""

_ROUNDING = 0.3  # standard deviation of an error of at most half a level


@dataclass(frozen=True)
class Legibility:
    """How often prints of a kind are read.

    Args:
        preset: Whose scenes.
        image_size: Height and width of the pictures.
        kind: ``number`` or ``word``.
        print_size: One of ``PRINT_SIZES``.
        coarseness: Pixels a side that are averaged; 4 is a quarter of the resolution.
        noise: Standard deviation of what is added to each value.
        accuracy: Share of prints read.
        chance: Accuracy of a guess.
        n: Number of prints.
    """

    preset: str
    image_size: int
    kind: str
    print_size: str
    coarseness: int
    noise: float
    accuracy: float
    chance: float
    n: int


def legibility(
    preset: str, image_size: int, kind: str, print_size: str, coarseness: int, *, noise: float = NOISE, n: int = 200
) -> Legibility:
    """Let the ideal reader read ``n`` prints of test scenes."""
    recipe = PRESETS[preset]
    candidates = _candidates(kind, recipe.word_letters)
    random = np.random.default_rng(0)
    read = 0
    for scene, number in _printed(preset, kind, print_size, n):
        read += read_print(scene, number, image_size, coarseness, noise, candidates, random) == _text(scene, number)
    return Legibility(
        preset, image_size, kind, print_size, coarseness, noise, round(read / n, 4), round(1 / len(candidates), 4), n
    )


def read_print(
    scene: Scene,
    number: int,
    image_size: int,
    coarseness: int,
    noise: float,
    candidates: Sequence[str],
    random: np.random.Generator,
) -> str:
    """Return the candidate that explains best what is seen of a print.

    Args:
        scene: What is in the picture.
        number: Which thing carries the print.
        image_size: Height and width of the picture.
        coarseness: Pixels a side that are averaged.
        noise: Standard deviation of what is added to each value.
        candidates: What may be printed.
        random: Source of noise.
    """
    thing = scene.things[number]
    assert thing.print is not None
    layout = Layout.of(image_size)
    size = layout.size_of(thing)
    top, left = layout.corner(thing.cell, size)
    first = top // coarseness, left // coarseness
    last = -(-(top + size) // coarseness), -(-(left + size) // coarseness)
    region = np.s_[first[0] * coarseness : last[0] * coarseness, first[1] * coarseness : last[1] * coarseness]

    def seen(rgb: np.ndarray) -> np.ndarray:
        part = rgb[region].astype(np.float64)
        height, width = part.shape[0] // coarseness, part.shape[1] // coarseness
        return np.round(part.reshape(height, coarseness, width, coarseness, 3).mean((1, 3)))

    truth = seen(draw(scene, image_size).rgb)
    picture = truth + random.normal(0, noise, truth.shape) if noise else truth
    blank = PALETTE[draw(_without_print(scene, number), image_size).indices]
    likelihood = []
    for text in candidates:
        candidate = replace(thing, print=Print(text, thing.print.size))
        errors = [((seen(way) - picture) ** 2).sum() for way in _ways(blank, candidate, layout, top, left)]
        scaled = -np.array(errors) / (2 * (noise**2 + _ROUNDING**2))
        # A word that is too long for its place is none of the candidates.
        likelihood.append(np.logaddexp.reduce(scaled) - np.log(len(errors)) if errors else -np.inf)
    return candidates[int(np.argmax(likelihood))]


def _ways(blank: np.ndarray, thing: Thing, layout: Layout, top: int, left: int) -> Iterator[np.ndarray]:
    """Yield the picture with the thing's print in each place it may have."""
    assert thing.print is not None
    ink = layout.print_mask(thing.print)
    if ink.shape[1] > layout.size_of(thing):
        return
    for row, column in print_places(thing, layout.size_of(thing), ink):
        picture = blank.copy()
        inked = picture[top + row : top + row + ink.shape[0], left + column : left + column + ink.shape[1]]
        inked[ink] = COLOUR_BY_NAME[thing.colour].ink
        yield picture


def _without_print(scene: Scene, number: int) -> Scene:
    things = list(scene.things)
    things[number] = replace(things[number], print=None)
    return Scene(scene.place, tuple(things))


def _text(scene: Scene, number: int) -> str:
    printed = scene.things[number].print
    assert printed is not None
    return printed.text


def _candidates(kind: str, letters: tuple[int, int]) -> list[str]:
    if kind == "number":
        return [str(digit) for digit in range(10)]
    return [word for word in WORDS if letters[0] <= len(word) <= letters[1]]


def _printed(preset: str, kind: str, print_size: str, n: int) -> Iterator[tuple[Scene, int]]:
    """Yield ``n`` test scenes with the number of a thing that has such a print."""
    found = i = 0
    while found < n:
        scene = draw_scene(Dice("legibility", preset, i), "test", recipe=PRESETS[preset])
        i += 1
        for number, thing in enumerate(scene.things):
            fits = thing.print is not None and thing.print.size == print_size
            if fits and (thing.digit is not None) == (kind == "number") and found < n:
                found += 1
                yield scene, number
