"""VQA accuracy as the official scorers compute it, under their names, after a named shortening of the answer.

Protocols (all of them score one question in [0, 1] from the model's answer and the ten human answers):

- ``vqa-toolkit``: GT-Vision-Lab/VQA ``vqaEval.py`` (VQA v2, OK-VQA). Each human answer is left out in turn, the others
  give min(1, matches / 3), the ten results are averaged. Both sides are normalised only where the ten people disagree:
  against ten times "yes", "Yes" scores 0.
- ``m4c``: the TextVQA evaluator. The same rule on answers that are always normalised, with its own way to do it.
- ``vizwiz-toolkit``: the VizWiz evaluator. Only the model's answer is normalised, and nobody is left out, so the
  score is min(1, matches / 3) over all ten.
- ``vizwiz-leave-one-out``: the same with a true leave-one-out, as the official MM-Interleaved code has it.

People are left out by their place in the list. The toolkit compares whole records instead, so files without
``answer_id`` lose equal answers together there; our readers number the answers, which is what the toolkit expects.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from . import answer_extraction, answer_normalisation
from .intervals import Score, mean_score, proportion_score

VQARule = Callable[[str, Sequence[str]], float]
T = TypeVar("T")


@dataclass(frozen=True)
class VQAAccuracy:
    """Accuracy of a set of answers.

    Args:
        protocol: Name in ``VQA_PROTOCOLS``.
        extraction: Name in ``ANSWER_EXTRACTIONS``.
        overall: Mean over questions, as a fraction (the toolkits print percent with two digits).
        by_question_type: The same per question type; empty where no types were given.
        by_answer_type: The same per answer type; empty where no types were given.
        per_question: float[n] in the order of the questions.
    """

    protocol: str
    extraction: str
    overall: Score
    by_question_type: dict[str, Score]
    by_answer_type: dict[str, Score]
    per_question: NDArray[np.float64]


def vqa_toolkit_accuracy(answer: str, human_answers: Sequence[str]) -> float:
    """Score one answer by the rule of the VQA v2 toolkit.

    Example:
        >>> vqa_toolkit_accuracy("yes", ["yes"] * 10), vqa_toolkit_accuracy("Yes", ["yes"] * 10)
        (1.0, 0.0)
        >>> round(vqa_toolkit_accuracy("Yes", ["yes"] * 3 + ["no"] * 7), 2)
        0.9
    """
    humans = [answer_normalisation.one_line(human) for human in human_answers]
    answer = answer_normalisation.one_line(answer)
    if len(set(humans)) > 1:
        humans = [answer_normalisation.normalise(human) for human in humans]
        answer = answer_normalisation.normalise(answer)
    return _leave_one_out(answer, humans)


def m4c_accuracy(answer: str, human_answers: Sequence[str]) -> float:
    """Score one answer by the rule of the TextVQA (M4C) evaluator.

    Example:
        >>> m4c_accuracy("Dakota.", ["dakota"] * 10)
        1.0
    """
    humans = [answer_normalisation.normalise_m4c(human) for human in human_answers]
    return _leave_one_out(answer_normalisation.normalise_m4c(answer), humans)


def vizwiz_toolkit_accuracy(answer: str, human_answers: Sequence[str]) -> float:
    """Score one answer by the rule of the VizWiz toolkit.

    Example:
        >>> vizwiz_toolkit_accuracy("A dog.", ["dog"] * 3 + ["cat"] * 7)
        1.0
    """
    answer = answer_normalisation.normalise_vizwiz(answer)
    return min(1.0, sum(human == answer for human in human_answers) / 3)


def vizwiz_leave_one_out_accuracy(answer: str, human_answers: Sequence[str]) -> float:
    """Score one answer by the VizWiz rule with each person left out in turn.

    Example:
        >>> round(vizwiz_leave_one_out_accuracy("A dog.", ["dog"] * 3 + ["cat"] * 7), 2)
        0.9
    """
    return _leave_one_out(answer_normalisation.normalise_vizwiz(answer), human_answers)


VQA_PROTOCOLS: dict[str, VQARule] = {
    "vqa-toolkit": vqa_toolkit_accuracy,
    "m4c": m4c_accuracy,
    "vizwiz-toolkit": vizwiz_toolkit_accuracy,
    "vizwiz-leave-one-out": vizwiz_leave_one_out_accuracy,
}

ANSWER_EXTRACTIONS: dict[str, Callable[[str], str]] = {
    "official": answer_extraction.extract_official,
    "word-boundary": answer_extraction.extract_at_words,
    "none": answer_extraction.keep_answer,
}


def vqa_accuracy(
    answers: Sequence[str],
    human_answers: Sequence[Sequence[str]],
    *,
    protocol: str,
    extraction: str,
    question_types: Sequence[str | None] | None = None,
    answer_types: Sequence[str | None] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> VQAAccuracy:
    """Score the answers to a set of questions.

    Args:
        answers: The model's text for each question, as generated.
        human_answers: The people's answers to each question, in file order.
        protocol: Name in ``VQA_PROTOCOLS``.
        extraction: Name in ``ANSWER_EXTRACTIONS``.
        question_types: Type of each question; ``None`` for a question leaves it out of the table.
        answer_types: The same.
        groups: Picture of each question, for the interval (see ``mean_score``).

    Raises:
        KeyError: If a name is not known.
        ValueError: If the lengths differ, there are no questions, or a question has no human answer.
    """
    rule = _named(VQA_PROTOCOLS, protocol, "VQA protocol")
    extract = _named(ANSWER_EXTRACTIONS, extraction, "answer extraction")
    columns = {"human_answers": human_answers, "question_types": question_types, "answer_types": answer_types}
    for name, column in (columns | {"groups": groups}).items():
        if column is not None and len(column) != len(answers):
            raise ValueError(f"{name} has {len(column)} entries for {len(answers)} answers; score the same questions.")
    for place, humans in enumerate(human_answers):
        if not humans:
            raise ValueError(f"question {place} has no human answer; score a split whose answers are public.")
    values = np.array([rule(extract(a), humans) for a, humans in zip(answers, human_answers, strict=True)], float)
    return VQAAccuracy(
        protocol,
        extraction,
        mean_score(values, groups=groups),
        _by_type(values, question_types, groups),
        _by_type(values, answer_types, groups),
        values,
    )


def exact_match(answer: str, truth: str) -> float:
    """Return 1 where the answer is the truth, else 0: GQA's rule after lower-casing and dropping final full stops.

    Example:
        >>> exact_match("Picture.", "picture"), exact_match("pictures", "picture")
        (1.0, 0.0)
    """
    return float(plain_answer(answer) == truth.strip().lower())


def plain_answer(text: str) -> str:
    """Return a text in lower case without white space around it and without final full stops.

    Example:
        >>> plain_answer(" A Picture. ")
        'a picture'
    """
    return text.strip().rstrip(".").strip().lower()


def exact_match_score(answers: Sequence[str], truths: Sequence[str]) -> Score:
    """Return the share of exact matches with a Wilson interval.

    Raises:
        ValueError: If the lengths differ or there is no answer.
    """
    return proportion_score([exact_match(a, t) for a, t in zip(answers, truths, strict=True)])


def _leave_one_out(answer: str, humans: Sequence[str]) -> float:
    matches = sum(human == answer for human in humans)
    of_matching, of_others = min(1.0, (matches - 1) / 3), min(1.0, matches / 3)
    return (matches * of_matching + (len(humans) - matches) * of_others) / len(humans) if matches else 0.0


def _by_type(
    values: NDArray[np.float64], types: Sequence[str | None] | None, groups: Sequence[Hashable] | None
) -> dict[str, Score]:
    places: dict[str, list[int]] = {}
    for place, kind in enumerate(types or ()):
        if kind is not None:
            places.setdefault(kind, []).append(place)
    return {
        kind: mean_score(values[rows], groups=None if groups is None else [groups[row] for row in rows])
        for kind, rows in sorted(places.items())
    }


def _named(known: dict[str, T], name: str, what: str) -> T:
    if name not in known:
        raise KeyError(f'no {what} "{name}". Known: {", ".join(known)}.')
    return known[name]
