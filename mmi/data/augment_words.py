"""What a mirrored or cut picture means for the words about it."""

from __future__ import annotations

import re
from collections.abc import Callable

_PAIRS = (("left", "right"), ("lft", "rgt"), ("lt", "rt"))
_OTHER = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}
# leftmost, left-most, lefthand, left-handed, leftside, leftward, ... are mirrored with their first part.
_PART = r"(?:most|hand|handed|side|sided|ward|wards|er|ern)"
# ``lt`` may be light and ``rt`` a road: sides only before another word of place, or where they end ``guy on rt``.
_SIDES = (
    re.compile(rf"()\b(left|right|lft|rgt)(?={_PART}?(?![a-z]))", re.IGNORECASE),
    re.compile(rf"()\b(lt|rt)(?=[ -]?{_PART}(?![a-z])|\s+(?:of|corner|edge|end|half)\b)", re.IGNORECASE),
    re.compile(
        r"\b((?:on|to|at|from|far|the|top|bottom|upper|lower|front|back)\s+)(lt|rt)(?=\s*(?:[.,;:!?<)]|$))",
        re.IGNORECASE,
    ),
)
# Words that hold left or right and mean no side.
_HARMLESS = re.compile(
    r"\b(?:bright|fright|(?:up|out|forth|birth|copy|al|all)right|(?:play|cart|wheel|ship)?wright|cleft|leftover|rights\b|"
    r"righteous|rightful|rightly\b)",
    re.IGNORECASE,
)
# What is left of sides besides: bottomleft, leftcorner, righty, lhs.
_GLUED = re.compile(r"left|right|lft|rgt|lhs|rhs", re.IGNORECASE)
# The mirror image of these is not looked for: ``r`` may be a letter on a shirt, 4 o'clock may be a time.
_UNKNOWN = re.compile(
    r"\b(l|r|lt|rt|lef|letf|righ|rigt|rigth|(?:counter-?|anti-?)?clockwise|o\W?clock|east\w*|west\w*)\b", re.IGNORECASE
)
# Counted from the left, as a rule, where no side is named.
_COUNTED = re.compile(
    r"\b(first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|\d+(?:st|nd|rd|th)|last)\b", re.IGNORECASE
)
# The official system's words, and those like them.
_PLACED = re.compile(
    r"\b(top\w*|bottom\w*|center\w*|centre\w*|central|middle|mid|upper\w*|lower\w*|above|below|corner\w*|edge\w*|"
    r"side\w*|farthest|furthest|nearest|closest)\b",
    re.IGNORECASE,
)


def mirrored_text(text: str) -> str | None:
    """Return what is true of the mirrored picture: ``left`` and ``right`` change places, written as they were.

    Whole words only (``bright`` stays), alone or before ``most``, ``hand``, ``side``, ``ward`` with or without a
    hyphen, and the short ``lft``/``rgt``, ``lt``/``rt`` of RefCOCO. ``right`` is taken for the side whatever it means:
    ``the right answer`` becomes ``the left answer``.

    Returns:
        None where the text holds a word for a direction whose mirror image can't be told: a side glued to other letters
        (``bottomleft``, ``lhs``), ``lt`` that may be light, a lone ``l`` or ``r``, a direction of the clock or the
        compass, or a number in a row (``second``) without a side to count from. Such a picture is not mirrored.

    Example:
        >>> mirrored_text("LEFT of the bright Right-hand guy, leftmost")
        'RIGHT of the bright Left-hand guy, rightmost'
        >>> mirrored_text("second from right")
        'second from left'
        >>> mirrored_text("guy on r") is mirrored_text("topleft") is mirrored_text("second dog") is None
        True
    """
    without = _with_sides(text, lambda _: " ")
    if _UNKNOWN.search(without) or _GLUED.search(_HARMLESS.sub(" ", without)):
        return None
    if without == text and _COUNTED.search(text):
        return None
    return _with_sides(text, lambda side: _as_written(side, _OTHER[side.lower()]))


def _with_sides(text: str, written: Callable[[str], str]) -> str:
    for pattern in _SIDES:
        text = pattern.sub(lambda match: match[1] + written(match[2]), text)
    return text


def _as_written(pattern: str, word: str) -> str:
    if pattern.isupper():
        return word.upper()
    return word.capitalize() if pattern[0].isupper() else word


def says_where(text: str) -> bool:
    """Say whether a text tells a place in the picture, or counts along it, which need not hold for a part of it.

    Example:
        >>> says_where("second dog"), says_where("topmost shelf"), says_where("the stopped car")
        (True, True, False)
    """
    return bool(
        _GLUED.search(_HARMLESS.sub(" ", text))
        or any(pattern.search(text) for pattern in (_UNKNOWN, _COUNTED, _PLACED, *_SIDES))
    )
