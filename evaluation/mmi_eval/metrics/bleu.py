"""Corpus BLEU-1 to 4 as the COCO toolkit computes it: clipped n-gram precision, closest reference length."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from .caption_tokens import CaptionCorpus, Tokens, apart
from .cider import N_MAX, NGram, n_grams
from .intervals import Score, bootstrap_score

# The toolkit's guards against a division by zero; they move its printed digits for very small sets.
_SMALL, _TINY = 1e-9, 1e-15


def bleu(corpus: CaptionCorpus) -> tuple[float, ...]:
    """Return BLEU-1 to BLEU-4 of the whole corpus."""
    return _bleu(_counts(corpus))


def bleu_score(corpus: CaptionCorpus, n: int = N_MAX) -> Score:
    """Return BLEU-``n`` with a bootstrap interval over images."""
    counts = _counts(corpus)
    return bootstrap_score(lambda rows: _bleu(counts[rows])[n - 1], len(counts))


def bleu_scores(corpus: CaptionCorpus) -> tuple[Score, ...]:
    """Return BLEU-1 to BLEU-4, each with a bootstrap interval over images."""
    counts = _counts(corpus)
    return tuple(bootstrap_score(lambda rows, n=n: _bleu(counts[rows])[n], len(counts)) for n in range(N_MAX))


def _counts(corpus: CaptionCorpus) -> NDArray[np.float64]:
    """Per image: matches by n, candidates by n, length, closest reference length: float[n, 2 * N_MAX + 2]."""
    pairs = zip(corpus.predictions, corpus.references, strict=True)
    rows = [_counts_of(apart(prediction), tuple(map(apart, references))) for prediction, references in pairs]
    return np.array(rows, dtype=np.float64)


def _counts_of(prediction: Tokens, references: tuple[Tokens, ...]) -> list[int]:
    most: Counter[NGram] = Counter()
    for reference in references:
        most |= n_grams(reference)
    matches = [0] * N_MAX
    for n_gram, count in n_grams(prediction).items():
        matches[len(n_gram) - 1] += min(count, most[n_gram])
    length = len(prediction)
    candidates = [max(0, length - n) for n in range(N_MAX)]
    closest = min((abs(len(reference) - length), len(reference)) for reference in references)[1]
    return [*matches, *candidates, length, closest]


def _bleu(counts: NDArray[np.float64]) -> tuple[float, ...]:
    total = counts.sum(axis=0)
    matches, candidates, (length, reference_length) = total[:N_MAX], total[N_MAX : 2 * N_MAX], total[2 * N_MAX :]
    precisions = np.cumprod((matches + _TINY) / (candidates + _SMALL)) ** (1 / np.arange(1, N_MAX + 1))
    ratio = (length + _TINY) / (reference_length + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    return tuple((precisions * penalty).tolist())
