"""Prompts, targets and answers side by side in one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

Part = str | Image.Image
_CELL, _MARGIN, _LINE, _WIDTH = 96, 8, 13, 40
_INK, _FAINT = (20, 20, 20), (120, 120, 120)


def contact_sheet(rows: Sequence[Sequence[Sequence[Part]]], headings: Sequence[str]) -> Image.Image:
    """Draw a table of interleaved text and pictures.

    Args:
        rows: One entry per row, holding one sequence of texts and pictures per column.
        headings: Name of each column.

    Returns:
        An RGB picture.
    """
    cells = [[_cell(parts) for parts in row] for row in rows]
    widths = [max([cell.width for cell in column]) for column in zip(*cells, strict=True)]
    heights = [max(cell.height for cell in row) for row in cells]
    top = _LINE + 2 * _MARGIN
    size = (sum(widths) + _MARGIN * (len(widths) + 1), top + sum(heights) + _MARGIN * len(heights))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    x = _MARGIN
    for heading, width in zip(headings, widths, strict=True):
        draw.text((x, _MARGIN), heading, fill=_FAINT, font=_font())
        x += width + _MARGIN
    y = top
    for row, height in zip(cells, heights, strict=True):
        x = _MARGIN
        for cell, width in zip(row, widths, strict=True):
            sheet.paste(cell, (x, y))
            x += width + _MARGIN
        y += height + _MARGIN
    return sheet


def _cell(parts: Sequence[Part]) -> Image.Image:
    """Stack texts and pictures in their order; neighbouring pictures stand beside each other."""
    bands: list[Image.Image] = []
    pictures: list[Image.Image] = []
    for part in parts:
        if isinstance(part, str):
            bands += _beside(pictures)
            pictures = []
            bands.append(_text(part))
        else:
            pictures.append(_picture(part))
    bands += _beside(pictures)
    if not bands:
        bands = [_text("-")]
    cell = Image.new("RGB", (max(b.width for b in bands), sum(b.height for b in bands)), "white")
    y = 0
    for band in bands:
        cell.paste(band, (0, y))
        y += band.height
    return cell


def _beside(pictures: list[Image.Image]) -> list[Image.Image]:
    if not pictures:
        return []
    band = Image.new("RGB", (len(pictures) * (_CELL + 4), _CELL + 4), "white")
    for i, picture in enumerate(pictures):
        band.paste(picture, (i * (_CELL + 4), 2))
    return [band]


def _picture(picture: Image.Image) -> Image.Image:
    """Bring a picture to one size; small ones are enlarged without blur, so that their pixels can be judged."""
    scale = _CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    shrink = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    return picture.convert("RGB").resize(size, shrink)


def _text(text: str) -> Image.Image:
    lines = textwrap.wrap(text, _WIDTH) or [""]
    width = max(int(_font().getlength(line)) for line in lines) + 4
    image = Image.new("RGB", (max(width, _CELL), _LINE * len(lines) + 4), "white")
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        draw.text((0, i * _LINE), line, fill=_INK, font=_font())
    return image


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default()
