"""ROUGE-L and METEOR: worked cases, the toolkit's scores of real captions, Java that is missing or broken."""

from __future__ import annotations

import json
import shutil
from functools import cache
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared_data import shared_path

from mmi_eval.metrics.bleu import bleu, bleu_scores
from mmi_eval.metrics.caption_tokens import CaptionCorpus, tokenize_corpus
from mmi_eval.metrics.meteor import STATISTICS, meteor, meteor_of, meteor_score, meteor_statistics
from mmi_eval.metrics.rouge import common_subsequence, rouge_l, rouge_l_score
from mmi_eval.metrics.toolkit_jars import CaptionToolError

needs_java = pytest.mark.skipif(
    shutil.which("java") is None or find_spec("pycocoevalcap") is None, reason="Java or pycocoevalcap is missing"
)
COCO_SETS = {
    "flickr30k_clipre": ("flickr30k_clipre_results.json", "flickr30k_test1k_refs.json"),
    "flickr30k_contrastive": ("flickr30k_contrastive_results.json", "flickr30k_test1k_refs.json"),
    "coco_subset500": ("coco_subset500_results.json", "coco_subset500_refs.json"),
}


def corpus_of(predictions: list[str], references: list[list[str]]) -> CaptionCorpus:
    cut = tuple(tuple(tuple(reference.split()) for reference in of_image) for of_image in references)
    return CaptionCorpus("split", tuple(range(len(cut))), tuple(tuple(p.split()) for p in predictions), cut)


def read(name: str):
    return json.loads((shared_path("evaldata") / name).read_text())


@cache
def real_corpora() -> dict[str, CaptionCorpus]:
    """The real sets; the Java-free tokens equal the toolkit's on them (``test_metrics_captions``)."""
    found = {}
    for name, (results, captions) in COCO_SETS.items():
        references: dict[int, list[str]] = {}
        for row in read(f"captions/{captions}")["annotations"]:
            references.setdefault(row["image_id"], []).append(row["caption"])
        predictions: dict[int, str] = {row["image_id"]: row["caption"] for row in read(f"captions/{results}")}
        found[name] = tokenize_corpus(predictions, references, protocol="java-free")
    references = read("captions/clipscore_example/refs.json")
    for kind in ("good", "bad"):
        predictions = read(f"captions/clipscore_example/{kind}_captions.json")
        found[f"clipscore_example_{kind}"] = tokenize_corpus(predictions, references, protocol="java-free")
    return found


def joined(corpora: list[CaptionCorpus]) -> CaptionCorpus:
    """One corpus of all, so that Java starts once."""
    predictions = tuple(p for corpus in corpora for p in corpus.predictions)
    references = tuple(r for corpus in corpora for r in corpus.references)
    return CaptionCorpus("joined", tuple(range(len(predictions))), predictions, references)


def plain_common_subsequence(first, second) -> int:
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
    return int(table[-1, -1])


words = st.lists(st.sampled_from("abcd"), max_size=12)


@given(words, words)
def test_the_common_subsequence_is_that_of_the_textbook_table(first, second):
    assert common_subsequence(tuple(first), tuple(second)) == plain_common_subsequence(first, second)


def test_rouge_of_a_worked_case():
    # "the cat sat" in "the cat lay there": 2 of 3 said, 2 of 4 wanted.
    corpus = corpus_of(["the cat sat"], [["the cat lay there"]])
    assert rouge_l(corpus)[0] == pytest.approx((1 + 1.44) * (2 / 3) * (1 / 2) / (1 / 2 + 1.44 * 2 / 3))


def test_rouge_takes_precision_and_recall_from_different_references():
    # Precision 2/2 from the long reference, recall 1/1 from the short one.
    assert rouge_l(corpus_of(["a b"], [["a c b d", "a"]]))[0] == pytest.approx(1.0)


def test_rouge_of_nothing_is_nothing():
    assert rouge_l(corpus_of(["", "a", ""], [["a b"], [""], ["", "a"]])).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("name", [*COCO_SETS, "clipscore_example_good", "clipscore_example_bad"])
def test_real_captions_get_the_toolkits_rouge(name):
    score = rouge_l_score(real_corpora()[name])
    assert score.value == pytest.approx(read("expected.json")["captions"][name]["scores"]["ROUGE_L"], abs=1e-12)
    assert score.low < score.value < score.high


def test_all_bleu_scores_are_those_of_the_single_ones():
    corpus = corpus_of(["a b c", "d e"], [["a b d"], ["d e f"]])
    assert [score.value for score in bleu_scores(corpus)] == pytest.approx(bleu(corpus))


def test_meteor_of_worked_statistics():
    # "dogs" of "dogs run": precision 1, recall 1/2, one fragment of one match. Then both texts the same, and nothing.
    statistics = np.zeros((4, STATISTICS))
    statistics[0, [0, 1, 4, 5, 20, 21, 22]] = 1, 2, 1, 1, 1, 1, 1
    statistics[1, [0, 1, 4, 5, 20, 21, 22]] = 2, 2, 2, 2, 1, 2, 2
    statistics[2, [0, 1]] = 3, 3
    mean = 0.5 / (0.85 + 0.15 * 0.5)
    assert meteor_of(statistics).tolist() == pytest.approx([mean * 0.4, 1.0, 0.0, 0.0])
    # Stems count 0.6; function words a quarter, content words three: P = R = (0.75 * 0.6 + 0.25) / (0.75 + 0.25).
    statistics[0, :] = 0
    statistics[0, [0, 1, 2, 3, 6, 7, 8, 9, 20, 21, 22]] = 2, 2, 1, 1, 1, 1, 1, 1, 2, 2, 2
    assert meteor_of(statistics[0]) == pytest.approx(0.7 * 0.4)


@needs_java
def test_real_captions_get_the_jars_meteor_in_any_locale(monkeypatch):
    # Java takes options from here too; ours must win. A Turkish "I" becomes another letter when it is lowered.
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=tr -Duser.country=TR -Dfile.encoding=ISO-8859-1")
    corpora = real_corpora()
    strange = corpus_of(
        ["dogs", "dogs", "", "x ||| y", "swim in the city"],
        [["dogs run", "x"], ["||| dogs"], ["dogs"], ["x y"], ["SWIMMING IN THE CITY"]],
    )
    rows = np.split(
        meteor_statistics(joined([*corpora.values(), strange])),
        np.cumsum([len(corpus.predictions) for corpus in corpora.values()]),
    )
    for name, statistics in zip(corpora, rows, strict=False):
        expected = read("expected.json")["captions"][name]["scores"]["METEOR"]
        assert meteor_of(statistics.sum(0)) == pytest.approx(expected, abs=1e-12)
    # The last one: "city" and two function words as they are, "swim" by its stem, of 2 and 2.
    last = (0.75 * 1 + 0.25 * 2 + 0.6 * 0.75) / (0.75 * 2 + 0.25 * 2)
    assert meteor_of(rows[-1]).tolist() == pytest.approx([0.4 * 0.5 / 0.925, 1, 0, 1, last])


def test_without_java_or_the_package_meteor_is_one_sentence(monkeypatch):
    corpus = corpus_of(["a"], [["a"]])
    monkeypatch.setattr("mmi_eval.metrics.toolkit_jars.shutil.which", lambda name: "java")
    monkeypatch.setattr("mmi_eval.metrics.toolkit_jars.find_spec", lambda name: None)
    with pytest.raises(
        CaptionToolError, match=r'METEOR needs the package pycocoevalcap; pip install "mmi\[eval\]", or'
    ):
        meteor(corpus)
    monkeypatch.setattr("mmi_eval.metrics.toolkit_jars.shutil.which", lambda name: None)
    sentence = r"^METEOR needs Java; install it, or leave it out \(meteor: false, or --without-meteor\)\.$"
    with pytest.raises(CaptionToolError, match=sentence):
        meteor_score(corpus)


@pytest.mark.skipif(find_spec("pycocoevalcap") is None, reason="pycocoevalcap is missing")
@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("cat > /dev/null; echo 'Could not reserve memory' >&2; exit 1", "failed: Could not reserve memory; mend Java"),
        ("exit 1", "failed: it said nothing; mend Java"),
        ("cat > /dev/null; echo 1.0 2.0", "METEOR got 2 lines for 3|expected 23 numbers"),
        (
            "while read line; do echo 'no paraphrases'; done",
            'answered "no paraphrases" to "SCORE .* expected 23 numbers',
        ),
    ],
    ids=["fails", "fails silently", "short", "strange"],
)
def test_a_java_that_fails_is_one_sentence(monkeypatch, tmp_path, script, sentence):
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    monkeypatch.setattr("mmi_eval.metrics.toolkit_jars.shutil.which", lambda name: str(java))
    with pytest.raises(CaptionToolError, match=sentence) as error:
        meteor(corpus_of(["a", "b", "c"], [["a"], ["b"], ["c"]]))
    assert "\n" not in str(error.value)
