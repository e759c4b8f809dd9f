"""Sampling points and heat maps on the context pictures, as one PIL picture with captions and a legend."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from mmi.inspection.heat import HeatMaps
from mmi.inspection.looks import Looks, check_choice, mass
from mmi.inspection.marks import (
    LEVEL_COLOURS,
    MARGIN,
    Mark,
    corners,
    heat_colours,
    layer_words,
    marks_of,
    picture_words,
    radius,
    shape_name,
)
from mmi.inspection.sampling import LookRecord

_SIDE = 256
_EDGE = round(_SIDE * MARGIN)
_CELL = _SIDE + 2 * _EDGE
_GAP, _LINE = 10, 19
_FINE = 3
"""Marks are drawn so many times larger and scaled down, which makes their edges smooth."""
_INK, _FAINT, _PAPER, _ROOM = (24, 24, 28), (95, 95, 105), (255, 255, 255), (236, 237, 241)
_FOOTPRINTS = 3
_LABELS = 92


def draw_looks(
    looks: Looks, records: Sequence[LookRecord], head: int | None = None, level: int | None = None
) -> Image.Image:
    """Draw the context pictures and below them, for each record, its sampling points and its heat map.

    Args:
        looks: Where a token or pixel looked.
        records: Of the layers to draw.
        head: One head; ``None`` is all.
        level: One level of the pyramid; ``None`` is all.

    Returns:
        An RGB picture.

    Raises:
        ConfigError: If there is no such head or level.
    """
    for record in records:
        check_choice(record, head, level)
    n = max(1, len(looks.pictures) + (looks.drawn is not None))
    width = max(_LABELS + n * (_CELL + _GAP) + _GAP, 620)
    parts = [_heading(looks, width, head, level), *_context(looks, width)]
    for record in records:
        parts += _layer(looks, record, head, level, width)
    parts.append(_legend(records, level, width))
    sheet = Image.new("RGB", (width, sum(part.height for part in parts) + _GAP), _PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def points_panel(
    picture: Image.Image, marks: Sequence[Mark], heaviest: float, reference: tuple[float, float] | None
) -> Image.Image:
    """Draw marks on one picture, with room around it for points outside.

    Args:
        picture: Any size.
        marks: Heaviest first.
        heaviest: Weight of the largest mark.
        reference: Where the points spread from.
    """
    side, edge = _SIDE * _FINE, _EDGE * _FINE
    panel = Image.new("RGB", (_CELL * _FINE, _CELL * _FINE), _ROOM)
    panel.paste(_faded(_enlarged(picture, side)), (edge, edge))
    layer = Image.new("RGBA", panel.size)
    draw = ImageDraw.Draw(layer)

    def place(x: float, y: float) -> tuple[float, float]:
        return edge + x * side, edge + y * side

    for mark in marks[:_FOOTPRINTS]:
        (x, y), (w, h) = place(mark.x, mark.y), mark.cell
        box = (x - w * side / 2, y - h * side / 2, x + w * side / 2, y + h * side / 2)
        draw.rectangle(box, outline=(20, 20, 20, 150), width=2 * _FINE)
        draw.rectangle(box, outline=_rgba(mark.level, 255), width=_FINE)
    for mark in marks:
        (x, y), r = place(mark.x, mark.y), radius(mark.weight, heaviest) * side
        polygon = corners(mark.level, x, y, r)
        pen = _FINE if r > 4 * _FINE else max(1, _FINE // 2)
        if polygon:
            draw.polygon(polygon, fill=_rgba(mark.level, 215), outline=(15, 15, 15, 255), width=pen)
        else:
            draw.ellipse((x - r, y - r, x + r, y + r), _rgba(mark.level, 215), (15, 15, 15, 255), pen)
    if reference is not None:
        _cross(draw, *place(*reference), _FINE)
    panel.paste(layer, mask=layer)
    return panel.resize((_CELL, _CELL), Image.Resampling.LANCZOS)


def heat_panel(picture: Image.Image, colours: Image.Image) -> Image.Image:
    """Lay a heat map over one picture in grey.

    Args:
        picture: Any size.
        colours: What ``heat_colours`` painted.
    """
    panel = Image.new("RGB", (_CELL, _CELL), _PAPER)
    base = _enlarged(picture, _SIDE).convert("L").convert("RGB")
    base = Image.blend(base, Image.new("RGB", base.size, (150, 150, 150)), 0.4)
    glow = colours.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
    base.paste(glow, mask=glow)
    panel.paste(base, (_EDGE, _EDGE))
    return panel


def font(size: int = 14) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Return the font of every caption, Pillow's own."""
    return ImageFont.load_default(size)


def _heading(looks: Looks, width: int, head: int | None, level: int | None) -> Image.Image:
    chosen = [f"head {head}"] if head is not None else []
    chosen += [f"level {level}"] if level is not None else []
    title = f"Where the model looks when {looks.moment}" + (f" ({', '.join(chosen)} only)" if chosen else "")
    lines = [f"{name}: {text}" for name, text in looks.facts.items()]
    return _text([title], width, 17) if not lines else _stacked([_text([title], width, 17), _text(lines, width)])


def _context(looks: Looks, width: int) -> list[Image.Image]:
    """Show the pictures that are looked at, and the drawn one with the pixel that looks."""
    if not looks.pictures:
        return [_text(["There is no picture in the context."], width)]
    panels = [_framed(_enlarged(picture, _SIDE)) for picture in looks.pictures]
    names = [f"picture {k + 1}" for k in range(len(panels))] if len(panels) > 1 else ["the picture"]
    if looks.drawn is not None and looks.pixel is not None:
        drawn = _enlarged(looks.drawn, _SIDE)
        _cross(ImageDraw.Draw(drawn), looks.pixel[0] * _SIDE, looks.pixel[1] * _SIDE, 1)
        panels.append(_framed(drawn))
        names.append("what it draws, and the pixel")
    return [_row(names, "", width), _panels(panels, "as the model\nsees it", width)]


def _framed(picture: Image.Image) -> Image.Image:
    panel = Image.new("RGB", (_CELL, _SIDE + 6), _PAPER)
    panel.paste(picture, (_EDGE, 3))
    return panel


def _cross(draw: ImageDraw.ImageDraw, x: float, y: float, scale: int) -> None:
    for colour, pen in (((255, 255, 255, 255), 4 * scale), ((0, 0, 0, 255), 2 * scale)):
        reach = 7 * scale
        draw.line((x - reach, y, x + reach, y), colour, pen)
        draw.line((x, y - reach, x, y + reach), colour, pen)


def _layer(looks: Looks, record: LookRecord, head: int | None, level: int | None, width: int) -> list[Image.Image]:
    if not looks.pictures:
        return []
    n = len(looks.pictures)
    marks = [marks_of(record, image, head, level) for image in range(n)]
    heaviest = max((mark.weight for of_one in marks for mark in of_one), default=0.0)
    maps = HeatMaps(record)
    grids, hottest = [maps.of(image, head, level) for image in range(n)], maps.highest(head, level)
    reference = None if record.layer.is_dense else (float(record.reference[0, 0]), float(record.reference[0, 1]))
    null = float(record.null[0].mean() if head is None else record.null[0, head])
    step = record.call + 1 if looks.pixel is not None else None
    placed = record.layer.is_placed
    seen = [placed and bool(record.distance[0, image]) for image in range(n)]
    why = "hidden from here" if placed else "tokens without a place"
    points = [
        points_panel(picture, of_one, heaviest, reference) if visible else _veiled(picture, why)
        for picture, of_one, visible in zip(looks.pictures, marks, seen, strict=True)
    ]
    glows = [
        heat_panel(picture, heat_colours(grid, hottest)) if visible else _veiled(picture, why)
        for picture, grid, visible in zip(looks.pictures, grids, seen, strict=True)
    ]
    words = [f"{layer_words(record, step)}; null slot {null:.0%} of the weight"]
    return [
        _rule(width),
        _text(words, width, 15),
        _row([picture_words(looks, record, image, head) for image in range(n)], "weight", width),
        _panels(points, "where:\nsampling\npoints", width),
        _panels([_trimmed(glow) for glow in glows], "how much:\nweight\nper cell", width),
    ]


def _legend(records: Sequence[LookRecord], level: int | None, width: int) -> Image.Image:
    """Explain marks, colours and the cross."""
    shapes = {
        number: shape
        for record in records
        for number, shape in zip(record.layer.levels, record.level_shapes, strict=True)
        if level in (None, number)
    }
    rows = Image.new("RGB", (width, _LINE * (len(shapes) + 3) + 2 * _GAP), _PAPER)
    draw = ImageDraw.Draw(rows)
    totals = {number: _level_share(records, number) for number in shapes}
    top = _GAP
    for number, (h, w) in sorted(shapes.items()):
        outline = corners(number, _GAP + 9, top + 9, 6)
        if outline:
            draw.polygon(outline, fill=LEVEL_COLOURS[number], outline=_INK)
        else:
            draw.ellipse((_GAP + 3, top + 3, _GAP + 15, top + 15), fill=LEVEL_COLOURS[number], outline=_INK)
        words = f"{shape_name(number)}: level {number} of the feature pyramid, {w} x {h} cells ({totals[number]})"
        draw.text((_GAP + 28, top), words, _INK, font())
        top += _LINE
    notes = [
        "A mark's area is its weight; frames around the heaviest show the reach of their bilinear sampling.",
        "The cross is where the points start from; those in the grey margin lie outside and read zeros.",
        "Bright cells in the second view got the most weight, summed over all footprints.",
    ]
    if any(record.layer.is_dense for record in records):
        notes[1] = "This layer attends to every position: each mark is the centre of a cell."
    for line in notes:
        draw.text((_GAP, top), line, _FAINT, font(13))
        top += _LINE
    return rows


def _level_share(records: Sequence[LookRecord], number: int) -> str:
    shares = [float(mass(r)[:, r.layer.levels.index(number)].sum()) for r in records if number in r.layer.levels]
    return f"{shares[0]:.0%} of the weight" if len(shares) == 1 else f"{min(shares):.0%} to {max(shares):.0%}"


def _panels(panels: Sequence[Image.Image], label: str, width: int) -> Image.Image:
    """Put panels beside each other, with a label on their left."""
    height = max(panel.height for panel in panels) + 4
    band = Image.new("RGB", (width, height), _PAPER)
    ImageDraw.Draw(band).multiline_text((_GAP, _EDGE), label, _FAINT, font(13), spacing=3)
    for k, panel in enumerate(panels):
        band.paste(panel, (_LABELS + k * (_CELL + _GAP), 0))
    return band


def _row(texts: Sequence[str], label: str, width: int) -> Image.Image:
    """Put captions above panels."""
    band = Image.new("RGB", (width, _LINE + 4), _PAPER)
    draw = ImageDraw.Draw(band)
    draw.text((_GAP, 3), label, _FAINT, font(13))
    for k, text in enumerate(texts):
        size = 14 if font(14).getlength(text) <= _CELL else 12
        draw.text((_LABELS + k * (_CELL + _GAP) + _EDGE, 3), text, _INK, font(size))
    return band


def _text(lines: Sequence[str], width: int, size: int = 14) -> Image.Image:
    letters = max(20, int((width - 2 * _GAP) / (size * 0.52)))
    wrapped = [piece for line in lines for piece in textwrap.wrap(line, letters) or [""]]
    band = Image.new("RGB", (width, len(wrapped) * (size + 5) + _GAP), _PAPER)
    draw = ImageDraw.Draw(band)
    for k, line in enumerate(wrapped):
        draw.text((_GAP, 6 + k * (size + 5)), line, _INK, font(size))
    return band


def _rule(width: int) -> Image.Image:
    band = Image.new("RGB", (width, _GAP), _PAPER)
    ImageDraw.Draw(band).line((_GAP, _GAP - 2, width - _GAP, _GAP - 2), (205, 206, 214), 1)
    return band


def _stacked(parts: Sequence[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), _PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _enlarged(picture: Image.Image, side: int) -> Image.Image:
    """Bring a picture to one size, small ones without blur, so that their pixels can be told apart."""
    small = max(picture.size) <= side // 2
    resample = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    return picture.convert("RGB").resize((side, side), resample)


def _faded(picture: Image.Image) -> Image.Image:
    """Take some colour and contrast away, so that marks stand out."""
    grey = picture.convert("L").convert("RGB")
    return Image.blend(Image.blend(picture, grey, 0.35), Image.new("RGB", picture.size, (255, 255, 255)), 0.18)


def _veiled(picture: Image.Image, why: str) -> Image.Image:
    panel = Image.new("RGB", (_CELL, _CELL), _PAPER)
    panel.paste(Image.blend(_enlarged(picture, _SIDE), Image.new("RGB", (_SIDE, _SIDE), _ROOM), 0.8), (_EDGE, _EDGE))
    ImageDraw.Draw(panel).text((_CELL / 2, _CELL / 2), why, _INK, font(15), anchor="mm")
    return panel


def _trimmed(panel: Image.Image) -> Image.Image:
    """Take the empty room above and below away."""
    return panel.crop((0, _EDGE - 3, panel.width, panel.height - _EDGE + 3))


def _rgba(level: int, alpha: int) -> tuple[int, int, int, int]:
    colour = LEVEL_COLOURS[level]
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16), alpha
