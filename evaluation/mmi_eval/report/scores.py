"""The part of a run's page about scores: every task with its baselines, then by question type and tag."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmi_eval.metrics.intervals import Score

from .charts import Bar, bar_chart
from .evaluated import Result, by_task, controls_of, standing
from .markup import NOTHING, Content, Markup, element, fold, fragment, missing, note, preformatted
from .numbers import count, percent, short
from .page import Section
from .pictures import figure
from .run_record import RunRecord
from .tables import Column, table
from .wording import interval, limited_label, marked, number, readable, verdict_against

_NOT_EVALUATED = "The run was not evaluated yet."


def scores_section(run: RunRecord) -> Section:
    """Return one table over all tasks, then each task with all its values and baselines."""
    groups = by_task(run.evaluations)
    if not groups:
        return Section("scores", "Scores", missing(_NOT_EVALUATED, f"mmi evaluate --run {run.folder}"))
    chosen = {task: result for task, results in groups.items() if (result := standing(results)) is not None}
    parts: list[Markup] = [_overview(list(chosen.values()))] if chosen else []
    parts.append(
        note(
            "Brackets hold 95 % intervals; differences are paired over the same samples. Values are percentages unless "
            "said otherwise. Scores named micro-* come from networks taught on the micro-world, whose accuracy on "
            "held-out pictures stands beside them."
        )
    )
    for task, results in groups.items():
        result = chosen.get(task)
        body = _task(result) if result else missing(f"{task} was only evaluated under controls.", _command(run, task))
        others = [other for other in results if other is not result]
        parts += [element("h3", {}, readable(task)), body, _others(others)]
    return Section("scores", "Scores", fragment(*parts))


def kinds_section(run: RunRecord) -> Section:
    """Return the scores of each task by question type, tag and whatever else it is broken down by."""
    parts: list[Markup] = []
    for task, results in by_task(run.evaluations).items():
        result = standing(results)
        for prefix in result.breakdowns() if result else ():
            assert result is not None
            parts.append(_breakdown(task, prefix, result, controls_of(result, results)))
    body = fragment(*parts) or missing("No evaluation of this run is broken down by question type or tag.")
    return Section("kinds", "Scores by question type and tag", body)


def _overview(results: Sequence[Result]) -> Markup:
    rows: list[list[Content]] = []
    for result in results:
        name = result.headline
        fraction = result.is_percent(name)
        rivals = [
            f"{readable(rival)} {number(other.values[name].value, fraction)}"
            for rival, other in result.rivals.items()
            if name in other.values
        ]
        rows.append(
            [
                fragment(readable(result.label), limited_label(result)),
                readable(name),
                interval(result.values[name], fraction),
                f"{result.values[name].n:,}",
                "; ".join(rivals) or "none",
                f"{result.record.get('protocol', 'unknown')}, {result.record.get('split', 'unknown')}",
            ]
        )
    columns = ("task", "measure", "score", "n", "baselines", "protocol, split")
    return table("Every task", [Column(c, c in ("score", "n")) for c in columns], rows)


def _task(result: Result) -> Markup:
    names = result.plain_values()
    rivals = {rival: other for rival, other in result.rivals.items() if any(name in other.values for name in names)}
    rows: list[list[Content]] = []
    for name in names:
        fraction = result.is_percent(name)
        direction = " (lower is better)" if result.lower_is_better(name) else ""
        cells: list[Content] = [readable(name) + direction, interval(result.values[name], fraction)]
        rows.append([*cells, f"{result.values[name].n:,}", *(_against(result, name, rival) for rival in rivals)])
    columns = [Column("measure"), Column("this run", True), Column("n", True), *(Column(readable(r)) for r in rivals)]
    caption = fragment(f"{readable(result.label)}: scores and baselines", limited_label(result))
    return fragment(table(caption, columns, rows), _remarks(result), _details(result))


def _against(result: Result, name: str, rival: str) -> Content:
    verdict = verdict_against(result, name, rival)
    if verdict is None:
        return ""
    value = interval(result.rivals[rival].values[name], result.is_percent(name))
    return fragment(value, element("br", {}), element("small", {}, marked(verdict)))


def _remarks(result: Result) -> Markup:
    """Return what must be read beside the numbers: unusable answers, limits, judges' accuracies."""
    said: list[Content] = []
    counts = result.record.get("counts") or {}
    unusable = {reason: n for reason, n in counts.items() if n and reason != "n_samples"}
    if unusable:
        reasons = "; ".join(f"{readable(reason.removeprefix('n_'))}: {n:,}" for reason, n in unusable.items())
        said.append(f"Of {count(counts.get('n_samples', 0), 'sample')}: {reasons}.")
    if result.limited:
        limit = result.evaluation.plan.limit
        said.append(f"LIMITED: only the first {limit} samples were asked; do not compare with scores of all samples.")
    said += _told(result.record.get("notes") or {}, "")
    for name, rival in result.rivals.items():
        if rival.notes != result.record.get("notes"):
            said += _told(rival.notes, f"{readable(name)}: ")
    return element("ul", {"class": "note"}, *(element("li", {}, line) for line in said)) if said else NOTHING


def _told(notes: Mapping[str, Any], before: str) -> list[Content]:
    lines: list[Content] = []
    for name, value in notes.items():
        if isinstance(value, dict):
            shown = ", ".join(
                f"{readable(str(key).replace('/', ' '))} {_told_value(item)}" for key, item in value.items()
            )
        else:
            shown = _told_value(value)
        lines.append(f"{before}{readable(name)}: {shown}")
    return lines


def _told_value(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return f"{value:,}" if isinstance(value, int) else (percent(value) if 0 <= value <= 1 else short(value))


def _details(result: Result) -> Markup:
    """Return everything that decided what was asked, folded."""
    kept = ("version", "protocol", "split", "prompt", "decoding", "settings", "condition", "checkpoint", "seen")
    facts = ("config_hash", "data_fingerprint", "answers_file_hash", "assets", "code_version", "seconds", "source")
    shown = {key: result.record[key] for key in (*kept, *facts) if key in result.record}
    text = json.dumps(shown, indent=1, ensure_ascii=False, default=str)
    return fold("How it was asked and scored", preformatted(text, f"Settings of {result.task}"))


def _others(results: Sequence[Result]) -> Markup:
    if not results:
        return NOTHING
    rows: list[list[Content]] = []
    for result in results:
        name, checkpoint = result.headline, result.evaluation.plan.checkpoint
        said = fragment(result.condition.label, limited_label(result))
        score = interval(result.values[name], result.is_percent(name))
        rows.append([said, f"{checkpoint.name}, step {checkpoint.step}", readable(name), score])
    columns = (Column("condition"), Column("checkpoint"), Column("measure"), Column("score", True))
    return fold("Other evaluations of this task", table("Other evaluations", columns, rows))


def _breakdown(task: str, prefix: str, result: Result, controls: Sequence[Result]) -> Markup:
    names = result.kinds(prefix)
    rivals = [rival for rival, other in result.rivals.items() if any(name in other.values for name in names)]
    beside = [(readable(rival), result.rivals[rival].values) for rival in rivals]
    beside += [(c.condition.label, c.values) for c in controls if c.condition.weights == "trained"]
    rows: list[list[Content]] = []
    for name in names:
        ours, fraction = result.values[name], result.is_percent(name)
        others = [_value(values.get(name), fraction) for _, values in beside]
        rows.append([readable(name), f"{ours.n:,}", interval(ours, fraction), *others])
    columns = [Column(prefix), Column("n", True), Column("this run", True), *(Column(n, True) for n, _ in beside)]
    title = f"{readable(task)} by {prefix}"
    shown = fragment(title, limited_label(result))
    chart = _bars(f"by-{_anchor(task)}-{_anchor(prefix)}", title, names, result, rivals[0] if rivals else None)
    return fragment(element("h3", {}, shown), chart, table(fragment(title), columns, rows))


def _bars(anchor: str, title: str, names: Sequence[str], result: Result, rival: str | None) -> Markup:
    bars = []
    for name in names:
        scale = 100 if result.is_percent(name) else 1
        ours = result.values[name]
        mark = result.rivals[rival].values.get(name) if rival else None
        at = None if mark is None else scale * mark.value
        bars.append(Bar(readable(name), scale * ours.value, scale * ours.low, scale * ours.high, at))
    most = 100.0 if all(result.is_percent(name) and result.values[name].high <= 1 for name in names) else None
    mark_name = readable(rival) if rival else ""
    said = f"{title}, with 95 % intervals" + (f"; the orange mark is {mark_name}." if rival else ".")
    return figure(bar_chart(anchor, title, bars, most=most, mark_name=mark_name), said)


def _value(score: Score | None, fraction: bool) -> str:
    return "" if score is None else number(score.value, fraction)


def _anchor(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def _command(run: RunRecord, task: str) -> str:
    return f"mmi evaluate --run {run.folder} --tasks {task}"
