"""A picture of the world to look at: some stories, captioned pictures and quizzes with their texts."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from .draw import draw
from .layouts import WorldPart
from .scene import Scene

_TILE, _GAP, _COLUMNS, _TEXT_HEIGHT = 128, 12, 5, 92
_LINE_WIDTH = 22


def contact_sheet(part: WorldPart, image_size: int, n_stories: int = 4) -> Image.Image:
    """Return stories, one a row, then a row of captioned pictures and a row of quizzes.

    Args:
        part: Where items come from.
        image_size: Height and width the world is drawn at.
        n_stories: Rows of stories; fewer where the world has fewer.
    """
    rows: list[list[tuple[Scene, str]]] = []
    for i in range(min(n_stories, part.size)):
        rows.append([(frame.scene, frame.text) for frame in part.story(i).frames])
    captioned = [part.captioned(i) for i in range(min(_COLUMNS, part.size))]
    rows.append([(scene, texts[0]) for scene, texts, _ in captioned])
    rows.append([(scene, "\n".join(f"{q.text} {q.answer}" for q in questions)) for scene, _, questions in captioned])
    quizzes: list[tuple[Scene, str]] = []
    for i in range(min(_COLUMNS, part.size)):
        quiz = part.quiz(i)
        for scene, questions in zip(quiz.scenes, quiz.questions, strict=True):
            quizzes.append((scene, "\n".join(f"{q.text} {q.answer}" for q in questions)))
    rows.append(quizzes[:_COLUMNS])
    return _draw_rows(rows, image_size)


def _draw_rows(rows: Sequence[Sequence[tuple[Scene, str]]], image_size: int) -> Image.Image:
    width = _GAP + _COLUMNS * (_TILE + _GAP)
    height = _GAP + len(rows) * (_TILE + _TEXT_HEIGHT)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    for row, tiles in enumerate(rows):
        top = _GAP + row * (_TILE + _TEXT_HEIGHT)
        for column, (scene, text) in enumerate(tiles):
            left = _GAP + column * (_TILE + _GAP)
            picture = Image.fromarray(draw(scene, image_size).rgb)
            sheet.paste(picture.resize((_TILE, _TILE), Image.Resampling.NEAREST), (left, top))
            lines = [line for part in text.split("\n") for line in textwrap.wrap(part, _LINE_WIDTH)]
            pen.multiline_text((left, top + _TILE + 4), "\n".join(lines), fill="black", font=font, spacing=1)
    return sheet
