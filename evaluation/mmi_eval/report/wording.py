"""Scores in words: the same number, interval and verdict everywhere on a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmi_eval.metrics.intervals import Score

from .evaluated import Result
from .markup import NOTHING, Markup, element, fragment
from .numbers import short

Standing = Literal["better", "worse", "open"]

# What tasks are called where a person reads them, and words that have a spelling of their own.
_TITLES = {
    "vqav2": "VQA v2",
    "coco_caption": "COCO captions",
    "flickr30k": "Flickr30k",
    "nocaps": "NoCaps",
    "image2paragraph": "Image2Paragraph",
    "okvqa": "OK-VQA",
    "gqa": "GQA",
    "vizwiz": "VizWiz",
    "textvqa": "TextVQA",
    "visdial": "VisDial",
    "refcoco": "RefCOCO",
    "coco_image": "COCO text to image",
    "ln_coco_image": "LN-COCO text to image",
    "ade20k": "ADE20K",
    "vist": "VIST",
    "pororo": "PororoSV",
    "flintstones": "FlintstonesSV",
    "interleaved_world": "Interleaved world",
    "joint_story": "Joint story",
    "micro_quiz": "Micro-world quiz",
    "micro_drawing": "Micro-world drawing",
    "micro_image_loss": "Image loss",
}
_NAMES = {
    "cider": "CIDEr",
    "vqa": "VQA",
    "iou": "IoU",
    "miou": "mIoU",
    "fid": "FID",
    "mmfs": "MMFS",
    "coco": "COCO",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "bleu": "BLEU",
    "kid": "KID",
    "refcoco+": "RefCOCO+",
    "refcocog": "RefCOCOg",
    "2shot": "2-shot",
}


# To be below these is no failure: they say how much can be reached.
_CEILINGS = frozenset({"human_leave_one_out", "real_pictures", "real_story"})


@dataclass(frozen=True)
class Verdict:
    """How a score stands against something.

    Args:
        standing: ``open`` where the interval of the difference holds 0.
        words: A few words for people.
    """

    standing: Standing
    words: str


def readable(name: str) -> str:
    """Return a name of a task, value or baseline as words.

    Example:
        >>> readable("vqa_accuracy"), readable("type/earlier_image"), readable("refcoco_plus_testA")
        ('VQA accuracy', 'earlier image', 'RefCOCO+ testA')
    """
    if name in _TITLES:
        return _TITLES[name]
    words = (name.partition("/")[2] or name).replace("refcoco_plus", "refcoco+").replace("_", " ").split(" ")
    return " ".join("-".join(_spelled(part) for part in word.split("-")) for word in words)


def _spelled(part: str) -> str:
    bare = part.rstrip(",")
    return _NAMES.get(bare, _TITLES.get(bare, bare)) + part[len(bare) :]


def number(value: float, percent: bool) -> str:
    """Return a value as it is printed: fractions times 100 with one decimal."""
    return f"{100 * value:z.1f}" if percent else short(value)


def interval(score: Score, percent: bool) -> str:
    """Return a value with its 95 % interval.

    Example:
        >>> interval(Score(0.541, 0.51, 0.572, 300), True)
        '54.1 [51.0, 57.2]'
        >>> interval(Score(0.5, 0.5, 0.5, 3), True)
        '50.0 [too few]'
    """
    if not score.has_interval:
        return f"{number(score.value, percent)} [too few]"
    return f"{number(score.value, percent)} [{number(score.low, percent)}, {number(score.high, percent)}]"


def signed(score: Score, percent: bool) -> str:
    """Return a difference with its sign and interval.

    Example:
        >>> signed(Score(0.331, 0.29, 0.37, 300), True), signed(Score(-0.02, -0.05, 0.01, 300), True)
        ('+33.1 [+29.0, +37.0]', '-2.0 [-5.0, +1.0]')
    """
    if not score.has_interval:
        return f"{'+' if score.value > 0 else ''}{number(score.value, percent)} [too few]"
    value, low, high = (("+" if x > 0 else "") + number(x, percent) for x in (score.value, score.low, score.high))
    return f"{value} [{low}, {high}]"


def standing_of(difference: Score, *, lower_is_better: bool) -> Standing:
    """Say whether a difference is one for the better, for the worse, or not shown."""
    if not difference.has_interval:
        return "open"
    if difference.low > 0:
        return "worse" if lower_is_better else "better"
    if difference.high < 0:
        return "better" if lower_is_better else "worse"
    return "open"


def verdict_against(result: Result, name: str, rival: str) -> Verdict | None:
    """Compare a value with a baseline: paired where that was measured, else by whether the intervals overlap.

    Returns:
        None where the baseline has no such value.
    """
    other = result.rivals[rival]
    if name not in other.values:
        return None
    ours, theirs = result.values[name], other.values[name]
    difference = other.differences.get(name)
    how = signed(difference, result.is_percent(name)) if difference else "by their intervals"
    gap = difference or Score(ours.value - theirs.value, ours.low - theirs.high, ours.high - theirs.low, ours.n)
    standing = standing_of(gap, lower_is_better=result.lower_is_better(name))
    words = {"better": "better", "worse": "worse", "open": "no difference shown"}[standing]
    return Verdict("open" if rival in _CEILINGS else standing, f"{words}: {how}")


def marked(verdict: Verdict) -> Markup:
    """Return a verdict with a sign before it, so that its colour is not needed to read it."""
    style = {"better": "holds", "worse": "fails", "open": "unknown"}[verdict.standing]
    sign = {"better": "\u2713 ", "worse": "\u2717 ", "open": "\u2013 "}[verdict.standing]
    return element("span", {"class": style}, sign + verdict.words)


def limited_label(result: Result) -> Markup:
    """Return the label of an evaluation of the first samples only; nothing for others."""
    if not result.limited:
        return NOTHING
    return fragment(" ", element("span", {"class": "limited"}, "LIMITED"))
