"""Two runs side by side: differences with intervals, then their answers to the same samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmi_eval.predictions import Prediction
from mmi_eval.sample import Sample

from .cards import COLOURS, DRAWN, asked, boxes, context, drawn, lines, named, opened, real, said, truth
from .charts import Bar, bar_chart
from .comparison import Choosing, Difference, Pair, by_chance
from .evaluated import Result
from .markup import NOTHING, Content, Markup, element, fold, fragment, missing, note
from .numbers import count
from .page import Section, render_page
from .pictures import figure, gallery, row
from .tables import Column, table
from .wording import Verdict, interval, limited_label, marked, number, readable, signed

_WORDS = {"better": "better", "worse": "worse", "open": "no difference shown"}


@dataclass(frozen=True)
class Side:
    """One of the two runs.

    Args:
        name: Of the run, with what was taken away from it.
        folder: As commands name it.
    """

    name: str
    folder: str


def render_comparison(
    sides: tuple[Side, Side], pairs: Sequence[Pair], chosen: Sequence[Choosing], written_by: str
) -> str:
    """Return the page as HTML.

    Args:
        sides: The runs, first and second.
        pairs: What both answered.
        chosen: The samples to show of each pair.
        written_by: The program and its version, for the last line.
    """
    first, second = sides
    compared, differ, chance = by_chance(pairs)
    lead = [
        f"The same samples, answered by {first.name} and by {second.name}; seeds come from the samples, so drawn "
        "pictures start from the same noise. Differences are second minus first, paired over samples.",
        f"{differ} of {compared} values differ with an interval that excludes 0; if no value differed, about "
        f"{chance:.1f} would all the same.",
    ]
    sections = [_overview(sides, pairs)]
    for number_, (pair, choosing) in enumerate(zip(pairs, chosen, strict=True), start=1):
        sections.append(_task_section(f"task-{number_}", sides, pair, choosing))
    sections.append(_runs(sides, pairs))
    return render_page(f"{first.name} and {second.name}", lead, sections, f"Written by {written_by}.")


def _overview(sides: tuple[Side, Side], pairs: Sequence[Pair]) -> Section:
    rows: list[list[Content]] = []
    for pair in pairs:
        difference = pair.differences[0]
        rows.append([fragment(readable(pair.second.label), limited_label(pair.second)), *_cells(pair, difference)])
    columns = [Column("task"), Column("value"), *_numbers(sides)]
    body = table("Headline of each task", columns, rows)
    return Section("headlines", "Headlines", body)


def _numbers(sides: tuple[Side, Side]) -> list[Column]:
    names = (*(side.name for side in sides), "second \u2212 first", "n")
    return [Column(name, True) for name in names]


def _cells(pair: Pair, difference: Difference) -> list[Content]:
    name, fraction = difference.name, pair.second.is_percent(difference.name)
    lower = " (lower is better)" if pair.second.lower_is_better(name) else ""
    scores = [interval(score, fraction) for score in (difference.first, difference.second)]
    return [readable(name) + lower, *scores, _change(difference, fraction), f"{difference.second.n:,}"]


def _change(difference: Difference, fraction: bool) -> Content:
    if difference.change is None:
        gap = difference.second.value - difference.first.value
        return f"{'+' if gap > 0 else ''}{number(gap, fraction)}, no mean over samples: see the intervals"
    words = f"{_WORDS[difference.standing]}: {signed(difference.change, fraction)}"
    return marked(Verdict(difference.standing, words))


def _task_section(anchor: str, sides: tuple[Side, Side], pair: Pair, choosing: Choosing) -> Section:
    title = readable(pair.second.label)
    parts: list[Markup] = [
        _values(f"{title}: values", sides, pair, [d for d in pair.differences if "/" not in d.name]),
        _kinds(title, sides, pair),
        _chart(anchor, title, pair),
        _settings(pair),
        element("h3", {}, "Answers side by side"),
        note(f"Chosen by rule: {choosing.rule}.", _by_value(choosing)),
        _gallery(sides, pair, choosing),
    ]
    return Section(anchor, title, fragment(*parts))


def _values(title: str, sides: tuple[Side, Side], pair: Pair, differences: Sequence[Difference]) -> Markup:
    rows = [[_shown_name(pair, d), *_cells(pair, d)[1:]] for d in differences]
    return table(fragment(title, limited_label(pair.second)), [Column("value"), *_numbers(sides)], rows)


def _kinds(title: str, sides: tuple[Side, Side], pair: Pair) -> Markup:
    """Return values by type, tag, class and the like, folded: there may be hundreds."""
    found = [d for d in pair.differences if "/" in d.name]
    if not found:
        return NOTHING
    n_differ = sum(d.standing != "open" for d in found)
    body = _values(f"{title}: values by kind", sides, pair, found)
    return fold(f"By kind: {n_differ} of {count(len(found), 'value')} differ", body)


def _shown_name(pair: Pair, difference: Difference) -> str:
    name = difference.name
    words = name.replace("/", ": ").replace("_", " ") if "/" in name else readable(name)
    return words + (" (lower is better)" if pair.second.lower_is_better(name) else "")


def _by_value(choosing: Choosing) -> str:
    return f" Changes on the cards are of {readable(choosing.name)}." if choosing.name else ""


def _chart(anchor: str, title: str, pair: Pair) -> Markup:
    """Return the main shares of the second run as bars, those of the first as marks."""
    main = set(pair.second.main_values())
    bars = []
    for d in pair.differences:
        if d.name in main and pair.second.is_percent(d.name):
            score = d.second
            bars.append(
                Bar(readable(d.name), 100 * score.value, 100 * score.low, 100 * score.high, 100 * d.first.value)
            )
    if not bars:
        return NOTHING
    chart = bar_chart(f"{anchor}-plot", f"{title}: both runs", bars, mark_name="the first run")
    return figure(chart, "Bars: the second run, with 95 % intervals. Orange marks: the first run.")


def _settings(pair: Pair) -> Markup:
    if not pair.other_settings:
        return note("Both were asked and scored with the same settings.")
    told = [
        f"{name}: {json.dumps(one, ensure_ascii=False)} and {json.dumps(two, ensure_ascii=False)}"
        for name, (one, two) in sorted(pair.other_settings.items())
    ]
    return element("p", {"class": "warning"}, f"The settings differ in {'; '.join(told)}.")


def _gallery(sides: tuple[Side, Side], pair: Pair, choosing: Choosing) -> Markup:
    if not pair.samples:
        return missing("The data of this task are not where the evaluations read them.")
    if not choosing.samples:
        return missing("There is no such sample.")
    answers = [result.evaluation.predictions.read() for result in (pair.first, pair.second)]
    scores = [result.evaluation.outcomes()[0].get(choosing.name, {}) for result in (pair.first, pair.second)]
    cards = []
    for sample in choosing.samples:
        predictions = answers[0][sample.id], answers[1][sample.id]
        told = _score_lines(sides, pair.second, choosing, sample, scores)
        if sample.request in DRAWN:
            cards.append(_drawn_card(sides, pair, sample, predictions, told))
        else:
            cards.append(_text_card(sides, sample, predictions, told))
    return gallery(cards, pairs=True)


def _text_card(
    sides: tuple[Side, Side], sample: Sample, predictions: tuple[Prediction, Prediction], told: list[tuple[str, str]]
) -> Markup:
    names = tuple(side.name for side in sides)
    shown = boxes(sample, predictions, names)
    if shown is None:
        shown = row(*(opened(p, "Picture of the question", 160) for p in sample.pictures))
    labels = (
        [f"{name} ({colour})" for name, colour in zip(names, COLOURS, strict=True)] if "box" in sample.meta else names
    )
    answers = [(label, said(prediction)) for label, prediction in zip(labels, predictions, strict=True)]
    return fragment(shown, *lines([("asked", asked(sample)), *answers, ("truth", truth(sample)), *told]))


def _drawn_card(
    sides: tuple[Side, Side],
    pair: Pair,
    sample: Sample,
    predictions: tuple[Prediction, Prediction],
    told: list[tuple[str, str]],
) -> Markup:
    """Return what each run drew and the real pictures, one row each, below the prompt as it was read."""
    words = asked(sample)
    folders: tuple[Path, Path] = (pair.first.evaluation.folder, pair.second.evaluation.folder)
    shown = [
        named(drawn(folder, prediction, f"{words}, by {side.name}", 112), side.name)
        for folder, prediction, side in zip(folders, predictions, sides, strict=True)
    ]
    truths = real(sample, 112)
    after = [named(fragment(*truths), "real")] if truths else []
    before = context(sample) if sample.pictures else NOTHING
    text = [] if sample.pictures else [("asked", words)]
    captions = sample.meta.get("captions")
    if isinstance(captions, list):
        text.append(("told", " / ".join(map(str, captions))))
    return fragment(before, row(*shown, *after), *lines([*text, *told]))


def _score_lines(
    sides: tuple[Side, Side], result: Result, choosing: Choosing, sample: Sample, scores: Sequence[dict[str, float]]
) -> list[tuple[str, str]]:
    if not choosing.name or sample.id not in choosing.changes:
        return []
    fraction = result.is_percent(choosing.name)
    values = [number(score[sample.id], fraction) for score in scores]
    change = choosing.changes[sample.id]
    words = f"{values[0]} and {values[1]} ({'+' if change > 0 else ''}{number(change, fraction)})"
    return [(readable(choosing.name), words)]


def _runs(sides: tuple[Side, Side], pairs: Sequence[Pair]) -> Section:
    rows: list[list[Content]] = []
    for place, side in enumerate(sides):
        results = [(pair.first, pair.second)[place] for pair in pairs]
        weights = dict.fromkeys(
            f"{plan.checkpoint.name}, step {plan.checkpoint.step:,}" for plan in (r.evaluation.plan for r in results)
        )
        rows.append([("first", "second")[place], side.name, side.folder, "; ".join(weights)])
    columns = [Column(name) for name in ("which", "run", "folder", "weights")]
    return Section("runs", "The runs", table("The two runs", columns, rows))
