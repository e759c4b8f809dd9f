"""The part of a run's page about controls: what scores lose when pictures, captions or MMFS are taken away."""

from __future__ import annotations

from collections.abc import Sequence

from mmi_eval.metrics.intervals import Score

from .evaluated import Result, by_task, controls_of, standing
from .markup import Content, Markup, element, fold, fragment, missing, paragraph
from .page import Section
from .run_record import RunRecord
from .tables import Column, table
from .wording import Standing, Verdict, interval, limited_label, marked, readable, signed, standing_of

_COLUMNS = ("condition", "measure", "as trained", "under the condition", "loss by it", "what it shows")


def controls_section(run: RunRecord) -> Section:
    """Return paired differences between the model as trained and under each control, and those within tasks."""
    title = "Controls"
    parts: list[Markup] = []
    for task, results in by_task(run.evaluations).items():
        result = standing(results)
        if result is None:
            continue
        controls = [c for c in controls_of(result, results) if c.condition.weights == "trained"]
        if controls or result.comparisons:
            heading = element("h3", {}, readable(task), limited_label(result))
            parts += [heading, *_headlines(result, controls), _within(result), *_by_kind(result, controls)]
    if not parts:
        command = f"mmi evaluate --run {run.folder} --conditions"
        return Section("controls", title, missing("No evaluation was repeated under a control.", command))
    told = (
        "Each line asks the same samples with something taken away: pictures made blank or swapped, words shuffled, "
        "MMFS switched off. The difference is paired over samples; where its "
        "95 % interval excludes 0, the score depends on what was taken away."
    )
    return Section("controls", title, fragment(paragraph(told), *parts))


def effect_words(standing: Standing) -> str:
    """Return what a control shows, from how the score as trained stands against the controlled one."""
    return {
        "better": "worse without it",
        "worse": "better without it",
        "open": "no difference shown",
    }[standing]


def _headlines(result: Result, controls: Sequence[Result]) -> list[Markup]:
    rows: list[list[Content]] = []
    for control in controls:
        differences = result.minus(control)
        for name in result.main_values():
            if name in control.values:
                rows.append([control.condition.label, readable(name), *_cells(result, control, name, differences)])
    if not rows:
        return []
    columns = [Column(c, c in _COLUMNS[2:5]) for c in _COLUMNS]
    return [table(f"{readable(result.label)}: as trained and under controls", columns, rows)]


def _cells(result: Result, control: Result, name: str, differences: dict[str, Score]) -> list[Content]:
    fraction = result.is_percent(name)
    values: list[Content] = [interval(result.values[name], fraction), interval(control.values[name], fraction)]
    if name not in differences:
        return [*values, "not paired", ""]
    return [*values, signed(differences[name], fraction), _shown(result, name, differences[name])]


def _shown(result: Result, name: str, difference: Score) -> Markup:
    found = standing_of(difference, lower_is_better=result.lower_is_better(name))
    return marked(Verdict(found, effect_words(found)))


def _within(result: Result) -> Markup:
    """Return differences that a task makes itself, such as true against shuffled captions."""
    if not result.comparisons:
        return fragment()
    rows: list[list[Content]] = []
    for name, difference in result.comparisons.items():
        excludes = "interval excludes 0" if difference.excludes_zero else "no difference shown"
        rows.append(
            [name.replace("_", " "), signed(difference, _is_percent(result, name)), f"{difference.n:,}", excludes]
        )
    columns = [Column("comparison"), Column("difference", True), Column("n", True), Column("what it shows")]
    return table(f"{readable(result.label)}: paired differences within the task", columns, rows)


def _is_percent(result: Result, comparison: str) -> bool:
    """Say whether a comparison is one of fractions: its own unit, or that of the value it is about."""
    units = result.record.get("units") or {}
    if comparison in units:
        return units[comparison] == "percent"
    about = next((name for name in result.values if comparison.startswith(name)), result.headline)
    return result.is_percent(about)


def _by_kind(result: Result, controls: Sequence[Result]) -> list[Markup]:
    parts = []
    for control in controls:
        differences = result.minus(control)
        names = [name for name in differences if "/" in name and name in control.values and name in result.values]
        rows: list[list[Content]] = [
            [name.replace("/", ": "), *_cells(result, control, name, differences)] for name in names
        ]
        if rows:
            columns = [Column("kind"), *(Column(c, c in _COLUMNS[2:5]) for c in _COLUMNS[2:])]
            title = f"{readable(result.label)} by kind: {control.condition.label}"
            parts.append(fold(title, table(title, columns, rows)))
    return parts
