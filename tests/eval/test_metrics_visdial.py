"""VisDial: gain, recall and ranks by hand, and the starter kit's values on real dialogs."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared_data import shared_path

from mmi_eval.metrics.visdial import ndcg, ndcg_score, ranks_of_scores, retrieval_scores

relevances = st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0]), min_size=2, max_size=12).filter(any)


def test_gain_by_hand():
    # Two relevant options, so two ranks count: rank 1 is irrelevant, rank 2 has relevance 0.5.
    relevance = [[0.5, 0.0, 1.0, 0.0]]
    gained, best = 0.5 / math.log2(3), 1.0 + 0.5 / math.log2(3)
    assert ndcg([[2, 1, 3, 4]], relevance)[0] == pytest.approx(gained / best)


@given(relevances)
def test_the_best_order_gains_one_and_no_order_gains_more(relevance):
    assert ndcg(ranks_of_scores([relevance]), [relevance])[0] == pytest.approx(1.0)
    order = np.arange(1, len(relevance) + 1)[None]
    assert 0.0 <= ndcg(order, [relevance])[0] <= 1.0 + 1e-12


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12))
def test_ranks_are_a_permutation_that_follows_the_scores(scores):
    ranks = ranks_of_scores([scores])[0]
    assert sorted(ranks) == list(range(1, len(scores) + 1))
    assert [scores[i] for i in np.argsort(ranks)] == sorted(scores, reverse=True)


def test_equal_scores_keep_the_order_of_the_options():
    assert ranks_of_scores([[1.0, 2.0, 1.0, 2.0]]).tolist() == [[3, 1, 4, 2]]


def test_recall_and_ranks_by_hand():
    scores = retrieval_scores([1, 2, 6, 20])
    assert {k: score.value for k, score in scores.recall.items()} == {1: 0.25, 5: 0.5, 10: 0.75}
    assert scores.mean_rank.value == pytest.approx(29 / 4)
    assert scores.mean_reciprocal_rank.value == pytest.approx((1 + 1 / 2 + 1 / 6 + 1 / 20) / 4)


@pytest.mark.parametrize("name", ["random", "noisy_relevance", "option_popularity", "file_order"])
def test_real_ranks_score_what_the_starter_kit_gives(name):
    folder = shared_path("evaldata")
    read = lambda file: json.loads((folder / file).read_text())  # noqa: E731
    expected = read("expected.json")["visdial"][f"visdialconv_{name}"]
    dense = {(row["image_id"], row["round_id"]): row for row in read("visdial/visdialconv_dense_annotations.json")}
    dialogs = {row["image_id"]: row["dialog"] for row in read("visdial/visdialconv_dialogs.json")["data"]["dialogs"]}
    rows = read(f"visdial/visdialconv_{name}_ranks.json")
    ranks = np.array([row["ranks"] for row in rows])
    relevance = [dense[row["image_id"], row["round_id"]]["gt_relevance"] for row in rows]
    truths = [dialogs[row["image_id"]][row["round_id"] - 1]["gt_index"] for row in rows]
    scores = retrieval_scores(ranks[np.arange(len(rows)), truths])
    # The starter kit accumulates in float32.
    assert ndcg_score(ranks, relevance).value == pytest.approx(expected["ndcg"], abs=1e-6)
    assert [scores.recall[k].value for k in (1, 5, 10)] == pytest.approx(
        [expected["r@1"], expected["r@5"], expected["r@10"]], abs=1e-6
    )
    assert scores.mean_rank.value == pytest.approx(expected["mean"], abs=1e-5)
    assert scores.mean_reciprocal_rank.value == pytest.approx(expected["mrr"], abs=1e-6)


BAD = {
    "no permutation": (lambda: ndcg([[1, 1]], [[1.0, 0.0]]), "ranks of round 0 are not 1..2"),
    "other shape": (lambda: ndcg([[1, 2]], [[1.0]]), "shape"),
    "nothing relevant": (lambda: ndcg([[1, 2], [1, 2]], [[1.0, 0.0], [0.0, 0.0]]), "round 1 has no relevant"),
    "not a number": (lambda: ranks_of_scores([[1.0], [math.nan]]), "scores of round 1 hold NaN"),
    "rank 0": (lambda: retrieval_scores([1, 0]), "rank 0 of round 1"),
}


@pytest.mark.parametrize(("call", "said"), BAD.values(), ids=BAD.keys())
def test_wrong_input_is_one_sentence(call, said):
    with pytest.raises(ValueError, match=said):
        call()
