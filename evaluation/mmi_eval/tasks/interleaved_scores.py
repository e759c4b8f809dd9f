"""Scores of the kinds of answers of the interleaved world, as tables of numbers by sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmi_eval.metrics.intervals import Score
from mmi_eval.metrics.vqa import ANSWER_EXTRACTIONS, exact_match
from mmi_eval.sample import Picture, Sample

from .interleaved_frames import ANYWHERE, BACKGROUND, EMPTY, GONE, KEPT, NAMED, contents, frame_scores
from .protocol import Answer, PerSample, Scored, broken_down, differences

if TYPE_CHECKING:
    from mmi_eval.judges import Judges

FRAME, SHUFFLED, REFERENCE = "frame", "frame, shuffled context", "reference"
AFTER_TEXT, AFTER_PICTURE = "after text", "after picture"
PICTURE_MARK, END_MARK, MORE_MARK = "<picture>", "<end>", "<more text>"
"""One of them stands at the end of every continuation: what the model went on with."""
REFERS, CONFUSED, ORDER = "text reference", "text reference, another picture", "order"
_MAIN = (NAMED, KEPT, REFERS, ORDER, BACKGROUND)
"""Properties that are split by context; the headline first."""
_FURTHER = (ANYWHERE, GONE, EMPTY, CONFUSED)
_JUDGED = ("background", "shape", "colour", "texture", "size", "print", "thing", "empty")


def text_of(answer: Answer | None) -> str:
    """Return a text, empty for an answer that is none."""
    return answer if isinstance(answer, str) else ""


def is_in_order(kind: str, continuation: str) -> bool:
    """Say whether a model went on as stories do.

    Args:
        kind: What the prompt ended with.
        continuation: Its text and the mark of what came after it.

    Example:
        >>> is_in_order("after text", "<picture>"), is_in_order("after picture", "Ada leaves. <picture>")
        (True, True)
        >>> is_in_order("after text", "Ada leaves. <picture>"), is_in_order("after picture", "Ada leaves. <end>")
        (False, False)
    """
    text = continuation.removesuffix(PICTURE_MARK).strip()
    return continuation.endswith(PICTURE_MARK) and bool(text) == (kind == AFTER_PICTURE)


def frame_table(judges: Judges, pairs: Sequence[tuple[Sample, Answer | None]]) -> PerSample:
    """Judge drawn pictures; one that could not be had has nothing right."""
    drawn = [answer if isinstance(answer, Picture) else None for _, answer in pairs]
    table: PerSample = {}
    for (sample, _), seen in zip(pairs, contents(judges, drawn), strict=True):
        for name, value in frame_scores(sample.meta["expected"], seen).items():
            table.setdefault(name, {})[sample.id] = value
    return table


def text_table(pairs: Sequence[tuple[Sample, Answer | None]]) -> PerSample:
    """Score answers to questions and continuations; pictures are left alone."""
    shorten = ANSWER_EXTRACTIONS["word-boundary"]
    table: PerSample = {}
    for sample, answer in pairs:
        kind, text = sample.meta["kind"], text_of(answer)
        if kind == REFERENCE:
            short = shorten(text)
            table.setdefault(REFERS, {})[sample.id] = exact_match(short, sample.references[0])
            confused = max((exact_match(short, other) for other in sample.meta["others"]), default=0.0)
            table.setdefault(CONFUSED, {})[sample.id] = confused
        elif kind in (AFTER_TEXT, AFTER_PICTURE):
            right = float(is_in_order(kind, text))
            table.setdefault(ORDER, {})[sample.id] = right
            table.setdefault(f"{ORDER}/{kind}", {})[sample.id] = right
    if REFERS in table:
        tags = {sample.id: sample.meta.get("tags", ()) for sample, _ in pairs}
        table |= broken_down(table[REFERS], tags, f"{REFERS}, tag")
    return table


def in_order_of_names(table: PerSample) -> PerSample:
    """Return the columns of a table, the headline first, whichever sample came first."""
    first = [name for name in (*_MAIN, *_FURTHER) if name in table]
    return {name: table[name] for name in dict.fromkeys([*first, *sorted(table)])}


def by_context(table: PerSample, samples: Sequence[Sample]) -> PerSample:
    """Split the main properties by number of context pictures, and by whether the story was interrupted."""
    contexts = {sample.id: (str(sample.meta["n_context"]),) for sample in samples}
    told = {sample.id: (sample.meta["story"],) for sample in samples}
    found: PerSample = {}
    for name in (name for name in _MAIN if name in table):
        found |= broken_down(table[name], contexts, f"{name}, context")
        found |= broken_down(table[name], told, f"{name}, story")
    return found


def compared(frames: PerSample, shuffled: PerSample, samples: Sequence[Sample]) -> dict[str, Score]:
    """Return own minus shuffled context of the same frames, in pairs."""
    pairs = {sample.id: sample.meta["pair"] for sample in samples if sample.meta["kind"] == SHUFFLED}
    renamed = {name: {pairs[i]: value for i, value in column.items()} for name, column in shuffled.items()}
    found = differences(Scored({}, frames), Scored({}, renamed), samples)
    return {f"{name} - shuffled context": score for name, score in found.items() if "/" not in name}


def judge_notes(judges: Judges) -> dict[str, Any]:
    """Return the accuracy of the judges on held-out pictures, to stand beside scores."""
    used = {*_JUDGED, *(f"disturbed/{kind}" for kind in _JUDGED)}
    return {"held-out accuracy of the judges": {k: v for k, v in judges.accuracy.items() if k in used}}
