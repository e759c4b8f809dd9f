"""VisDial: NDCG of the dense annotations, recall at k, reciprocal and mean rank of the human answer.

As in batra-mlp-lab/visdial-challenge-starter ``metrics.py``: the gain of an option is its relevance, its discount is
log2(rank + 1), only the first k ranks count, k being the number of options with relevance above zero. The starter
kit accumulates in float32; here it is float64, so the last digits differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .intervals import Score, mean_score, proportion_score


@dataclass(frozen=True)
class RetrievalScores:
    """Where the human answer came.

    Args:
        recall: Share of rounds with a rank of at most k, by k.
        mean_reciprocal_rank: Mean of 1 / rank.
        mean_rank: Mean rank, from 1.
    """

    recall: dict[int, Score]
    mean_reciprocal_rank: Score
    mean_rank: Score


def ranks_of_scores(scores: ArrayLike) -> NDArray[np.int64]:
    """Rank options by score, 1 for the highest; equal scores keep the order of the options.

    Args:
        scores: float[n, options].

    Returns:
        int64[n, options].

    Raises:
        ValueError: If a score is not a number.

    Example:
        >>> ranks_of_scores([[0.1, 0.7, 0.2]]).tolist()
        [[3, 1, 2]]
    """
    table = np.asarray(scores, dtype=np.float64)
    if np.isnan(table).any():
        raise ValueError(f"the scores of round {int(np.isnan(table).any(axis=1).argmax())} hold NaN; score it again.")
    order = np.argsort(-table, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, table.shape[1] + 1)[None, :], axis=1)
    return ranks


def ndcg(ranks: ArrayLike, relevance: ArrayLike) -> NDArray[np.float64]:
    """Return the normalised discounted cumulative gain of each round.

    Args:
        ranks: int[n, options], each row a permutation of 1..options.
        relevance: float[n, options] share of people who found the option right.

    Returns:
        float[n].

    Raises:
        ValueError: If shapes differ, a row of ranks is no permutation, or a row has no relevant option.

    Example:
        The only relevant option is ranked second, and k is 1:

        >>> ndcg([[2, 1, 3]], [[1.0, 0.0, 0.0]]).tolist()
        [0.0]
    """
    places, gains = np.asarray(ranks), np.asarray(relevance, dtype=np.float64)
    if places.ndim != 2 or places.shape != gains.shape:
        raise ValueError(f"ranks have shape {places.shape} and relevance {gains.shape}; expected one row per round.")
    n_options = places.shape[1]
    wrong = (np.sort(places, axis=1) != np.arange(1, n_options + 1)).any(axis=1)
    if wrong.any():
        raise ValueError(f"the ranks of round {int(wrong.argmax())} are not 1..{n_options}, each once; rank it again.")
    discounts, best = _discounts(gains)
    by_rank = np.take_along_axis(gains, np.argsort(places, axis=1), axis=1)
    return (by_rank * discounts).sum(axis=1) / best


def chance_ndcg(relevance: ArrayLike) -> NDArray[np.float64]:
    """Return the exact mean of ``ndcg`` over all orders of the options.

    Every rank then holds the mean relevance, so it is the mean times the discounts of the first k ranks, over the best
    gain there is.

    Args:
        relevance: float[n, options].

    Returns:
        float[n].

    Raises:
        ValueError: If a row has no relevant option.

    Example:
        >>> chance_ndcg([[0.0, 1.0, 0.0, 0.0]]).tolist()
        [0.25]
    """
    gains = np.asarray(relevance, dtype=np.float64)
    discounts, best = _discounts(gains)
    return gains.mean(axis=1) * discounts.sum(axis=1) / best


def ndcg_score(ranks: ArrayLike, relevance: ArrayLike) -> Score:
    """Average ``ndcg`` over rounds, with a bootstrap interval."""
    return mean_score(ndcg(ranks, relevance))


def retrieval_scores(truth_ranks: ArrayLike, ks: Sequence[int] = (1, 5, 10)) -> RetrievalScores:
    """Score where the human answers were ranked.

    Args:
        truth_ranks: int[n] rank of the human answer in each round, from 1.
        ks: The k of recall at k.

    Raises:
        ValueError: If there is no round, or a rank is below 1.
    """
    ranks = np.asarray(truth_ranks)
    if (ranks < 1).any():
        raise ValueError(f"rank {ranks.min()} of round {int(ranks.argmin())} is below 1; ranks count from 1.")
    recall = {k: proportion_score(ranks <= k) for k in ks}
    return RetrievalScores(recall, mean_score(1 / ranks), mean_score(ranks))


def _discounts(gains: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the discount of each rank, 0 beyond the number of relevant options, and the gain of the best order."""
    n_relevant = (gains != 0).sum(axis=1, keepdims=True)
    if (n_relevant == 0).any():
        raise ValueError(f"round {int((n_relevant == 0).argmax())} has no relevant option; leave it out.")
    places = np.arange(gains.shape[1])
    discounts = np.where(places < n_relevant, 1 / np.log2(places + 2), 0.0)  # (n, options)
    return discounts, (-np.sort(-gains, axis=1) * discounts).sum(axis=1)
