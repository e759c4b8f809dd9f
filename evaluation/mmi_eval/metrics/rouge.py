"""ROUGE-L as the COCO toolkit computes it: the longest common subsequence of tokens, per image.

Lin 2004, section 3.1, in the toolkit's form: precision and recall are each the best over the references, not those of
one reference, and weigh recall ``BETA`` squared times as much. A text without tokens counts as one empty token, as in
the toolkit, where splitting it gives one: it scores 0 against any words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .caption_tokens import CaptionCorpus, Tokens
from .intervals import Score, mean_score

BETA = 1.2


def rouge_l(corpus: CaptionCorpus) -> NDArray[np.float64]:
    """Score each image's prediction against its references.

    Returns:
        float[n] in [0, 1], in the order of ``corpus.image_ids``.
    """
    pairs = zip(corpus.predictions, corpus.references, strict=True)
    return np.array([_rouge_l(prediction, references) for prediction, references in pairs])


def rouge_l_score(corpus: CaptionCorpus) -> Score:
    """Average ROUGE-L over images; the interval resamples images."""
    return mean_score(rouge_l(corpus))


def common_subsequence(first: Tokens, second: Tokens) -> int:
    """Return the length of the longest subsequence that both hold, by bits of one number (Hyyro 2004).

    Example:
        >>> common_subsequence(("a", "red", "dog", "runs"), ("a", "dog", "sits", "red"))
        2
    """
    places: dict[str, int] = {}
    for place, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << place
    # A bit is cleared where the subsequence grows by one.
    everywhere = (1 << len(first)) - 1
    free = everywhere
    for token in second:
        matched = free & places.get(token, 0)
        free = ((free + matched) | (free - matched)) & everywhere
    return len(first) - free.bit_count()


def _rouge_l(prediction: Tokens, references: Sequence[Tokens]) -> float:
    said = prediction or ("",)
    pairs = [(common_subsequence(said, reference or ("",)), len(reference) or 1) for reference in references]
    precision = max(common for common, _ in pairs) / len(said)
    recall = max(common / length for common, length in pairs)
    if precision == 0.0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)
