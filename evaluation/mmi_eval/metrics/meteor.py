"""METEOR 1.5 as the COCO toolkit runs it: English, the jar's normalisation, its rank-tuned parameters.

The jar (Denkowski and Lavie 2014, shipped in pycocoevalcap with its paraphrase table) aligns each prediction with its
best reference and says what it matched: 23 numbers (``STATISTICS``). Scores follow from these by the formula of that
paper, for one image and, from their sums, for a corpus; the corpus value is therefore no mean of images. Ours equal
what the jar's own ``EVAL`` gives to the last digit, and resampling images for the interval needs no further run.

Java starts once for a corpus and reads 60 MB of paraphrases, some seconds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .caption_tokens import CaptionCorpus, Tokens
from .intervals import Score, bootstrap_score
from .toolkit_jars import CaptionToolError, ToolkitJar

METEOR_JAR = ToolkitJar("METEOR", "meteor/meteor-1.5.jar", "leave it out (meteor: false, or --without-meteor)")

STATISTICS = 23
"""Tokens and function words of both sides; matches of content and function words on both sides by each of the four
matchers; chunks; matched tokens of both sides."""

_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MATCHER_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase
_SEPARATOR = "|||"


def meteor_statistics(corpus: CaptionCorpus) -> NDArray[np.float64]:
    """Align each prediction with the best of its references.

    Returns:
        float[n, STATISTICS] in the order of ``corpus.image_ids``.

    Raises:
        CaptionToolError: If Java or pycocoevalcap is missing, or the jar fails.
    """
    pairs = zip(corpus.predictions, corpus.references, strict=True)
    lines = [f" {_SEPARATOR} ".join(["SCORE", *map(_text, references), _text(said)]) for said, references in pairs]
    options = ("-", "-", "-stdio", "-l", "en", "-norm")
    answers = METEOR_JAR.run(("-Xmx2G", "-jar", "JAR"), options, lines)
    return np.array([_numbers(answer, line) for answer, line in zip(answers, lines, strict=True)]).reshape(
        -1, STATISTICS
    )


def meteor_of(statistics: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score statistics: rows of single images, or their sum for a corpus.

    Args:
        statistics: float[..., STATISTICS].

    Returns:
        float[...] in [0, 1]; 0 where nothing matches.
    """
    by_matcher = statistics[..., 4:20].reshape(*statistics.shape[:-1], 4, 4)
    content, function = by_matcher[..., :2], by_matcher[..., 2:]
    matches = (_MATCHER_WEIGHTS[:, None] * (_DELTA * content + (1 - _DELTA) * function)).sum(-2)  # (..., 2)
    tokens, function_words = statistics[..., :2], statistics[..., 2:4]
    weighted = _DELTA * (tokens - function_words) + (1 - _DELTA) * function_words
    precision, recall = np.moveaxis(_ratio(matches, weighted), -1, 0)
    mean = _ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
    chunks, matched = statistics[..., 20], statistics[..., 21:23]
    fragments = _ratio(chunks, matched.mean(-1))
    # A single chunk that is all of both sides is not fragmented, although 1 / length is not 0.
    fragments = np.where((chunks == 1) & (matched == tokens).all(-1), 0.0, fragments)
    return mean * (1 - _GAMMA * fragments**_BETA)


def meteor(corpus: CaptionCorpus) -> NDArray[np.float64]:
    """Score each image: float[n], in the order of ``corpus.image_ids``; see ``meteor_statistics`` for errors."""
    return meteor_of(meteor_statistics(corpus))


def meteor_score(corpus: CaptionCorpus) -> Score:
    """Return METEOR of the whole corpus with a bootstrap interval over images; see ``meteor_statistics`` for errors."""
    statistics = meteor_statistics(corpus)
    return bootstrap_score(lambda rows: float(meteor_of(statistics[rows].sum(0))), len(statistics))


def _text(tokens: Tokens) -> str:
    """Return tokens as the jar reads them; its separator within one would shift what follows."""
    return " ".join(tokens).replace(_SEPARATOR, "")


def _numbers(answer: str, line: str) -> list[float]:
    try:
        numbers = [float(number) for number in answer.split()]
    except ValueError:
        numbers = []
    if len(numbers) != STATISTICS:
        raise CaptionToolError(
            f'METEOR answered "{answer[:60]}" to "{line[:60]}"; expected {STATISTICS} numbers, use the jar 1.5 of '
            "pycocoevalcap."
        )
    return numbers


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)
