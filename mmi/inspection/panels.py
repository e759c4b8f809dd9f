"""One context picture of a page as SVG: marks, footprints and heat maps by class, so that style rules can switch them.

A mark's classes are ``spot hHEAD lLEVEL``, a heat map's ``heat hHEAD lLEVEL`` with ``all`` for a sum.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image

from mmi.inspection.heat import HeatMaps
from mmi.inspection.looks import mass
from mmi.inspection.marks import LEVEL_COLOURS, MARGIN, Mark, corners, heat_colours, radius, shape_name
from mmi.inspection.sampling import LookRecord
from mmi_eval.report.markup import Markup, element
from mmi_eval.report.numbers import percent

SIDE = 256
"""A picture's side in the units of its drawing."""
MOST_HEADS = 40
"""Heat maps of single heads are drawn for networks with at most this many heads times pictures."""
_SMALL = 128


def panel(maps: HeatMaps, image: int, marks: Sequence[Mark], heaviest: float) -> Markup:
    """Draw one context picture with everything that can be switched on over it.

    Args:
        maps: Of the record.
        image: Number of the picture; kept as ``picture-N`` by ``definition``.
        marks: Its points, heaviest first.
        heaviest: Weight of the largest mark.
    """
    record = maps.record
    edge = SIDE * MARGIN
    box = f"{-edge:g} {-edge:g} {SIDE + 2 * edge:g} {SIDE + 2 * edge:g}"
    room = element("rect", {"class": "room", "x": f"{-edge:g}", "y": f"{-edge:g}", "width": "100%", "height": "100%"})
    if not record.layer.is_placed or not int(record.distance[0, image]):
        why = "hidden from here" if record.layer.is_placed else "tokens without a place"
        faded = element("g", {"opacity": ".2"}, base(f"#picture-{image}"))
        words = element("text", {"x": "128", "y": "132", "text-anchor": "middle"}, why)
        return element("svg", {"viewBox": box, "role": "img", "aria-label": why}, room, faded, words)
    feet = [_foot(mark) for mark in marks[:3]]
    # Light ones last: they would be lost under the heavy ones.
    points = [_mark(mark, heaviest) for mark in marks]
    lines = [] if record.layer.is_dense else cross(*(float(v) for v in record.reference[0]))
    shown = element("g", {"class": "points"}, base(f"#picture-{image}"), *feet, *points, *lines)
    glow = element("g", {"class": "glow"}, base(f"#picture-{image}"), *_heat_images(maps, image))
    share = float(mass(record)[image].sum())
    label = f"Sampling points on picture {image + 1}, which gets {percent(share)} of the weight"
    return element("svg", {"viewBox": box, "role": "img", "aria-label": label}, room, shown, glow)


def _mark(mark: Mark, heaviest: float) -> Markup:
    """Draw a point at the size it has among all heads; a single head's points keep it."""
    x, y, r = mark.x * SIDE, mark.y * SIDE, radius(mark.weight, heaviest) * SIDE
    attributes = {"class": f"spot h{mark.head} l{mark.level}", "fill": LEVEL_COLOURS[mark.level]}
    title = element("title", {}, f"head {mark.head}, level {mark.level}: {percent(mark.weight)}")
    polygon = corners(mark.level, x, y, r)
    if polygon:
        places = " ".join(f"{a:.1f},{b:.1f}" for a, b in polygon)
        return element("polygon", attributes | {"points": places}, title)
    return element("circle", attributes | {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": f"{r:.1f}"}, title)


def _foot(mark: Mark) -> Markup:
    w, h = (side * SIDE for side in mark.cell)
    place = {"x": f"{mark.x * SIDE - w / 2:.1f}", "y": f"{mark.y * SIDE - h / 2:.1f}"}
    size = {"width": f"{w:.1f}", "height": f"{h:.1f}", "stroke": LEVEL_COLOURS[mark.level]}
    return element("rect", {"class": f"foot h{mark.head} l{mark.level}"} | place | size)


def cross(x: float, y: float) -> list[Markup]:
    """Draw a cross with a light edge at a place of a picture."""
    x, y, reach = x * SIDE, y * SIDE, 7
    path = f"M{x - reach:.1f} {y:.1f}H{x + reach:.1f}M{x:.1f} {y - reach:.1f}V{y + reach:.1f}"
    return [element("path", {"d": path, "class": name}) for name in ("cross halo", "cross")]


def heads_with_maps(record: LookRecord) -> list[int | None]:
    """Return the heads that have heat maps of their own, ``None`` for the mean of all."""
    few = record.n_heads * record.n_images <= MOST_HEADS
    return [None, *(range(record.n_heads) if few else ())]


def _heat_images(maps: HeatMaps, image: int) -> list[Markup]:
    """Return a heat map for each choice of head and level, each bright where it is highest in its layer."""
    found = []
    for head in heads_with_maps(maps.record):
        for level in (None, *maps.record.layer.levels):
            colours = heat_colours(maps.of(image, head, level), maps.highest(head, level))
            name = f"heat h{'all' if head is None else head} l{'all' if level is None else level}"
            found.append(_svg_image(colours, {"class": name}))
    return found


def definition(picture: Image.Image, name: str) -> Markup:
    """Keep a picture under a name, once for all the times it is drawn."""
    style = {"class": "small"} if max(picture.size) <= _SMALL else {}
    return element("defs", {}, _svg_image(picture.convert("RGB"), {"id": name} | style))


def base(link: str) -> Markup:
    """Draw a picture that was kept."""
    return element("use", {"href": link, "class": "base"})


def _svg_image(picture: Image.Image, attributes: dict[str, str]) -> Markup:
    size = {"width": str(SIDE), "height": str(SIDE), "preserveAspectRatio": "none"}
    return element("image", attributes | size | {"href": _data(picture)})


def image_tag(picture: Image.Image, alt: str, width: int) -> Markup:
    """Return a picture as an ``img`` of its own."""
    attributes = {"src": _data(picture.convert("RGB")), "alt": alt, "width": str(width), "height": str(width)}
    return element("img", attributes | ({"class": "pixels"} if picture.width < width else {}))


def _data(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def key(record: LookRecord) -> Markup:
    """Say what marks mean."""
    entries = []
    for level, (h, w) in zip(record.layer.levels, record.level_shapes, strict=True):
        outline = corners(level, 8, 8, 5.5)
        attributes = {"class": "spot", "fill": LEVEL_COLOURS[level]}
        if outline:
            shape = element("polygon", attributes | {"points": " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)})
        else:
            shape = element("circle", attributes | {"cx": "8", "cy": "8", "r": "5.5"})
        icon = element("svg", {"viewBox": "0 0 16 16", "aria-hidden": "true"}, shape)
        entries.append(element("li", {}, icon, f" {shape_name(level)}: level {level}, {w} x {h} cells"))
    return element("ul", {"class": "key"}, *entries)
