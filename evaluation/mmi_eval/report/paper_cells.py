"""One cell of the paper: the evaluation of a run that belongs there, and those that do not with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmi_eval.metrics.intervals import Score

from .evaluated import Result, standing
from .paper import factors_in_words
from .paper_protocol import worded
from .paper_rows import PAPER_ROWS, MetricSource, Reading, metrics_of_task, says, shots_of

_ENOUGH = 0.99
"""Share of a set of pictures from which on a Frechet distance stands for the whole set; pictures that could not be
drawn are left out of it."""


@dataclass(frozen=True)
class Entry:
    """One of our numbers, in the unit of its column.

    Args:
        result: Where it is from.
        value: Its name there.
        score: With interval and number of samples.
        part: What is missing of the paper's split, such as ``LIMITED: 500 of 5,000``; empty for all of it.
    """

    result: Result
    value: str
    score: Score
    part: str = ""


@dataclass(frozen=True)
class Cell:
    """What a run has for one column.

    Args:
        standard: By the benchmark's own scorer.
        official: By the rule of the released code, which the paper's number is set against.
    """

    standard: Entry | None = None
    official: Entry | None = None

    @property
    def is_run(self) -> bool:
        """Whether there is any number."""
        return self.standard is not None or self.official is not None


@dataclass(frozen=True)
class LeftOut:
    """A score of the column's task that is no score of the column.

    Args:
        run: Name of the run.
        metric: Column.
        what: Score and where it is from, in words.
        why: Why it stays outside.
    """

    run: str
    metric: str
    what: str
    why: str


@dataclass(frozen=True)
class Needs:
    """What a row of the paper asks of an evaluation, besides its column.

    Args:
        shots: Worked examples before each question.
        foreign_prompts: Prompts of Table 17 that belong to the other stage of training, see ``worded``.
    """

    shots: int = 0
    foreign_prompts: frozenset[str] = frozenset()


def read_cell(
    results: Sequence[Result], source: MetricSource, metric: str, run: str, paper_split: str, needs: Needs
) -> tuple[Cell, list[LeftOut]]:
    """Find what a run has for one column.

    Args:
        results: Of the run, see ``paper_results``.
        source: What the column stands for.
        metric: Its id.
        run: Name of the run.
        paper_split: What the paper scored, in words.
        needs: What its row asks besides.

    Returns:
        The cell, and the scores of the same task that stay outside.
    """
    left: list[LeftOut] = []
    entries: list[Entry | None] = []
    readings = (source.standard, source.official or source.standard)
    of_task = [r for r in results if r.task == source.task and (source.holds(r.split) or not _has_own_column(r))]
    of_task = [result for result in of_task if _of_data_set(result, source)]
    for result in of_task:
        if not any(says(result.settings, reading.settings) for reading in readings):
            why = f"asked with other settings than {factors_in_words(source.standard.settings)}"
            left.append(LeftOut(run, metric, _in_words(result, result.headline, source), why))
    for reading in readings:
        fitting = []
        for result in of_task:
            if not says(result.settings, reading.settings):
                continue
            if why := _unfit(result, source, reading, paper_split, needs):
                name = reading.name_in(result.values) or result.headline
                left.append(LeftOut(run, metric, _in_words(result, name, source), why))
            else:
                fitting.append(result)
        chosen = standing(fitting)
        entries.append(None if chosen is None else _entry(chosen, reading.name_in(chosen.values), source))
    return Cell(*entries), list(dict.fromkeys(left))


def _has_own_column(result: Result) -> bool:
    """Say whether an evaluation is what some column asks for, as each split of RefCOCO is; it is no news elsewhere."""
    sources = [PAPER_ROWS[metric] for metric in metrics_of_task(result.task)]
    return any(source.holds(result.split) and _of_data_set(result, source) for source in sources)


def _of_data_set(result: Result, source: MetricSource) -> bool:
    """Say whether an evaluation is of the column's data set; another one is another column, not a variant."""
    wanted = source.standard.settings.get("dataset")
    return wanted is None or result.settings.get("dataset") == wanted


def _unfit(result: Result, source: MetricSource, reading: Reading, paper_split: str, needs: Needs) -> str:
    """Say why a score is not the column's; nothing where it is."""
    split = result.split
    protocol = result.protocol
    asked = shots_of(result.settings)
    if not source.holds(split):
        return source.why_not(split, paper_split)
    if asked != needs.shots:
        return f"asked with {asked} examples, the paper's row has {needs.shots}"
    if worded(str(result.settings.get("prompt", ""))) in needs.foreign_prompts:
        return "asked with the prompt of the other stage of training (Table 17)"
    name = reading.name_in(result.values)
    if not name:
        return f"its score holds no value \u201c{reading.value}\u201d; score it again"
    if not protocol.startswith(reading.protocol):
        return f"its protocol is {protocol}, the column's {reading.protocol}"
    if source.whole_only and _too_few(result, result.values[name], source):
        return "a Frechet distance of fewer pictures is another metric"
    return ""


def _entry(result: Result, value: str, source: MetricSource) -> Entry:
    score = result.values[value]
    scaled = Score(score.value * source.times, score.low * source.times, score.high * source.times, score.n)
    return Entry(result, value, scaled, _part(result, score, source))


def _part(result: Result, score: Score, source: MetricSource) -> str:
    """Return the mark of a score of fewer samples than the split has."""
    chosen = result.settings.get("n")
    fewer = source.size is not None and score.n < source.size
    if not (result.limited or (chosen is not None and (source.size is None or fewer)) or fewer):
        return ""
    return f"LIMITED: {score.n:,}" + (f" of {source.size:,}" if source.size else " samples")


def _too_few(result: Result, score: Score, source: MetricSource) -> bool:
    if source.size is None or result.limited:
        return bool(_part(result, score, source))
    return score.n < _ENOUGH * source.size


def _in_words(result: Result, name: str, source: MetricSource) -> str:
    score = result.values[name]
    times = 100.0 if result.is_percent(name) and source.times == 100 else 1.0
    number = f"{times * score.value:.4g} [{times * score.low:.4g}, {times * score.high:.4g}]"
    where = f"{result.task}, {result.split}, {result.protocol}"
    return f"{name} {number} (n = {score.n:,}; {where})"
