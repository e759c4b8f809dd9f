"""What layers read as tables and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmi_eval.metrics.intervals import Score
from mmi_eval.report.charts import Bar, bar_chart
from mmi_eval.report.grid import Grid, Part
from mmi_eval.report.markup import Markup, fragment
from mmi_eval.report.numbers import count
from mmi_eval.report.pictures import figure
from mmi_eval.report.tables import Column
from mmi_eval.report.wording import interval, signed

from .changes import place_words
from .effects import EVERYTHING
from .mass import EVERY_LAYER, RIGHT, WRONG, GroupMass, Preference
from .result_page import Asked, Findings
from .sampling import MMFSLayer

TITLE = "What MMFS reads"
_SUMMARY = (EVERYTHING, RIGHT, WRONG)


def mass_findings(
    asked: Asked,
    masses: Sequence[GroupMass],
    preferences: Sequence[Preference],
    modules: Mapping[str, MMFSLayer],
    level_shapes: Mapping[str, tuple[tuple[int, int], ...]],
) -> Findings:
    """Put everything together in the order in which it is read.

    Args:
        asked: What was asked of whom.
        masses: Of every layer and group.
        preferences: Of every layer and picture.
        modules: The layers by name.
        level_shapes: ``(height, width)`` of their levels, by name.
    """
    lead = [
        "The share of attention weight that falls on each context picture, on each level of its feature pyramid and on "
        "the null slot, in percent, for the tokens that answer: the last token of the prompt and those of the answer. "
        "Averaged over heads, these tokens, and questions, with 95 % intervals; questions on the same pictures are "
        "kept together.",
        "Weights say where a layer looks, not what it makes of it: --counterfactual says what a picture is worth. "
        "Orange marks are the shares of equal weights. Questions stand together by how many pictures the layer sees, "
        "as shares of more pictures are other shares: those of the prompt, or fewer where visible_images or max_images "
        "of its MMFS leaves some out.",
    ]
    names = {name: module.title for name, module in modules.items()}
    levels = _level_names(modules, level_shapes)
    parts = [_summary(masses, names, levels), *_preference_parts(preferences, names), _by_tag(masses, names, levels)]
    layers = [
        {
            "name": name,
            "title": module.title,
            "gate": module.gate,
            "levels": list(module.levels),
            "level_shapes": [list(shape) for shape in level_shapes[name]],
        }
        for name, module in modules.items()
    ]
    values = {
        "layers": layers,
        "masses": [mass.record() for mass in masses],
        "preferences": [preference.record() for preference in preferences],
    }
    plots = {"layers": _mass_plots(masses, levels)}
    if preferences:
        plots["preference"] = _preference_plot(preferences)
    return Findings(TITLE, asked, lead, parts, values, plots)


def _summary(masses: Sequence[GroupMass], names: Mapping[str, str], levels: Sequence[str]) -> Part:
    grids = []
    for n_pictures in _numbers(masses):
        some = [m for m in masses if m.n_pictures == n_pictures and m.group in _SUMMARY]
        columns = [Column("layer"), Column("answers"), *_columns(some, levels), Column("added", True)]
        rows = [
            [names.get(m.layer, m.layer), m.group, *_cells(m, len(columns) - 3), interval(m.said, True)] for m in some
        ]
        grids.append(Grid(f"layers-{n_pictures}", f"{_seen(n_pictures)}, every layer", columns, rows))
    told = (
        "added: length of what a layer adds to the hidden states of these tokens, in percent of their own length; a "
        "layer that adds nothing may look anywhere."
    )
    return Part("layers", "By layer and number of pictures it sees", grids, [told])


def _preference_parts(preferences: Sequence[Preference], names: Mapping[str, str]) -> list[Part]:
    if not preferences:
        return []
    columns = [Column("layer"), Column("pictures seen", True), Column("picture"), Column("n asked", True)]
    columns += [Column("share where asked about", True), Column("n others", True)]
    columns += [Column("share where another is", True), Column("difference", True), Column("what it shows")]
    rows = [
        [names.get(p.layer, p.layer), str(p.n_pictures), place_words(p.distance), f"{p.asked.n:,}",
         interval(p.asked, True), f"{p.others.n:,}", interval(p.others, True), signed(p.difference, True), p.verdict]
        for p in preferences
    ]  # fmt: skip
    grid = Grid("preference", "The same place in the prompt, asked about and not", columns, rows)
    told = (
        "A layer that finds the picture a question is about looks at it more where it is asked about. Tags such as "
        "“earlier 1” say which picture that is; questions without one are about the nearest."
    )
    return [Part("preference", "Do questions look at the picture they are about?", [grid], [told])]


def _by_tag(masses: Sequence[GroupMass], names: Mapping[str, str], levels: Sequence[str]) -> Part:
    """Return one table for each number of pictures, of the mean over layers (or the only layer)."""
    layer = masses[-1].layer
    grids = []
    for n_pictures in _numbers(masses):
        some = [m for m in masses if m.layer == layer and m.n_pictures == n_pictures and m.group not in _SUMMARY]
        if not some:
            continue
        columns = [Column("questions"), *_columns(some, levels)]
        rows = [[m.group, *_cells(m, len(columns) - 1)] for m in some]
        title = f"{_seen(n_pictures)}, {names.get(layer, 'mean over layers')}"
        grids.append(Grid(f"tags-{n_pictures}", title, columns, rows))
    return Part("tags", "By tag", grids)


def _columns(masses: Sequence[GroupMass], levels: Sequence[str]) -> list[Column]:
    n_pictures, n_levels = masses[0].n_pictures, max(len(m.levels) for m in masses)
    names = [place_words(k) for k in range(1, n_pictures + 1)]
    shown = [levels[k] if k < len(levels) else f"level {k}" for k in range(n_levels)]
    return [Column(name, True) for name in ("n", "score", "null slot", *names, *shown)]


def _cells(mass: GroupMass, n: int) -> list[str]:
    """Return ``n`` cells; a layer of fewer levels leaves the last empty."""
    accuracy = "" if mass.accuracy is None else interval(mass.accuracy, True)
    shares = [interval(score, True) for score in (mass.null, *mass.images, *mass.levels)]
    cells = [f"{mass.n:,}", accuracy, *shares]
    return cells + [""] * (n - len(cells))


def _seen(n_pictures: int) -> str:
    """Return what questions have in common: not the pictures of the prompt, of which a layer may see fewer."""
    return f"{count(n_pictures, 'picture')} seen"


def _numbers(masses: Sequence[GroupMass]) -> list[int]:
    return sorted({mass.n_pictures for mass in masses})


def _level_names(modules: Mapping[str, MMFSLayer], shapes: Mapping[str, tuple[tuple[int, int], ...]]) -> list[str]:
    """Name the levels as the first layer has them, or by number alone where layers differ."""
    named = {
        tuple(f"level {level} ({h}x{w})" for level, (h, w) in zip(module.levels, shapes[name], strict=True))
        for name, module in modules.items()
    }
    return list(named.pop()) if len(named) == 1 else []


def _mass_plots(masses: Sequence[GroupMass], levels: Sequence[str]) -> Markup:
    layer = masses[-1].layer
    told = "the mean over layers" if layer == EVERY_LAYER else "the only layer"
    charts = []
    for n_pictures in _numbers(masses):
        mass = _whole(masses, n_pictures)
        bars = [_bar("null slot", mass.null, mass.even_null)]
        bars += [_bar(place_words(k), score, mass.even_image) for k, score in enumerate(mass.images, start=1)]
        bars += [
            _bar(levels[k] if k < len(levels) else f"level {k}", score, mass.even_levels[k])
            for k, score in enumerate(mass.levels)
        ]
        title = f"Shares of attention, {_seen(n_pictures)}, percent"
        chart = bar_chart(f"plot-mass-{n_pictures}", title, bars, most=100.0, mark_name="equal weights")
        caption = f"{_seen(n_pictures)}, {told}: null slot, pictures, then levels over all pictures."
        charts.append(figure(chart, caption))
    return fragment(*charts)


def _preference_plot(preferences: Sequence[Preference]) -> Markup:
    layer = preferences[-1].layer
    bars = []
    for one in (p for p in preferences if p.layer == layer):
        name = f"{_seen(one.n_pictures)}, {place_words(one.distance)}"
        bars += [_bar(f"{name}: asked about", one.asked), _bar(f"{name}: another is", one.others)]
    chart = bar_chart("plot-preference", "Share of a picture where it is asked about and where not, percent", bars)
    return figure(chart, "Share of a picture where it is asked about, and where another picture of the prompt is.")


def _whole(masses: Sequence[GroupMass], n_pictures: int) -> GroupMass:
    """Return what all questions of a number of pictures read, in the mean over layers (or the only layer)."""
    layer = masses[-1].layer
    (mass,) = (m for m in masses if (m.layer, m.n_pictures, m.group) == (layer, n_pictures, EVERYTHING))
    return mass


def short_lines(masses: Sequence[GroupMass]) -> list[str]:
    """Return the mean over layers in one line for each number of pictures they see, for a terminal."""
    lines = []
    for n_pictures in _numbers(masses):
        mass = _whole(masses, n_pictures)
        shares = [("null slot", mass.null)]
        shares += [(place_words(k), score) for k, score in enumerate(mass.images, start=1)]
        told = ", ".join(f"{name} {interval(score, True)}" for name, score in shares)
        accuracy = "" if mass.accuracy is None else f"; score {interval(mass.accuracy, True)}"
        lines.append(f"{_seen(n_pictures)} (n {mass.n:,}): {told}{accuracy}")
    return lines


def _bar(name: str, score: Score, mark: float | None = None) -> Bar:
    ends = (100 * score.low, 100 * score.high) if score.has_interval else (None, None)
    return Bar(name, 100 * score.value, *ends, None if mark is None else 100 * mark)
