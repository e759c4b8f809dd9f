"""What the benchmarks of short answers share: named rules side by side, breakdowns, baselines, files for servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from mmi_eval.formats.errors import FormatError
from mmi_eval.metrics.vqa import ANSWER_EXTRACTIONS, VQA_PROTOCOLS
from mmi_eval.sample import Sample

from .answer_tables import AnswerTable
from .protocol import Answer, PerSample, Scored, averaged, broken_down

VQA_PROMPT = (
    "Based on the image, please answer the question. {image}{question} Please provide an accurate answer within one "
    "word. The answer is:"
)
"""The paper's wording for questions (Table 17, SPEC 3.6)."""
EXAMPLE = "Question: {question} Short answer: {answer}"
"""The official wording of solved examples (SPEC 3.6)."""
Extraction = Literal["none", "word-boundary", "official"]
"""How the headline shortens an answer before the rule is applied; the benchmarks' own scorers do not."""
VQA_TOOLKIT = {"": "vqa-toolkit"}

_NAMED_EXTRACTIONS: Mapping[str, Extraction] = {
    "no extraction": "none",
    "word-boundary extraction": "word-boundary",
    "official extraction": "official",
}
K = TypeVar("K", int, str, int | str)


def texts_of(answers: Sequence[Answer | None]) -> list[str]:
    """Return answers as texts; one that could not be had is empty."""
    return [answer if isinstance(answer, str) else "" for answer in answers]


def picture_name(template: str, image_id: int | str, where: str) -> str:
    """Return the file name of a picture by its id.

    Args:
        template: Such as ``COCO_val2014_{image_id:012d}.jpg``.
        image_id: The id.
        where: File and question, for messages.

    Raises:
        FormatError: If the template cannot hold the id.
    """
    try:
        return template.format(image_id=image_id)
    except (ValueError, KeyError, IndexError) as error:
        raise FormatError(
            f'{where}: image_name "{template}" cannot hold the id {image_id!r} ({error}); write it with {{image_id}}, '
            "or {image_id:012d} for numbers."
        ) from error


def score_answers(
    samples: Sequence[Sample],
    answers: Sequence[str],
    rules: Mapping[str, str] = VQA_TOOLKIT,
    extraction: Extraction = "none",
) -> Scored:
    """Score texts by each rule under each extraction, by type and by tag.

    The first rule under the chosen extraction is the headline. It is broken down twice: as it is, and without
    extraction, as the scorers themselves print it.

    Args:
        samples: ``references`` are the people's answers; ``meta`` may hold ``type``, ``answer_type`` and ``tags``.
        answers: As generated.
        rules: Names in ``VQA_PROTOCOLS``, by what they add to the names of their values.
        extraction: That of the values without the name of one.

    Raises:
        FormatError: If a sample has no answers to compare with.
    """
    refuse_unanswered(samples)
    per_sample: PerSample = {}
    for suffix, protocol in rules.items():
        rule = VQA_PROTOCOLS[protocol]
        for words, applied in {"": extraction, **_NAMED_EXTRACTIONS}.items():
            extract = ANSWER_EXTRACTIONS[applied]
            name = ", ".join(part for part in ("accuracy", suffix, words) if part)
            pairs = zip(samples, answers, strict=True)
            per_sample[name] = {sample.id: rule(extract(answer), sample.references) for sample, answer in pairs}
    raw = per_sample["accuracy, no extraction"]
    per_sample |= break_down_answers(per_sample["accuracy"], samples)
    for prefix, key in (("type", "type"), ("answer type", "answer_type")):
        per_sample |= broken_down(raw, _kinds(samples, key), f"{prefix}, no extraction")
    counts = {"empty answers": sum(not answer.strip() for answer in answers)}
    return Scored(averaged(per_sample, samples), per_sample, counts=counts)


def break_down_answers(column: Mapping[str, float], samples: Sequence[Sample]) -> PerSample:
    """Return the numbers of a value by question type, by answer type and by tag."""
    tags = {s.id: [tag for tag in s.meta.get("tags", ()) if tag != s.meta.get("type")] for s in samples}
    return {
        **broken_down(column, _kinds(samples, "type"), "type"),
        **broken_down(column, _kinds(samples, "answer_type"), "answer type"),
        **broken_down(column, tags, "tag"),
    }


def _kinds(samples: Sequence[Sample], key: str) -> dict[str, list[str]]:
    return {sample.id: [sample.meta[key]] for sample in samples if sample.meta.get(key)}


def answer_baselines(
    samples: Sequence[Sample],
    table: AnswerTable,
    source: str,
    score: Callable[[Sequence[Sample], Sequence[str]], Scored] = score_answers,
) -> dict[str, Scored]:
    """Score the most frequent answers by type and by question.

    Args:
        samples: ``meta`` holds ``type`` and ``question``.
        table: Where the answers come from.
        source: The same in words.
        score: How texts are scored.
    """
    of_type = [table.to_type(s.meta.get("type") or "") for s in samples]
    of_question = [table.to_question(s.meta.get("type") or "", s.meta["question"]) for s in samples]
    found = {}
    for name, answers in (("majority", of_type), ("question_only", of_question)):
        scored = score(samples, answers)
        found[name] = Scored(scored.values, scored.per_sample, notes={"counted on": source})
    return found


def count_samples(samples: Sequence[Sample]) -> AnswerTable:
    """Count the answers of the samples themselves: what no constant answerer can beat by much."""
    return AnswerTable.count((s.meta.get("type") or "", s.meta["question"], s.meta["answer"]) for s in samples)


def refuse_unanswered(samples: Sequence[Sample]) -> None:
    """Refuse to score questions whose answers are on a server.

    Raises:
        FormatError: If a sample has none.
    """
    lost = next((sample.id for sample in samples if not sample.references), None)
    if lost is not None:
        raise FormatError(
            f"question {lost} has no answers to score against; write a submission for the benchmark's server, or "
            "choose a split whose answers are public."
        )


def answers_to_submit(
    path: Path,
    questions: Mapping[str, K],
    samples: Sequence[Sample],
    answers: Sequence[Answer | None],
    shorten: Callable[[str], str],
) -> dict[K, str]:
    """Return what a test server wants: an answer to every question of the split, shortened as for the headline.

    Args:
        path: Where it will be written, for messages.
        questions: Official id of every question of the split, by sample id.
        samples: Those that were asked.
        answers: As generated; ``None`` is one that could not be had.
        shorten: What is done with each text.

    Raises:
        FormatError: If a question has no answer, or an answer no question.
    """
    given = {s.id: answer for s, answer in zip(samples, answers, strict=True) if isinstance(answer, str)}
    if lost := [key for key in questions if key not in given]:
        raise FormatError(
            f"{path} would lack {len(lost)} of {len(questions)} answers, such as to question {lost[0]}; servers want "
            "the whole split: ask all of it (n: null, no --limit), and again what failed."
        )
    if unknown := [key for key in given if key not in questions]:
        raise FormatError(
            f"{path} would answer {len(unknown)} questions that the split does not hold, such as {unknown[0]}; use "
            "the answers to its own questions."
        )
    return {official: shorten(given[key]) for key, official in questions.items()}
