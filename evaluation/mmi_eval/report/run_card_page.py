"""The card of a verified run as people read it: a Markdown page and the curve with its band as a picture."""

from __future__ import annotations

from pathlib import Path

from .markup import Markup, element
from .numbers import short
from .run_card import CURVE, Card, CardScore
from .run_card_check import code_words, hardware_words, memory_words, seconds_words
from .scales import Scale, fit_scale, tick_label
from .wording import interval

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 300, 58, 16, 14, 44
_INK, _SOFT, _LINE, _BLUE = "#1b1b1f", "#5a5a66", "#d4d6de", "#0062a3"


def write_card_page(path: Path, card: Card) -> list[Path]:
    """Write ``NAME.md`` and ``NAME.svg`` beside ``NAME.json``.

    Args:
        path: Of the JSON.
        card: What it holds.

    Returns:
        The two files.
    """
    page, picture = path.with_suffix(".md"), path.with_suffix(".svg")
    picture.write_text(curve_picture(card), encoding="utf-8")
    page.write_text(card_page(card, path.name, picture.name), encoding="utf-8")
    return [page, picture]


def card_page(card: Card, json_name: str, picture_name: str) -> str:
    """Return the page as Markdown."""
    facts = {
        "command": f"`{card.command}`",
        "config": f"SHA-256 `{card.config_sha256[:16]}` of the merged settings (in {json_name})",
        "code": f"{'commit ' if card.code.get('commit') else ''}{code_words(card)}",
        "hardware": hardware_words(card.hardware),
        "date": card.date,
        "training": seconds_words(card.seconds.get("training")),
        "evaluation": seconds_words(card.seconds.get("evaluation")),
        "peak memory": memory_words(card.peak_memory),
    }
    last = card.curve[-1]
    lines = [f"# Verified run: {card.name}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in facts.items()]
    lines += ["", "## Scores", "", *_scores(card), "", "## Loss", "", f"![{CURVE} over steps]({picture_name})", ""]
    lines += [f"{CURVE} is {short(card.curve[0].loss)} at step {card.curve[0].step} and {short(last.loss)} at the end."]
    lines += ["", "| at the end | value | band |", "|---|---:|---:|"]
    lines += [f"| {k} | {short(b.loss)} | {short(b.low)} to {short(b.high)} |" for k, b in card.final.items()]
    lines += ["", f"Compare a run of yours: `mmi report --verify {json_name} --run YOUR_RUN`", ""]
    return "\n".join(lines)


def _scores(card: Card) -> list[str]:
    if not card.after:
        return ["Nothing was evaluated."]
    names = [*card.after, *(name for name in card.before if name not in card.after)]
    before = bool(card.before)
    head = ["score", *(["before"] if before else []), "after", "n"]
    rows = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for name in names:
        found = card.after.get(name) or card.before[name]
        marks = [" (lower is better)"] if found.lower_is_better else []
        marks += [" LIMITED"] if found.limit is not None else []
        cells = [_cell(name) + "".join(marks), *([_said(card.before.get(name))] if before else [])]
        rows.append(f"| {' | '.join([*cells, _said(card.after.get(name)), str(found.score.n)])} |")
    return [*rows, "", "In brackets 95 % intervals; shares and CIDEr are times 100."]


def _said(score: CardScore | None) -> str:
    return "" if score is None else interval(score.score, score.percent)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def curve_picture(card: Card) -> str:
    """Return the training loss with its band as SVG that needs nothing around it; the axis is logarithmic."""
    steps = [float(band.step) for band in card.curve]
    x = fit_scale([0.0, *steps], _LEFT, _WIDTH - _RIGHT)
    floor = min(band.loss for band in card.curve) / 2
    lows = [max(band.low, floor) for band in card.curve]
    y = fit_scale([*lows, *(band.high for band in card.curve)], _HEIGHT - _BOTTOM, _TOP, log=floor > 0)
    places = [x.place(step) for step in steps]
    upper = [(px, y.place(band.high)) for px, band in zip(places, card.curve, strict=True)]
    lower = [(px, y.place(low)) for px, low in zip(places, lows, strict=True)]
    middle = [(px, y.place(band.loss)) for px, band in zip(places, card.curve, strict=True)]
    shape = {"points": _points([*upper, *reversed(lower)]), "fill": _BLUE, "fill-opacity": "0.18"}
    line = {"points": _points(middle), "fill": "none", "stroke": _BLUE, "stroke-width": "2"}
    attributes = {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "font-size": "12"}
    attributes |= {"font-family": "sans-serif", "role": "img"}
    title = f"{CURVE} of {card.name} over optimizer steps, with the band that a repetition should stay in"
    ground = element("rect", {"width": str(_WIDTH), "height": str(_HEIGHT), "fill": "#ffffff"})
    parts = [element("title", {}, title), ground, *_axes(x, y), element("polygon", shape), element("polyline", line)]
    return element("svg", attributes, *parts).text + "\n"


def _axes(x: Scale, y: Scale) -> list[Markup]:
    bottom = _HEIGHT - _BOTTOM
    parts = []
    for tick in y.ticks():
        place = f"{y.place(tick):.1f}"
        ends = {"x1": str(_LEFT), "y1": place, "x2": str(_WIDTH - _RIGHT), "y2": place, "stroke": _LINE}
        parts += [element("line", ends), _text(_LEFT - 6, y.place(tick) + 4, tick_label(tick), "end")]
    parts += [_text(x.place(tick), bottom + 16, tick_label(tick), "middle") for tick in x.ticks() if tick == int(tick)]
    label = CURVE + (" (logarithmic)" if y.log else "")
    return [*parts, _text(_LEFT, _HEIGHT - 6, f"{label} over optimizer steps", "start", _INK)]


def _text(x: float, y: float, text: str, anchor: str, colour: str = _SOFT) -> Markup:
    return element("text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "fill": colour}, text)


def _points(places: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
