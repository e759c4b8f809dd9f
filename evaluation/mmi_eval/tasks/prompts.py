"""Prompts are data: templates with the marks ``{image}``, ``{question}`` and the like."""

from __future__ import annotations

import string
from collections.abc import Mapping

from mmi_eval.formats.errors import FormatError
from mmi_eval.sample import Picture


def fill(template: str, fields: Mapping[str, str | Picture]) -> tuple[str | Picture, ...]:
    """Put texts and pictures into a template.

    Args:
        template: Such as ``{image}Question: {question} Short answer:``.
        fields: What each mark stands for; a template need not use all.

    Returns:
        Texts and pictures in reading order, no empty text.

    Raises:
        FormatError: If the template has an unknown mark or a lone brace.

    Example:
        >>> fill("Say {what}: {question}", {"what": "it", "question": "what is {this}?"})
        ('Say it: what is {this}?',)
    """
    pieces: list[str | Picture] = []
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise FormatError(f'prompt "{template}": {error}; double braces that are meant as such.') from error
    for text, mark, _, _ in parsed:
        if mark is not None and mark not in fields:
            marks = ", ".join(f"{{{name}}}" for name in fields)
            raise FormatError(f'prompt "{template}" has the unknown mark {{{mark}}}; expected {marks}.')
        for piece in (text, "" if mark is None else fields[mark]):
            if isinstance(piece, str) and pieces and isinstance(pieces[-1], str):
                pieces[-1] += piece
            elif piece:
                pieces.append(piece)
    return tuple(pieces)
