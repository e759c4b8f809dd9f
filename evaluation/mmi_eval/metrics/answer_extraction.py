"""Ways to shorten a generated answer before VQA scoring; the raw score belongs beside every shortened one."""

from __future__ import annotations

import re


def keep_answer(text: str) -> str:
    """Return the text as generated (extraction ``none``)."""
    return text


def extract_official(text: str) -> str:
    """Shorten as the official MM-Interleaved code does (extraction ``official``).

    Double quotes go; the first line up to its first ``.``, ``,`` or ``!`` stays, in lower case. Then for each of
    "is ", "are ", "a ", "an ", "the " what stands between its first and second occurrence stays, and what follows
    " of", " or ", " and " goes. These are plain substrings, so whole answers are lost inside words.

    Example:
        >>> extract_official('It is a "cat".'), extract_official("panda bear"), extract_official("post office")
        ('cat', 'bear', 'post')
    """
    text = text.replace('"', "").strip().split("\n")[0]
    for mark in ".,!":
        text = text.split(mark)[0]
    text = text.lower()
    for opening in ("is ", "are ", "a ", "an ", "the "):
        if opening in text:
            text = text.split(opening)[1]
    for tail in (" of", " or ", " and "):
        text = text.split(tail)[0]
    return text.strip()


_SENTENCE_END = re.compile(r"[.,!]+(?=\s|$)")
_OPENINGS = tuple(re.compile(rf"(?<!\S){word}\s+") for word in ("is", "are", "a", "an", "the"))
_TAIL = re.compile(r"\s(?:of|or|and)(?=\s|$)")


def extract_at_words(text: str) -> str:
    """Shorten by the same rules at whole words (extraction ``word-boundary``).

    Words are cut at white space only, and ``.``, ``,``, ``!`` end the answer only before white space or the end, so
    that "panda bear", "7.5" and "1,000" stay. Where a rule would leave nothing, the text before it stays.

    Example:
        >>> extract_at_words('It is a "cat".'), extract_at_words("panda bear"), extract_at_words("post office")
        ('cat', 'panda bear', 'post office')
        >>> extract_at_words("The clock says 7.30, I think.")
        'clock says 7.30'
    """
    lines = text.replace('"', "").strip().split("\n")
    text = _first_part(_SENTENCE_END, lines[0]).lower()
    for opening in _OPENINGS:
        parts = opening.split(text)
        if len(parts) > 1 and parts[1].strip():
            text = parts[1]
    return _first_part(_TAIL, text.strip()).strip()


def _first_part(pattern: re.Pattern[str], text: str) -> str:
    first = pattern.split(text)[0]
    return first if first.strip() else text
