"""Scores in a terminal: one row for each value, what it is measured against, and LIMITED where it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mmi_eval.metrics.intervals import Score
from mmi_eval.results import Evaluation, paired_differences
from mmi_eval.submissions import FILE_NAME

Record = Mapping[str, Any]
_WIDTH = 180


def print_scores(scores: Sequence[Record], *, breakdown: bool = False, exact: bool = False) -> None:
    """Print the content of ``score.json`` files.

    Args:
        scores: In order.
        breakdown: Also values by type and by tag, and variants.
        exact: Also values that are another one computed differently, such as with another extraction, the protocol of
            each headline, and more digits.
    """
    limited = any(score["limited"] for score in scores)
    title = "LIMITED: not all samples were asked; these are no benchmark scores" if limited else None
    table = Table(title=title, box=SIMPLE_HEAD, title_style="bold red", title_justify="left")
    table.add_column("task", no_wrap=True)
    has_split = any(score["split"] for score in scores)
    if has_split:
        table.add_column("split")
    # Of answers from a file the condition is the file's name: below the table, where it takes no column.
    if not exact:
        table.add_column("condition")
    table.add_column("value", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("n", justify="right")
    has_beside = any(score["baselines"] or score["comparisons"] for score in scores)
    if has_beside:
        table.add_column("beside it")
    for score in scores:
        shown = _shown(score, breakdown, exact)
        for number, (name, value) in enumerate(shown):
            first = number == 0
            task = label_of(score) + (" LIMITED" if score["limited"] else "")
            unit = score["units"].get(name, "raw")
            table.add_row(
                task if first else "",
                *([score["split"] if first else ""] if has_split else []),
                *([] if exact else [score["condition_label"] if first else ""]),
                f"{name} (lower is better)" if name in score["lower_is_better"] else name,
                written(value["value"], unit, exact=exact),
                _interval(Score(**value), unit, exact=exact),
                str(value["n"]),
                *([_beside(score, name, unit)] if has_beside else []),
                end_section=number == len(shown) - 1,
            )
    console = _console()
    console.print(table)
    for score in scores:
        if exact:
            console.print(
                f"{label_of(score)}, {score['condition_label']}: {score['headline']} by the protocol "
                f"{score['protocol']}; {_scale(score)}",
                highlight=False,
            )
        if troubles := _troubles(score):
            console.print(f"{label_of(score)} ({score['condition_label']}): {troubles}", highlight=False)


def print_times(scores: Sequence[tuple[Record, float | None]]) -> None:
    """Print how many samples each task asked and how long that took.

    Args:
        scores: Content of each ``score.json``, and the seconds of this call where it asked.
    """
    table = Table(title="Samples and time", box=SIMPLE_HEAD, title_justify="left")
    for name in ("task", "condition"):
        table.add_column(name)
    for name in ("samples", "failed", "answering", "per sample", "this call"):
        table.add_column(name, justify="right", no_wrap=True)
    for score, seconds in scores:
        n, asked = score["counts"]["n_samples"], score["seconds"]
        table.add_row(
            label_of(score) + (" LIMITED" if score["limited"] else ""),
            score["condition_label"],
            str(n),
            str(score["counts"]["n_errors"]),
            f"{asked:.1f} s",
            f"{1000 * asked / n:.0f} ms",
            "" if seconds is None else f"{seconds:.1f} s",
        )
    _console().print(table)


def print_submissions(evaluations: Sequence[Evaluation]) -> None:
    """Say where files for test servers lie, and what was not scored because only the server can."""
    for evaluation in evaluations:
        if (path := evaluation.folder / FILE_NAME).is_file():
            unscored = "" if evaluation.is_scored else " (not scored here: only the server has the answers)"
            print(f"submission for {evaluation.plan.label}: {path}{unscored}")


def print_failures(evaluations: Sequence[Evaluation]) -> None:
    """Say why samples failed: the first of each evaluation, and where the others stand."""
    for evaluation in evaluations:
        failed = [p for p in evaluation.predictions.read_all().values() if p.error]
        if failed:
            what = (
                f"{evaluation.plan.label} ({evaluation.plan.condition.label}): {len(failed)} failed and count as wrong"
            )
            first = f"sample {failed[0].id}: {str(failed[0].error).rstrip('.')}"
            where = evaluation.folder / "predictions.jsonl"
            _console().print(f"{what}, such as {first}; all are in {where}", highlight=False, markup=False)


def label_of(score: Record) -> str:
    """Return the label of a task's entry in the config; the task's name in records that are older than labels."""
    return score.get("label") or score["task"]


def print_changes(evaluations: Sequence[Evaluation]) -> None:
    """Print how each condition differs from the model as it is: headlines, and whatever is significant.

    Args:
        evaluations: Of one checkpoint; conditions without their counterpart are passed over.
    """
    plain = {e.plan.asked: e for e in evaluations if e.plan.condition.label == "as trained"}
    table = Table(title="Against the model as trained, paired by sample", box=SIMPLE_HEAD, title_justify="left")
    for name in ("task", "condition", "value"):
        table.add_column(name)
    for name in ("difference", "95 % interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for evaluation in evaluations:
        against = plain.get(evaluation.plan.asked)
        if against is None or against.folder == evaluation.folder:
            continue
        found = paired_differences(evaluation, against)
        headline, units = evaluation.score["headline"], evaluation.score["units"]
        for value, difference in sorted(found.items(), key=lambda item: item[0] != headline):
            significant = difference.excludes_zero
            if value == headline or (significant and ", " not in value):
                unit = units.get(value, "raw")
                interval = _interval(difference, unit)
                limited = "" if evaluation.plan.limit is None else " LIMITED"
                row = (evaluation.plan.label + limited, evaluation.plan.condition.label, value)
                table.add_row(*row, written(difference.value, unit), interval, str(difference.n))
    if table.row_count:
        _console().print(table)


def written(value: float, unit: str, *, exact: bool = False) -> str:
    """Return a value as it is printed: fractions times 100.

    Example:
        >>> written(0.4567, "percent"), written(0.4567, "raw"), written(0.4567, "percent", exact=True)
        ('45.7', '0.4567', '45.6700')
    """
    if unit == "percent":
        return f"{100 * value:.4f}" if exact else f"{100 * value:.1f}"
    return f"{value:.7g}" if exact else f"{value:.4g}"


def _console() -> Console:
    """Return standard output, wide enough for all columns where it is no terminal."""
    return Console() if Console().is_terminal else Console(width=_WIDTH)


def _shown(score: Record, breakdown: bool, exact: bool) -> list[tuple[str, Mapping[str, Any]]]:
    values = sorted(score["values"].items(), key=lambda item: (item[0] != score["headline"], "/" in item[0]))
    if breakdown:
        return values
    return [(n, v) for n, v in values if n == score["headline"] or not ("/" in n or (", " in n and not exact))]


def _interval(score: Score, unit: str, *, exact: bool = False) -> str:
    if not score.has_interval:
        return "too few"
    return f"{written(score.low, unit, exact=exact)} to {written(score.high, unit, exact=exact)}"


def _beside(score: Record, name: str, unit: str) -> str:
    """Return what stands beside a value: its baselines, and comparisons within the task."""
    parts = [
        f"{baseline.replace('_', ' ')} {written(content['values'][name]['value'], unit)}"
        for baseline, content in score["baselines"].items()
        if name in content["values"]
    ]
    for comparison, difference in score["comparisons"].items():
        if comparison.startswith(f"{name} - ") or comparison.endswith(f" - {name}"):
            parts.append(f"{comparison}: {written(difference['value'], unit)} ({_interval(Score(**difference), unit)})")
    return "; ".join(parts)


def _scale(score: Record) -> str:
    """Say which of the printed values are times 100."""
    raw = [name for name in score["values"] if "/" not in name and score["units"].get(name, "raw") != "percent"]
    if not raw:
        return "values are times 100"
    return "no value is times 100" if len(raw) == len(score["values"]) else f"times 100, but for {', '.join(raw)}"


def _troubles(score: Record) -> str:
    counts = {name: n for name, n in score["counts"].items() if n and name != "n_samples"}
    names = {"n_errors": "failed samples"}
    parts = [f"{names.get(name, name)}: {n} of {score['counts']['n_samples']}" for name, n in counts.items()]
    if left_out := score["notes"].get("left out"):
        parts.append(f"left out: {left_out}")
    if accuracy := score["notes"].get("held-out accuracy of the judges"):
        parts.append(
            "held-out accuracy of the judges: " + ", ".join(f"{k} {v:.3f}" for k, v in accuracy.items() if "/" not in k)
        )
    return "; ".join(parts)
