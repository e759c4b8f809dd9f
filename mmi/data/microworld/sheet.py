"""A picture of the world to look at: stories, captions, layout maps, questions, textures and prints."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import cycle

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .draw import LAYOUT_CLASSES, Drawing, Layout, draw, layout_map
from .language import captions
from .layouts import WorldPart
from .questions import ask_several, draw_quiz
from .scene import Print, Scene, Thing
from .story import tell_story
from .vocabulary import COLOURS, NAME_BY_LOOK, PLACES, SHAPES, TEXTURES, WORDS

_TILE, _GAP, _COLUMNS, _TEXT_HEIGHT = 128, 12, 5, 92
_LINE_WIDTH = 22

Tile = tuple[Image.Image, str]


def contact_sheet(part: WorldPart, n_stories: int = 4) -> Image.Image:
    """Return stories, one a row, then rows of captioned pictures, their layout maps, quizzes, textures and prints.

    Args:
        part: Where items come from.
        n_stories: Rows of stories; fewer where the world has fewer.
    """
    size, recipe = part.image_size, part.recipe
    rows: list[list[Tile]] = []
    for i in range(min(n_stories, part.size)):
        frames = tell_story(part.dice("story", i), part.split, recipe).frames
        rows.append([(_picture(frame.scene, size), frame.text) for frame in frames])
    numbers = range(min(_COLUMNS, part.size))
    shown = [part.scene("coco", i) for i in numbers]
    rows.append([(_picture(s, size), captions(s, part.dice("captions", i))[0]) for i, s in enumerate(shown)])
    rows.append([_map_tile(draw(scene, size), i, part) for i, scene in enumerate(shown)])
    quizzes: list[Tile] = []
    for i in numbers:
        quiz = draw_quiz(part.dice("quiz", i), part.split, recipe)
        for scene, questions in zip(quiz.scenes, quiz.questions, strict=True):
            quizzes.append((_picture(scene, size), "\n".join(f"{q.text} {q.answer}" for q in questions)))
    rows.append(quizzes[:_COLUMNS])
    rows.append([(_picture(scene, size), text) for scene, text in (*_textures(), *_prints(size))][:_COLUMNS])
    return _draw_rows(rows)


def _picture(scene: Scene, image_size: int) -> Image.Image:
    return Image.fromarray(draw(scene, image_size).rgb)


def _map_tile(drawing: Drawing, i: int, part: WorldPart) -> Tile:
    """Return the layout map in grey with its classes, and questions about the picture."""
    classes = layout_map(drawing)
    grey = Image.fromarray((classes.astype(np.uint16) * 255 // (len(LAYOUT_CLASSES) - 1)).astype(np.uint8))
    names = ", ".join(LAYOUT_CLASSES[number] for number in np.unique(classes))
    questions = ask_several(drawing.scene, 3, part.dice("vqa", i), part.recipe)
    return grey.convert("RGB"), "\n".join([f"Map: {names}.", *(f"{q.text} {q.answer}" for q in questions)])


def _looks() -> list[tuple[str, str]]:
    """Return nine shapes with colours that are nobody's."""
    looks = zip(cycle(SHAPES), cycle(colour.name for colour in COLOURS))
    found: list[tuple[str, str]] = []
    while len(found) < 9:
        look = next(looks)
        found += [look] if look not in NAME_BY_LOOK else []
    return found


def _textures() -> list[tuple[Scene, str]]:
    things = [Thing(*look, n, ("large", "small")[n % 2], TEXTURES[n % 3]) for n, look in enumerate(_looks())]
    return [(Scene(PLACES[0].name, tuple(things)), "Plain, striped and dotted things.")]


def _prints(image_size: int) -> list[tuple[Scene, str]]:
    """Return digits and words in every size that has room on a large square."""
    room = Layout.of(image_size)
    rows: list[tuple[Scene, str]] = []
    for size in ("large", "small", "very small")[: 3 if image_size >= 64 else 2]:
        digits = [Thing("square", COLOURS[n % 8].name, n, "large", "plain", Print(str(n), size)) for n in range(9)]
        rows.append((Scene("town", tuple(digits)), f"{size.capitalize()} digits."))
    for size in ("small", "very small")[: 2 if image_size >= 64 else 1]:
        fit = [w for w in reversed(WORDS) if room.print_mask(Print(w, size)).shape[1] <= room.large][:9]
        words = [Thing("square", COLOURS[n % 8].name, n, "large", "plain", Print(w, size)) for n, w in enumerate(fit)]
        rows.append((Scene("lake", tuple(words)), f"{size.capitalize()} words: {', '.join(fit)}."))
    return rows[-(_COLUMNS - 1) :]


def _draw_rows(rows: Sequence[Sequence[Tile]]) -> Image.Image:
    width = _GAP + _COLUMNS * (_TILE + _GAP)
    height = _GAP + len(rows) * (_TILE + _TEXT_HEIGHT)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    for row, tiles in enumerate(rows):
        top = _GAP + row * (_TILE + _TEXT_HEIGHT)
        for column, (picture, text) in enumerate(tiles):
            left = _GAP + column * (_TILE + _GAP)
            sheet.paste(picture.resize((_TILE, _TILE), Image.Resampling.NEAREST), (left, top))
            lines = [line for part in text.split("\n") for line in textwrap.wrap(part, _LINE_WIDTH)]
            pen.multiline_text((left, top + _TILE + 4), "\n".join(lines), fill="black", font=font, spacing=1)
    return sheet
