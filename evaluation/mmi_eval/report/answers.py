"""The part of a run's page with single answers: questions beside truth, drawn pictures beside real ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from mmi_eval.predictions import Prediction
from mmi_eval.sample import Sample

from .cards import DRAWN, asked, boxes, context, cut, drawn, lines, opened, real, said, truth
from .evaluated import Result, by_task, standing
from .markup import Markup, element, fragment, missing, note
from .page import Section
from .pictures import gallery, row
from .run_record import RunRecord
from .wording import limited_label, number, readable

_N_TEXTS, _N_DRAWN = 6, 16


def answers_section(run: RunRecord) -> Section:
    """Return some answers of each text task: right and wrong ones, chosen by a fixed rule."""
    title = "Answers beside the truth"
    rule = note(
        f"Chosen by a fixed rule, not by hand: ordered by the SHA-256 of their ids, the first {_N_TEXTS} that score at "
        f"least half and the first {_N_TEXTS} that score less."
    )
    parts = [_task(result) for result in _standing_of_kind(run, drawn=False)]
    body = fragment(rule, *parts) if parts else missing("No task with text answers was evaluated.", _command(run))
    return Section("answers", title, body)


def drawn_section(run: RunRecord) -> Section:
    """Return drawn pictures beside the real ones that belong there."""
    parts = [_drawn(result) for result in _standing_of_kind(run, drawn=True)]
    body = fragment(*parts) if parts else missing("No task with drawn pictures was evaluated.", _command(run))
    return Section("drawn", "Drawn pictures beside real ones", body)


def in_fixed_order(samples: Sequence[Sample]) -> list[Sample]:
    """Order samples by a hash of their ids: the same for every run, and mixed over kinds of questions."""
    return sorted(samples, key=lambda sample: hashlib.sha256(sample.id.encode()).digest())


def _standing_of_kind(run: RunRecord, *, drawn: bool) -> list[Result]:
    found = [result for results in by_task(run.evaluations).values() if (result := standing(results)) is not None]
    return [result for result in found if _asks(result, drawn)]


def _asks(result: Result, drawn: bool) -> bool:
    """Say whether a task asks for pictures, or for anything else; told by its answers where the data are gone."""
    if result.samples:
        return any((sample.request in DRAWN) == drawn for sample in result.samples)
    return (result.evaluation.folder / "images").is_dir() == drawn


def _task(result: Result) -> Markup:
    heading = element("h3", {}, readable(result.label), limited_label(result))
    if not result.samples:
        return fragment(heading, missing("The data of this task are not where the evaluation read them."))
    scores = result.evaluation.outcomes()[0].get(result.headline, {})
    predictions = result.evaluation.predictions.read()
    ordered = [s for s in in_fixed_order(result.samples) if s.id in predictions and s.request not in DRAWN]
    right = [s for s in ordered if scores.get(s.id, 0.0) >= 0.5][:_N_TEXTS]
    wrong = [s for s in ordered if s.id in scores and scores[s.id] < 0.5][:_N_TEXTS]
    named = ("Right", "Wrong") if max(scores.values(), default=1.0) <= 1.0 else ("Score 50 or more", "Score below 50")
    groups = [(named[0], right), (named[1], wrong)] if scores else [("Some answers", ordered[: 2 * _N_TEXTS])]
    parts = []
    for name, chosen in groups:
        cards = [text_card(result, s, predictions[s.id], scores.get(s.id)) for s in chosen]
        parts += [element("h4", {}, name), gallery(cards) if cards else missing("There are none.")]
    return fragment(heading, *parts)


def text_card(result: Result, sample: Sample, prediction: Prediction, score: float | None) -> Markup:
    """Return a question with its pictures, the answer, the truth and the score of the headline."""
    boxed = boxes(sample, [prediction])
    shown = boxed if boxed is not None else row(*(opened(p, "Picture of the question") for p in sample.pictures))
    told = [("asked", asked(sample)), ("answer", said(prediction)), ("truth", truth(sample))]
    if score is not None:
        told.append((readable(result.headline), number(score, result.is_percent(result.headline))))
    return fragment(shown, *lines(told))


def _drawn(result: Result) -> Markup:
    heading = element("h3", {}, readable(result.label), limited_label(result))
    if not result.samples:
        return fragment(heading, missing("The data of this task are not where the evaluation read them."))
    predictions = result.evaluation.predictions.read()
    asking = [s for s in in_fixed_order(result.samples) if s.request in DRAWN and s.id in predictions][:_N_DRAWN]
    rule = note(f"The first {len(asking)} by the SHA-256 of their ids: left drawn, right the real picture.")
    return fragment(heading, rule, gallery([drawn_card(result, s, predictions[s.id]) for s in asking], pairs=True))


def drawn_card(result: Result, sample: Sample, prediction: Prediction, told: str = "") -> Markup:
    """Return drawn pictures beside the real ones, with the pictures of the prompt below.

    Args:
        result: Where the answer is from.
        sample: What was asked.
        prediction: The answer.
        told: A line below, such as a score.
    """
    words = asked(sample)
    ours = drawn(result.evaluation.folder, prediction, words)
    before = context(sample) if sample.pictures else element("p", {}, cut(words))
    return fragment(row(ours, *real(sample)), before, *([element("p", {}, told)] if told else []))


def _command(run: RunRecord) -> str:
    return f"mmi evaluate --run {run.folder}"
