"""Looks as one HTML file: points and heat maps as SVG, switched by radio buttons and style rules, without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmi.inspection.heat import HeatMaps
from mmi.inspection.looks import Looks, mass
from mmi.inspection.marks import layer_words, marks_of, picture_words
from mmi.inspection.panels import MOST_HEADS, SIDE, base, cross, definition, heads_with_maps, image_tag, key, panel
from mmi.inspection.sampling import LookRecord
from mmi_eval.report.markup import NOTHING, Content, Markup, element, fold, fragment, note, paragraph
from mmi_eval.report.numbers import percent
from mmi_eval.report.page import Section, render_page, write_page
from mmi_eval.report.tables import Column, table

_MOST_MARKS = 1500
_STYLE = """\
fieldset { border: 1px solid var(--line); border-radius: 8px; margin: 0 .6rem .6rem 0; padding: .2rem .8rem .5rem;
  display: inline-block; vertical-align: top; }
legend { color: var(--soft); font-size: .85rem; padding: 0 .3rem; }
fieldset label { margin-right: .7rem; white-space: nowrap; cursor: pointer; font-size: .92rem; }
input:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.looks { display: flex; flex-wrap: wrap; gap: 1rem; margin: .6rem 0; padding: 0; list-style: none; max-width: none; }
.looks li { margin: 0; } .looks svg { width: 19rem; max-width: 88vw; } .looks p { margin: .2rem 0; font-size: .9rem; }
.looks .room { fill: var(--card); } .looks .base { filter: saturate(.7); }
.small { image-rendering: pixelated; }
.spot { stroke: #111; stroke-width: .9; fill-opacity: .85; } .foot { fill: none; stroke-width: 1.6; }
.cross { stroke: #000; stroke-width: 2; } .cross.halo { stroke: #fff; stroke-width: 4.5; }
.heat { display: none; image-rendering: pixelated; }
.glow .base { filter: grayscale(1) contrast(.6); }
.prompt { background: var(--card); border-radius: 8px; padding: .8rem 1rem; max-width: none; }
.prompt img { vertical-align: middle; margin: 0 .35rem .2rem 0; }
.prompt .answer { border-bottom: 3px solid var(--good); }
mark { background: #ffe08a; color: #111; padding: .05em .25em; border-radius: 4px; }
.key { list-style: none; padding: 0; }
.key svg { width: 1.1rem; height: 1.1rem; display: inline-block; vertical-align: -.15rem; }
.tokens { column-width: 15rem; } .tokens li { font-size: .85rem; break-inside: avoid; }
"""


def looks_page(looks: Looks, title: str = "Where MMFS looks") -> str:
    """Return the document.

    Args:
        looks: Where a token or pixel looked.
        title: Heading.
    """
    lead = [
        f"Below is where every MMFS layer looks when the model is {looks.moment}. Each mark is a place where it "
        "samples the features of a context picture; its area is the weight of the sample, its colour and shape are "
        "the level of the feature pyramid.",
    ]
    sections = [
        Section("document", "What was read", _document(looks)),
        Section("looks", "Where it looks", _switches_and_layers(looks)),
        Section("mass", "How the weight is shared", _tables(looks)),
        Section("reading", "How to read this", _explanation(looks)),
    ]
    return render_page(title, lead, sections, "Written by mmi inspect.", style=_STYLE + _rules(looks))


def save_looks(looks: Looks, folder: Path, title: str) -> Path:
    """Write the page and one PNG per layer, of the middle step where a pixel looks; return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for layer in looks.layers:
        looks.picture(layer).save(folder / f"layer-{layer}.png")
    page = folder / "index.html"
    write_page(page, looks_page(looks, title))
    return page


def _document(looks: Looks) -> Markup:
    facts = [element("li", {}, element("b", {}, name), ": ", text) for name, text in looks.facts.items()]
    parts: list[Content] = []
    shown: set[int] = set()
    chosen = looks.chosen
    for token in looks.tokens:
        if token.picture and token.picture not in shown:
            shown.add(token.picture)
            if token.picture <= len(looks.pictures):
                parts.append(image_tag(looks.pictures[token.picture - 1], f"picture {token.picture}", 96))
        text: Content = token.text
        if token.is_answer and token.text:
            text = element("span", {"class": "answer"}, text)
        if chosen is not None and token.position == chosen.position:
            text = element("mark", {}, text if token.text else f"[{token.name}]")
        parts.append(text)
    if looks.drawn is not None:
        parts.append(_drawn(looks))
    body = [element("div", {"class": "prompt"}, *parts)]
    if any(token.is_answer and token.text for token in looks.tokens):
        body.append(note("Underlined is what the model wrote."))
    names = [
        element("li", {}, f"{token.position}: {token.name}" + (" (answer)" if token.is_answer else ""))
        for token in looks.tokens
    ]
    listed = fold("All tokens by position, for --token", element("ul", {"class": "tokens"}, *names))
    return fragment(element("ul", {}, *facts) if facts else NOTHING, *body, listed)


def _drawn(looks: Looks) -> Markup:
    """Show the drawn picture with a cross on the pixel."""
    assert looks.drawn is not None
    assert looks.pixel is not None
    content = (base(f"#{_DRAWN}"), *cross(*looks.pixel))
    attributes = {"viewBox": f"0 0 {SIDE} {SIDE}", "role": "img", "aria-label": f"The drawn picture, {looks.moment}"}
    svg = element("svg", attributes | {"style": "width: 12rem"}, definition(looks.drawn, _DRAWN), *content)
    return fragment(svg, note("The model drew this; the cross is the pixel that looks."))


_DRAWN = "drawn"


def _switches_and_layers(looks: Looks) -> Markup:
    record = looks.records[0]
    layers = [(f"layer-{n}", looks.record(n).layer.title) for n in looks.layers]
    best = f"layer-{looks.record().layer.number}"
    heads = [("head-all", "all")] + [(f"head-{h}", str(h)) for h in range(record.n_heads)]
    levels = [("level-all", "all")] + [
        (f"level-{n}", f"{n} ({w}x{h})") for n, (h, w) in zip(record.layer.levels, record.level_shapes, strict=True)
    ]
    groups = [_choice("view", "View", [("view-points", "sampling points"), ("view-heat", "heat map")], "view-points")]
    groups.append(_choice("layer", "Layer", layers, best))
    if looks.steps:
        steps = [(f"step-{n}", str(n)) for n in looks.steps]
        middle = f"step-{looks.steps[len(looks.steps) // 2]}"
        groups.append(_choice("step", f"Diffusion step of {looks.n_steps}", steps, middle))
    groups += [_choice("head", "Head", heads, "head-all"), _choice("level", "Level", levels, "level-all")]
    base = [definition(picture, f"picture-{k}") for k, picture in enumerate(looks.pictures)]
    hidden = element("svg", {"width": "0", "height": "0", "aria-hidden": "true", "style": "position:absolute"}, *base)
    panels = [_layer(looks, record) for record in looks.records]
    return fragment(*groups, hidden, *panels, key(record))


def _choice(name: str, legend: str, options: Sequence[tuple[str, str]], checked: str) -> Markup:
    """Return radio buttons; the style rules read which one is chosen."""
    buttons = []
    for value, text in options:
        attributes = {"type": "radio", "name": name, "id": value}
        button = element("input", attributes | ({"checked": "checked"} if value == checked else {}))
        buttons.append(element("label", {"for": value}, button, " ", text))
    return element("fieldset", {}, element("legend", {}, legend), *buttons)


def _layer(looks: Looks, record: LookRecord) -> Markup:
    n, maps = len(looks.pictures), HeatMaps(record)
    marks = [marks_of(record, image, most=_MOST_MARKS) for image in range(n)]
    heaviest = max((mark.weight for of_one in marks for mark in of_one), default=0.0)
    figures = [
        element(
            "li",
            {},
            paragraph(picture_words(looks, record, image) + " of the weight"),
            panel(maps, image, marks[image], heaviest),
        )
        for image in range(n)
    ]
    null = float(record.null[0].mean())
    title, _, rest = layer_words(record).partition(", ")
    words = f"{rest[0].upper()}{rest[1:]}. The null slot gets {percent(null)} of the weight."
    classes = _classes(looks, record)
    dense = note("This layer attends to every position: each mark is the centre of a cell.")
    return element(
        "div",
        {"class": classes},
        element("h3", {}, title + (f", diffusion step {record.call + 1} of {looks.n_steps}" if looks.steps else "")),
        paragraph(words),
        element("ul", {"class": "looks"}, *figures) if figures else paragraph("There is no picture in the context."),
        dense if record.layer.is_dense else NOTHING,
    )


def _classes(looks: Looks, record: LookRecord) -> str:
    """Return the classes that the radio buttons of layers and steps switch."""
    return f"layer layer-{record.layer.number}" + (f" step step-{record.call + 1}" if looks.steps else "")


def _tables(looks: Looks) -> Markup:
    parts: list[Markup] = []
    for record in looks.records:
        classes = _classes(looks, record)
        maps = HeatMaps(record)
        heads = [_table(looks, maps, head) for head in range(min(record.n_heads, MOST_HEADS))]
        body = (_table(looks, maps, None), fold("Each head by itself", *heads))
        parts.append(element("div", {"class": classes}, *body))
    return fragment(*parts)


def _table(looks: Looks, maps: HeatMaps, head: int | None) -> Markup:
    """Return the weight of each picture and level, the null slot's, and what falls outside."""
    record = maps.record
    who = "mean of all heads" if head is None else f"head {head}"
    step = f", step {record.call + 1}" if looks.pixel is not None else ""
    shapes = zip(record.layer.levels, record.level_shapes, strict=True)
    names = [*(f"level {n} ({w}x{h})" for n, (h, w) in shapes), "all levels", "of it outside the picture"]
    columns = [Column("picture"), *(Column(name, True) for name in names)]
    weights = mass(record, head)
    rows: list[list[Content]] = []
    for image in range(record.n_images):
        total = float(weights[image].sum())
        outside = max(0.0, total - float(maps.of(image, head).sum()))
        name = picture_words(looks, record, image).rpartition(":")[0]
        rows.append([name, *(percent(value) for value in (*weights[image].tolist(), total, outside))])
    null = float(record.null[0].mean() if head is None else record.null[0, head])
    rows.append(["null slot", *[""] * len(record.layer.levels), percent(null), ""])
    return table(f"{record.layer.title}{step}: share of the weight, {who}", columns, rows)


def _explanation(looks: Looks) -> Markup:
    lines = [
        "Weights of all pictures, levels, points and the null slot add up to 100%. The null slot is how a query looks "
        "at nothing: its weight goes to a learned vector.",
        "The cross is the place that points start from: the middle for a token, its own place for a pixel. Points in "
        "the margin lie outside the picture and read zeros. Frames around the heaviest points show the reach of "
        "bilinear sampling at their level.",
        "The heat map adds all footprints up, cell by cell; a coarse cell shares its weight among the fine ones it "
        "covers. Each map is bright where it is highest, so maps of two heads do not compare in brightness."
        + ("" if len(heads_with_maps(looks.records[0])) > 1 else " There is one map for all heads together."),
        "A weight says where a layer reads, not how much it matters: what it reads is scaled by the layer's gate, and "
        "the line above the pictures says how long the added vector is beside the features it is added to.",
        "A token of the answer looks from the token before it, where it is chosen; a token of the prompt from itself.",
    ]
    if looks.pixel is not None:
        lines[-1] = "A cell of a small feature map stands for several pixels; shown is the cell that holds the pixel."
    return element("ul", {}, *(element("li", {}, line) for line in lines))


def _rules(looks: Looks) -> str:
    """Return the style rules behind the radio buttons; browsers without ``:has`` show everything."""
    rules = ["body:has(#view-heat:checked) .points, body:has(#view-points:checked) .glow { display: none; }"]
    for kind, numbers in (("layer", looks.layers), ("step", looks.steps)):
        rules += [f"body:has(#{kind}-{n}:checked) .{kind}:not(.{kind}-{n}) {{ display: none; }}" for n in numbers]
    if not looks.records:
        return "\n".join(rules)
    record = looks.records[0]
    for kind, numbers in (("head", range(record.n_heads)), ("level", record.layer.levels)):
        letter = kind[0]
        rules += [
            f"body:has(#{kind}-{n}:checked) .points :is(.spot, .foot):not(.{letter}{n}) {{ display: none; }}"
            for n in numbers
        ]
    mapped = heads_with_maps(record)
    for head in ("all", *range(record.n_heads)):
        shown = head if head in mapped else "all"
        for level in ("all", *record.layer.levels):
            chosen = f"body:has(#head-{head}:checked):has(#level-{level}:checked)"
            rules.append(f"{chosen} .heat.h{shown}.l{level} {{ display: inline; }}")
    return "\n".join(rules) + "\n"
