"""CIDEr as the COCO toolkit computes it, per image, and what a person would score.

The toolkit's class ``Cider`` is the CIDEr-D form (Vedantam et al. 2015, section 5): n-grams of 1 to 4 tokens weighted
by term frequency times inverse document frequency, where a document is the references of one image; a count of the
prediction is clipped at the reference's; a Gaussian penalty with sigma 6 on the difference in length; the mean over n
and references, times 10. A corpus of one image scores 0, as every weight is then log(1). Values are given as the
toolkit gives them (1.0 is what papers print as 100).

A caption of one token has no bigram and counts as length 0, as in the toolkit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .caption_tokens import CaptionCorpus, Tokens, apart
from .intervals import Score, mean_score

N_MAX = 4
SIGMA = 6.0

NGram = tuple[str, ...]


@dataclass(frozen=True)
class _Vector:
    """Weights of a caption's n-grams by n, their norms, and its number of bigrams."""

    weights: tuple[dict[NGram, float], ...]
    norms: tuple[float, ...]
    length: int


def cider(corpus: CaptionCorpus) -> NDArray[np.float64]:
    """Score each image's prediction against its references.

    Returns:
        float[n] in the order of ``corpus.image_ids``.
    """
    return _cider(corpus.predictions, corpus.references)


def cider_score(corpus: CaptionCorpus) -> Score:
    """Average CIDEr over images; the interval resamples images and keeps the document frequencies."""
    return mean_score(cider(corpus))


def leave_one_out_cider(corpus: CaptionCorpus) -> NDArray[np.float64]:
    """Score people's captions against each other: what another person would get.

    Run k takes reference k of every image as its prediction and scores it against the others, exactly as the toolkit
    would; an image's score is the mean of its runs. Where images differ in their number of references, an image with
    fewer starts again from its first.

    Returns:
        float[n].

    Raises:
        ValueError: If an image has one reference only.
    """
    alone = [
        image for image, references in zip(corpus.image_ids, corpus.references, strict=True) if len(references) < 2
    ]
    if alone:
        raise ValueError(
            f"{len(alone)} images have one reference only, such as {alone[0]!r}; a leave-one-out score needs two."
        )
    runs = []
    for k in range(max(map(len, corpus.references))):
        left_out = [k % len(references) for references in corpus.references]
        predictions = [refs[i] for refs, i in zip(corpus.references, left_out, strict=True)]
        others = [refs[:i] + refs[i + 1 :] for refs, i in zip(corpus.references, left_out, strict=True)]
        runs.append(_cider(predictions, others))
    return np.mean(runs, axis=0)


def human_cider_score(corpus: CaptionCorpus) -> Score:
    """Average ``leave_one_out_cider`` over images."""
    return mean_score(leave_one_out_cider(corpus))


def n_grams(tokens: Tokens, n_max: int = N_MAX) -> Counter[NGram]:
    """Count the n-grams of 1 to ``n_max`` tokens.

    Example:
        >>> sorted(n_grams(("a", "b", "a"), 2).items())
        [(('a',), 2), (('a', 'b'), 1), (('b',), 1), (('b', 'a'), 1)]
    """
    return Counter(tokens[i : i + n] for n in range(1, n_max + 1) for i in range(len(tokens) - n + 1))


def _cider(predictions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> NDArray[np.float64]:
    counted = [[n_grams(apart(reference)) for reference in of_image] for of_image in references]
    frequency = Counter(n_gram for of_image in counted for n_gram in set().union(*of_image))
    log_n = math.log(len(references)) if references else 0.0
    weight = {n_gram: log_n - math.log(count) for n_gram, count in frequency.items()}
    scores = np.zeros(len(predictions))
    for row, (prediction, of_image) in enumerate(zip(predictions, counted, strict=True)):
        candidate = _vector(n_grams(apart(prediction)), weight, log_n)
        similar = [_similarity(candidate, _vector(reference, weight, log_n)) for reference in of_image]
        scores[row] = 10.0 * sum(similar) / (N_MAX * len(similar))
    return scores


def _vector(counts: Counter[NGram], weight: dict[NGram, float], unseen: float) -> _Vector:
    """Weigh n-grams; one that no reference holds counts as seen once."""
    weights: tuple[dict[NGram, float], ...] = tuple({} for _ in range(N_MAX))
    for n_gram, count in counts.items():
        weights[len(n_gram) - 1][n_gram] = count * weight.get(n_gram, unseen)
    norms = tuple(math.sqrt(math.fsum(w * w for w in of_n.values())) for of_n in weights)
    return _Vector(weights, norms, sum(count for n_gram, count in counts.items() if len(n_gram) == 2))


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    """Sum over n of the clipped cosine, times the penalty on length."""
    total = 0.0
    for n in range(N_MAX):
        norm = candidate.norms[n] * reference.norms[n]
        if norm == 0.0:
            continue
        theirs = reference.weights[n]
        shared = ((w, theirs[n_gram]) for n_gram, w in candidate.weights[n].items() if n_gram in theirs)
        total += math.fsum(min(ours, other) * other for ours, other in shared) / norm
    difference = candidate.length - reference.length
    return total * math.exp(-(difference**2) / (2 * SIGMA**2))
