"""The answers that score worst, and all galleries of a run as one part of another page."""

from __future__ import annotations

import hashlib

from .answers import answers_section, drawn_card, drawn_section, text_card
from .cards import DRAWN
from .evaluated import Result, by_task, standing
from .markup import Markup, element, fragment, missing, note
from .page import Section
from .pictures import gallery
from .run_record import RunRecord
from .wording import limited_label, number, readable

_N_WORST = 6


def worst_section(run: RunRecord) -> Section:
    """Return the samples that score worst on each task whose scores of single samples are graded.

    Where answers are right or wrong, the wrong ones already stand beside the right ones.
    """
    parts = []
    for results in by_task(run.evaluations).values():
        result = standing(results)
        found = ranking(result) if result is not None and result.samples else None
        if result is not None and found is not None:
            parts.append(_worst(result, *found))
    rule = note(f"The {_N_WORST} lowest scores of each task, equal ones by the SHA-256 of their ids.")
    body = fragment(rule, *parts) if parts else missing("No task of this run grades single samples.")
    return Section("worst", "Worst answers", body)


def ranking(result: Result) -> tuple[str, dict[str, float]] | None:
    """Return the value by which samples of a task can be ordered, with each sample's; None where all are 0 or 1.

    It is the headline, or where that is no mean over samples (a Frechet distance) the first value that is.
    """
    table = result.evaluation.outcomes()[0]
    name = next((name for name in (result.headline, *result.plain_values()) if name in table), None)
    if name is None or set(table[name].values()) <= {0.0, 1.0}:
        return None
    return name, table[name]


def gallery_section(run: RunRecord, anchor: str) -> Section:
    """Return everything that shows single answers of a run, under one heading."""
    parts: list[Markup] = [section.body for section in (drawn_section(run), answers_section(run), worst_section(run))]
    return Section(anchor, f"Answers of {run.name}", fragment(*parts))


def _worst(result: Result, name: str, scores: dict[str, float]) -> Markup:
    sign = -1.0 if result.lower_is_better(name) else 1.0
    predictions = result.evaluation.predictions.read()
    asked = [sample for sample in result.samples if sample.id in scores and sample.id in predictions]
    asked.sort(key=lambda sample: (sign * scores[sample.id], hashlib.sha256(sample.id.encode()).digest()))
    cards = []
    for sample in asked[:_N_WORST]:
        said = f"{readable(name)}: {number(scores[sample.id], result.is_percent(name))}"
        if sample.request in DRAWN:
            cards.append(drawn_card(result, sample, predictions[sample.id], said))
        else:
            shown = scores[sample.id] if name == result.headline else None
            cards.append(text_card(result, sample, predictions[sample.id], shown))
    heading = element("h3", {}, f"{readable(result.label)}: lowest {readable(name)}", limited_label(result))
    return fragment(heading, gallery(cards, pairs=any(sample.request in DRAWN for sample in asked[:_N_WORST])))
