"""Visual dialog: prompts as the paper has them, ranks of a hundred options, and the scores of real submissions."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from shared_data import shared_path
from toy_benchmarks import CHECKPOINT
from toy_dialogs import RELEVANCE, N, ScoringModel, dialog, relevance, round_of, task, write_dialogs

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.visdial import DenseAnnotation, read_ranks, write_dense_annotations, write_visdial
from mmi_eval.metrics.visdial import chance_ndcg, ndcg
from mmi_eval.runner import Runner
from mmi_eval.sample import Picture
from mmi_eval.tasks.visdial import VisDial, read_results, score_results

# Two options are relevant, so two ranks count: the best order gains 1 + 0.5 / log2(3).
BEST_GAIN = 1 + 0.5 / math.log2(3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_dialogs(tmp_path_factory.mktemp("toy") / "data")


def answers_by(asked, rule):
    model: Any = ScoringModel(asked.samples(), rule)
    return asked.answer(model, asked.samples())


def scored_by(files, rule, **settings):
    asked = replace(task(files), **settings)
    return asked.score(asked.samples(), answers_by(asked, rule))


def values(scored):
    return {name: score.value for name, score in scored.values.items()}


def test_an_oracle_gets_the_best_score(files):
    found = values(scored_by(files, relevance))
    best = {"NDCG": 1.0, "MRR": 1.0, "R@1": 1.0, "R@5": 1.0, "R@10": 1.0, "mean rank": 1.0}
    assert found == best | {"round/2": 1.0, "round/3": 1.0}


def test_a_model_that_ranks_the_relevant_ones_last_gets_the_floor(files):
    found = values(scored_by(files, lambda sample: [-v for v in relevance(sample)]))
    assert (found["NDCG"], found["R@1"], found["mean rank"], found["MRR"]) == (0.0, 0.0, 4.0, 0.25)


def test_rounds_without_an_answer_get_the_floor_and_are_counted(files):
    asked = task(files)
    scored = asked.score(asked.samples(), [None] * N)
    floor = {"NDCG": 0.0, "MRR": 0.0, "R@1": 0.0, "R@5": 0.0, "R@10": 0.0, "mean rank": 4.0}
    assert floor.items() <= values(scored).items()
    assert scored.counts["unranked rounds"] == N


def test_equal_scores_keep_the_order_of_the_file_and_are_counted(files):
    # File order: no gain at rank 1, 1 / log2(3) at rank 2; the answer that was given has rank 2.
    scored = scored_by(files, lambda sample: [-1.0] * 4)
    expected = {"NDCG": 1 / math.log2(3) / BEST_GAIN, "MRR": 0.5, "R@1": 0.0, "R@5": 1.0, "mean rank": 2.0}
    assert {name: values(scored)[name] for name in expected} == pytest.approx(expected)
    assert scored.counts["rounds with equal scores"] == N


def test_worked_case_by_round(files):
    # Even dialogs (round 2) are ranked perfectly; in odd ones (round 3) the synonym comes before the answer given.
    def rule(sample):
        return relevance(sample) if sample.meta["round_id"] == 2 else [-9.0, -2.0, -1.0, -9.5]

    expected = (0.5 + 1 / math.log2(3)) / BEST_GAIN
    found = values(scored_by(files, rule))
    assert found["round/2"] == 1.0
    assert found["round/3"] == pytest.approx(expected)
    assert found["NDCG"] == pytest.approx((1 + expected) / 2)
    assert (found["MRR"], found["R@1"], found["mean rank"]) == (0.75, 0.5, 1.5)


def test_the_prompt_is_that_of_the_paper_with_every_round_before_the_question(files):
    odd = task(files).samples()[1]
    assert odd.prompt == (
        Picture(files / "images" / "1.png"),
        " caption: a thing in the cave. question: is there a thing? answer: yes. question: what colour is it? answer: "
        "red. question: where is it? answer:",
    )
    assert (odd.id, odd.request, odd.references) == ("1/3", "scores", ("cave",))


def test_the_official_history_lacks_the_round_just_before_the_question(files):
    official = replace(task(files), history="official")
    even, odd = official.samples()[:2]
    assert even.prompt[1] == " caption: a thing in the snow. question: what colour is it? answer:"
    assert str(odd.prompt[1]).endswith("cave. question: is there a thing? answer: yes. question: where is it? answer:")
    assert official.protocol.endswith("history official") != task(files).protocol.endswith("history official")


def test_history_of_the_first_question_is_empty(files, tmp_path):
    write_dense_annotations(tmp_path / "dense.json", [DenseAnnotation(0, 1, RELEVANCE)])
    for history in ("full", "official"):
        (sample,) = replace(task(files), dense=tmp_path / "dense.json", history=history).samples()
        assert sample.prompt[1] == " caption: a thing in the snow. question: is there a thing? answer:"


def test_a_round_of_the_history_without_answer_is_one_sentence(files, tmp_path):
    first, second, third = dialog(1).rounds
    broken = replace(dialog(1), rounds=(first, replace(second, answer=None, true_option=None), third))
    write_visdial(tmp_path / "dialogs.json", [broken], "val")
    write_dense_annotations(tmp_path / "dense.json", [DenseAnnotation(1, 3, RELEVANCE)])
    with pytest.raises(FormatError, match="round 2 of image_id 1 has no answer, but round 3 is asked after it"):
        replace(task(files), dialogs=tmp_path / "dialogs.json", dense=tmp_path / "dense.json").samples()


def test_a_number_that_is_not_finite_is_an_error_of_its_sample(files):
    with pytest.raises(ValueError, match="no finite log-probability for each of 4 options"):
        scored_by(files, lambda sample: [0.0, -1.0, math.nan, -2.0])


def test_an_answer_for_other_options_is_refused(files):
    asked = task(files)
    samples = asked.samples()
    with pytest.raises(FormatError, match=r"round 0/2 .* one number for each of its 4 options"):
        asked.score(samples[:1], [{"0": 1.0, "1": 0.5}])


def test_rounds_without_a_relevant_option_have_no_ndcg_and_are_counted(files, tmp_path):
    rows = [DenseAnnotation(i, round_of(i), RELEVANCE if i else (0.0,) * 4) for i in range(N)]
    write_dense_annotations(tmp_path / "dense.json", rows)
    scored = scored_by(files, lambda sample: [0.0, -1.0, -2.0, -3.0], dense=tmp_path / "dense.json")
    assert (scored.values["NDCG"].n, scored.values["MRR"].n) == (N - 1, N)
    assert scored.counts["rounds without a relevant option"] == 1


def test_chance_is_the_mean_over_all_orders(files):
    orders = list(itertools.permutations(range(1, 5)))
    mean = float(ndcg(orders, [RELEVANCE] * len(orders)).mean())
    assert float(chance_ndcg([RELEVANCE])[0]) == pytest.approx(mean)
    found = values(task(files).baselines(task(files).samples())["chance"])
    ranks = [order[1] for order in orders]
    expected = {"NDCG": mean, "MRR": np.mean(1 / np.array(ranks)), "R@1": 0.25, "R@5": 1.0, "mean rank": np.mean(ranks)}
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_frequent_answers_are_those_of_the_training_dialogs(files):
    # Answers given in training are the first of the relevant ones: every option list holds exactly one of them.
    asked = replace(task(files), train_dialogs=files / "dialogs.json")
    found = asked.baselines(asked.samples())["frequent_answers"]
    assert found.values["R@1"].value == 1.0
    assert found.values["NDCG"].value == pytest.approx(1 / BEST_GAIN)
    assert found.notes["counted on"] == "training dialogs"
    assert "frequent_answers" not in task(files).baselines(task(files).samples())


def test_a_submission_is_read_back_with_the_same_scores(files, tmp_path):
    asked = task(files)
    samples = asked.samples()
    answers = answers_by(asked, lambda sample: [-3.0, -2.0, -1.0, -4.0])
    asked.write_submission(tmp_path / "ranks.json", samples, answers)
    assert [row.ranks for row in read_ranks(tmp_path / "ranks.json")] == [(3, 2, 1, 4)] * N
    read = read_results(tmp_path / "ranks.json")
    again = asked.score(samples, [read[sample.id] for sample in samples])
    assert again.per_sample == asked.score(samples, answers).per_sample


def test_a_runner_keeps_the_scores_of_options_and_scores_them_again(files, tmp_path):
    asked = task(files)
    model: Any = ScoringModel(asked.samples(), lambda sample: [-3.0, -2.0, -1.25, -4.0])
    evaluation = Runner(tmp_path).evaluate(asked, model, CHECKPOINT)
    assert evaluation.predictions.read()["1/3"].output == {"0": -3.0, "1": -2.0, "2": -1.25, "3": -4.0}
    found = {name: value["value"] for name, value in evaluation.score["values"].items()}
    assert found == values(asked.score(asked.samples(), answers_by(asked, model.rule)))
    assert evaluation.score["units"]["mean rank"] == "raw"
    assert evaluation.score["lower_is_better"] == ["mean rank"]


def test_a_submission_needs_every_round(files, tmp_path):
    few = replace(task(files), n=4)
    samples = few.samples()
    with pytest.raises(FormatError, match=r"3 of 6 rounds of .*dialogs.json are not ranked, such as 0/2"):
        few.write_submission(tmp_path / "ranks.json", samples, [None, *[{str(i): 0.0 for i in range(4)}] * 3])
    assert not (tmp_path / "ranks.json").exists()


def test_a_split_whose_annotations_are_on_a_server_is_ranked_but_not_scored(files, tmp_path):
    # A test dialog ends with a question that has options and no answer.
    hidden = [
        replace(d, rounds=(*d.rounds[:-1], replace(d.rounds[-1], answer=None, true_option=None)))
        for d in map(dialog, range(N))
    ]
    write_visdial(tmp_path / "dialogs.json", hidden, "test")
    asked = replace(task(files), dialogs=tmp_path / "dialogs.json", dense=None, split="test-std")
    samples = asked.samples()
    assert [sample.id for sample in samples] == [f"{i}/3" for i in range(N)]
    assert not any(sample.references for sample in samples)
    answers = answers_by(asked, lambda sample: [-3.0, -2.0, -1.0, -4.0])
    asked.write_submission(tmp_path / "ranks.json", samples, answers)
    assert {(row.round_id, row.ranks) for row in read_ranks(tmp_path / "ranks.json")} == {(3, (3, 2, 1, 4))}
    with pytest.raises(FormatError, match="visdial test-std has no dense annotations"):
        asked.score(samples, answers)


def test_dialogs_without_options_are_one_sentence(files, tmp_path):
    bare = replace(dialog(0), rounds=(replace(dialog(0).rounds[0], options=(), true_option=None),))
    write_visdial(tmp_path / "dialogs.json", [bare], "val")
    with pytest.raises(FormatError, match=r"image_id 0 of .* has no options in round 1"):
        replace(task(files), dialogs=tmp_path / "dialogs.json", dense=None).samples()


def test_results_of_other_rounds_are_refused_and_missing_ones_counted(files, tmp_path):
    rows = [{"image_id": 1, "round_id": 3, "ranks": [2, 1, 3, 4]}]
    (tmp_path / "ranks.json").write_text(json.dumps(rows))
    scored = score_results(tmp_path / "ranks.json", files / "dialogs.json", files / "dense.json")
    assert (scored.values["NDCG"].n, scored.counts["not in the file"]) == (1, N - 1)
    rows.append({"image_id": 1, "round_id": 11, "ranks": [2, 1, 3, 4]})
    (tmp_path / "ranks.json").write_text(json.dumps(rows))
    with pytest.raises(FormatError, match=r"ranks round 1/11 .* does not hold"):
        score_results(tmp_path / "ranks.json", files / "dialogs.json", files / "dense.json")


@pytest.mark.parametrize("name", ["random", "noisy_relevance", "option_popularity", "file_order"])
def test_real_submissions_get_the_scores_of_the_challenge(name):
    folder = shared_path("evaldata/visdial")
    expected = json.loads(shared_path("evaldata/expected.json").read_text())["visdial"][f"visdialconv_{name}"]
    dialogs, dense = (folder / f"visdialconv_{what}.json" for what in ("dialogs", "dense_annotations"))
    found = values(score_results(folder / f"visdialconv_{name}_ranks.json", dialogs, dense))
    names = {"ndcg": "NDCG", "mrr": "MRR", "mean": "mean rank", **{f"r@{k}": f"R@{k}" for k in (1, 5, 10)}}
    # The challenge sums in float32.
    for key, ours in names.items():
        assert found[ours] == pytest.approx(expected[key], rel=1e-6), key


def test_real_dialogs_make_prompts_of_a_hundred_options():
    folder = shared_path("evaldata/visdial")
    dialogs, dense = (folder / f"visdialconv_{what}.json" for what in ("dialogs", "dense_annotations"))
    samples = VisDial(dialogs, dense, folder).samples()
    assert len(samples) == 40
    assert {len(sample.meta["options"]) for sample in samples} == {100}
    for sample in samples:
        text = str(sample.prompt[-1])
        assert text.count("question: ") == sample.meta["round_id"]
        assert text.endswith("? answer:")
        assert sample.pictures[0].path.name.startswith("VisualDialog_val2018_000000")
