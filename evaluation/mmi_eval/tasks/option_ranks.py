"""What ranks of answer options are worth: every value of a visual dialog, by round and by tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmi_eval.metrics.visdial import chance_ndcg, ndcg
from mmi_eval.sample import Sample

from .protocol import PerSample, Scored, averaged, broken_down

RECALLS = (1, 5, 10)
"""The k of recall at k."""


def score_ranks(samples: Sequence[Sample], ranks: Sequence[Sequence[int] | None]) -> Scored:
    """Score ranks of options; a round without ranks gets the floor of each value.

    Args:
        samples: ``meta`` holds ``relevance``, ``true option`` (``None`` where it is not public), ``round_id`` and
            ``tags``.
        ranks: 1 for the best option, in order of the options; ``None`` where there are none.
    """
    rows: list[dict[str, float]] = []
    for sample, order in zip(samples, ranks, strict=True):
        relevance, true = sample.meta["relevance"], sample.meta["true option"]
        row: dict[str, float] = {}
        if any(relevance):
            row["NDCG"] = 0.0 if order is None else float(ndcg([order], [relevance])[0])
        if true is not None:
            rank = len(relevance) if order is None else order[true]
            row["MRR"] = 0.0 if order is None else 1 / rank
            row |= {f"R@{k}": float(order is not None and rank <= k) for k in RECALLS}
            row["mean rank"] = float(rank)
        rows.append(row)
    return _averaged(samples, rows)


def score_chance(samples: Sequence[Sample]) -> Scored:
    """Return what options in random order get in the mean, computed exactly.

    Args:
        samples: As for ``score_ranks``.

    Example:
        One of four options is relevant, so only the first rank counts:

        >>> meta = {"relevance": [0.0, 1.0, 0.0, 0.0], "true option": 1, "round_id": 3}
        >>> values = score_chance([Sample("1/3", ("?",), meta=meta)]).values
        >>> values["NDCG"].value, values["R@1"].value, values["mean rank"].value
        (0.25, 0.25, 2.5)
    """
    rows: list[dict[str, float]] = []
    for sample in samples:
        relevance, row = sample.meta["relevance"], {}
        n = len(relevance)
        if any(relevance):
            row["NDCG"] = float(chance_ndcg([relevance])[0])
        if sample.meta["true option"] is not None:
            row["MRR"] = float((1 / np.arange(1, n + 1)).mean())
            row |= {f"R@{k}": min(k, n) / n for k in RECALLS}
            row["mean rank"] = (n + 1) / 2
        rows.append(row)
    return _averaged(samples, rows)


def _averaged(samples: Sequence[Sample], rows: Sequence[Mapping[str, float]]) -> Scored:
    overall: PerSample = {name: {} for name in ("NDCG", "MRR", *(f"R@{k}" for k in RECALLS), "mean rank")}
    for sample, row in zip(samples, rows, strict=True):
        for name, value in row.items():
            overall[name][sample.id] = value
    rounds = {s.id: [str(s.meta["round_id"])] for s in samples}
    tags = {s.id: s.meta.get("tags", ()) for s in samples}
    per_sample = overall | broken_down(overall["NDCG"], rounds, "round") | broken_down(overall["NDCG"], tags, "tag")
    per_sample = {name: column for name, column in per_sample.items() if column}
    return Scored(averaged(per_sample, samples), per_sample)
