"""Answers from anywhere put to the samples they belong to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from .formats.errors import FormatError
from .sample import Sample


def answered_samples(
    samples: Sequence[Sample], answered: Collection[str], file: str | Path, asked: str | Path, thing: str, hint: str
) -> list[Sample]:
    """Return the samples that a file answers, in their own order.

    Args:
        samples: All of a benchmark.
        answered: Ids that the file answers.
        file: The file, for messages.
        asked: Where the samples are from, for messages.
        thing: What a sample is called, such as ``question``.
        hint: What to do about answers to other samples.

    Raises:
        FormatError: If the file answers samples that are not there, or none.
    """
    known = {sample.id for sample in samples}
    if unknown := [sample_id for sample_id in answered if sample_id not in known]:
        raise FormatError(
            f"{file} answers {len(unknown)} {thing}s that {asked} does not hold, such as {unknown[0]}; {hint}."
        )
    found = [sample for sample in samples if sample.id in answered]
    if not found:
        raise FormatError(f"{file} answers no {thing} of {asked}; check that it is the right file.")
    return found
