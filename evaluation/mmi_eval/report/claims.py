"""What a run is expected to show, checked against its scores: each claim holds, does not, or was not measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mmi_eval.metrics.intervals import Score
from mmi_eval.results import Condition

from .evaluated import Result, by_task, controls_of, standing
from .wording import interval, number, signed, standing_of

_POINTS_ABOVE_MAJORITY, _POINTS_LEFT_BLIND = 0.10, 0.05
_TIMES_FREQUENT_CAPTION, _SHARE_OF_HUMAN = 3.0, 0.25
_SHARE_BACKGROUND = 0.80
_CHANCE = 0.025


@dataclass(frozen=True)
class Claim:
    """One expectation.

    Args:
        text: What is expected.
        holds: None where the run was not measured for it.
        evidence: The numbers, or what to run.
    """

    text: str
    holds: bool | None
    evidence: str


@dataclass(frozen=True)
class _Standing:
    """The result that stands for a task, and its controls by what was taken away."""

    result: Result
    controls: Mapping[Condition, Result]


def check_claims(results: Sequence[Result]) -> list[Claim]:
    """Check every claim whose task was evaluated; nothing is said of the others."""
    found: dict[str, _Standing] = {}
    # Of several entries of a task the claims are about the one with its own name.
    entries = sorted(by_task(results).items(), key=lambda entry: all(r.task != entry[0] for r in entry[1]))
    for _, of_task in entries:
        if (result := standing(of_task)) is not None and result.task not in found:
            found[result.task] = _Standing(result, {c.condition: c for c in controls_of(result, of_task)})
    claims = [claim for task, check in _CHECKS for claim in (check(found[task]) if task in found else ())]
    return [*claims, *_without_mmfs(found)]


def _against_majority(of: _Standing) -> list[Claim]:
    text = (
        f"VQA accuracy is at least {100 * _POINTS_ABOVE_MAJORITY:.0f} points above the majority answer, not by chance"
    )
    difference = _difference(of.result, "majority")
    if difference is None:
        claims = [Claim(text, None, "the majority baseline was not scored")]
    else:
        claims = [
            Claim(text, difference.value >= _POINTS_ABOVE_MAJORITY and difference.low > 0, signed(difference, True))
        ]
    return [*claims, *(_blind(of, control) for control in ("blank", "swapped"))]


def _blind(of: _Standing, control: str) -> Claim:
    points = f"{100 * _POINTS_LEFT_BLIND:.0f} points"
    text = f"with {control} pictures VQA accuracy falls to within {points} of the majority answer"
    result = next((r for c, r in of.controls.items() if c.control == control and c.mmfs), None)
    majority = of.result.rivals.get("majority")
    name = of.result.headline
    if result is None or majority is None or name not in majority.values:
        return Claim(text, None, f"run mmi evaluate with --control {control}")
    gap = result.values[name].value - majority.values[name].value
    evidence = f"{interval(result.values[name], True)} against {number(majority.values[name].value, True)}"
    return Claim(text, gap <= _POINTS_LEFT_BLIND, evidence)


def _captions(of: _Standing) -> list[Claim]:
    frequent = f"CIDEr is at least {_TIMES_FREQUENT_CAPTION:g} times that of the most frequent caption"
    human = f"CIDEr is at least {100 * _SHARE_OF_HUMAN:.0f} % of what people reach with one left out"
    return [
        _ratio(of.result, "most_frequent_caption", _TIMES_FREQUENT_CAPTION, frequent),
        _ratio(of.result, "human_leave_one_out", _SHARE_OF_HUMAN, human),
    ]


def _ratio(result: Result, rival: str, least: float, text: str) -> Claim:
    name = result.headline
    other = result.rivals.get(rival)
    if other is None or name not in other.values:
        return Claim(text, None, f"the baseline {rival.replace('_', ' ')} was not scored")
    ours, theirs = result.values[name].value, other.values[name].value
    share = f"{ours / theirs:.2f} times" if theirs > 0 else "the baseline is 0"
    evidence = f"{interval(result.values[name], True)} against {number(theirs, True)}: {share}"
    return Claim(text, ours >= least * theirs and ours > 0, evidence)


def _constant_box(of: _Standing) -> list[Claim]:
    text = "grounding is above the best constant box"
    difference = _difference(of.result, "constant_box")
    if difference is None:
        return [Claim(text, None, "the constant box was not scored")]
    return [Claim(text, difference.low > 0, signed(difference, True))]


def _shuffled_words(of: _Standing) -> list[Claim]:
    claims = []
    for name, difference in of.result.comparisons.items():
        kind = "a story's last picture" if name.startswith("story") else "a captioned picture"
        text = f"the image loss of {kind} is worse with the words of another sample"
        claims.append(Claim(text, difference.low > 0, signed(difference, False)))
    return claims


def _drawn(of: _Standing) -> list[Claim]:
    result = of.result
    claims = []
    text = f"the judge finds the requested background in at least {100 * _SHARE_BACKGROUND:.0f} % of drawn pictures"
    if (background := result.values.get("background")) is not None:
        claims.append(Claim(text, background.value >= _SHARE_BACKGROUND, interval(background, True)))
    text = "the judge finds the requested colour at the requested place more often than with shuffled captions"
    difference = result.comparisons.get("colour at place - shuffled captions")
    if difference is not None and "colour at place" in result.values:
        evidence = f"{interval(result.values['colour at place'], True)}, difference {signed(difference, True)}"
        claims.append(Claim(text, difference.low > 0, evidence))
    return claims


def _earlier_picture(of: _Standing) -> list[Claim]:
    """Check questions whose answer is in a picture before the latest against what their words alone give."""
    other = of.result.rivals.get("question_only")
    claims = []
    for name, difference in (other.differences if other is not None else {}).items():
        if name.startswith(("tag/earlier", "type/earlier")) and name in of.result.values:
            kind = name.partition("/")[2]
            text = f"questions about an earlier picture ({kind}) beat the answers that their words alone give"
            evidence = f"{interval(of.result.values[name], True)}, difference {signed(difference, True)}"
            claims.append(Claim(text, difference.low > 0, evidence))
    return claims


def _without_mmfs(found: Mapping[str, _Standing]) -> list[Claim]:
    """Check that something gets worse with MMFS off, and say how many kinds chance alone would have shown."""
    text = "with MMFS switched off at least one kind of question, or the story picture loss, gets significantly worse"
    compared, worse = 0, []
    for task, of in found.items():
        off = of.controls.get(Condition(mmfs=False))
        for name, difference in (of.result.minus(off) if off is not None else {}).items():
            if name not in of.result.values or ", " in name:
                continue
            compared += 1
            if standing_of(difference, lower_is_better=of.result.lower_is_better(name)) == "better":
                worse.append(f"{task} {name} {signed(difference, of.result.is_percent(name))}")
    if not found:
        return []
    if not compared:
        return [Claim(text, None, "run mmi evaluate with --without-mmfs")]
    chance = f"{len(worse)} of {compared} values; chance alone would show about {_CHANCE * compared:.1f}"
    return [Claim(text, bool(worse), "; ".join([chance, *worse[:4]]))]


def _difference(result: Result, rival: str) -> Score | None:
    other = result.rivals.get(rival)
    return None if other is None else other.differences.get(result.headline)


_CHECKS: tuple[tuple[str, Callable[[_Standing], list[Claim]]], ...] = (
    ("vqav2", _against_majority),
    ("coco_caption", _captions),
    ("refcoco", _constant_box),
    ("micro_image_loss", _shuffled_words),
    ("micro_drawing", _drawn),
    ("micro_quiz", _earlier_picture),
)
