"""CIDEr and BLEU: worked cases, the toolkit's scores of real captions, and a tokenizer that needs no Java."""

from __future__ import annotations

import json
import math
import random
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_path

from mmi_eval.metrics.bleu import bleu, bleu_score
from mmi_eval.metrics.caption_tokens import (
    CaptionCorpus,
    first_sentence,
    tokenize_corpora,
    tokenize_corpus,
    tokenize_ptb,
)
from mmi_eval.metrics.cider import cider, cider_score, human_cider_score, leave_one_out_cider
from mmi_eval.metrics.java_free_tokens import tokenize_java_free
from mmi_eval.metrics.rouge import rouge_l
from mmi_eval.metrics.toolkit_jars import CaptionToolError

needs_java = pytest.mark.skipif(
    shutil.which("java") is None or find_spec("pycocoevalcap") is None, reason="Java or pycocoevalcap is missing"
)
PROTOCOLS = [pytest.param("ptb", marks=needs_java), "java-free"]
SETS = {
    "flickr30k_clipre": ("flickr30k_clipre_results.json", "flickr30k_test1k_refs.json"),
    "flickr30k_contrastive": ("flickr30k_contrastive_results.json", "flickr30k_test1k_refs.json"),
    "coco_subset500": ("coco_subset500_results.json", "coco_subset500_refs.json"),
}


def corpus_of(predictions: list[str], references: list[list[str]]) -> CaptionCorpus:
    cut = tuple(tuple(tuple(reference.split()) for reference in of_image) for of_image in references)
    return CaptionCorpus("split", tuple(range(len(cut))), tuple(tuple(p.split()) for p in predictions), cut)


def read(name: str):
    return json.loads((shared_path("evaldata") / name).read_text())


def predictions_and_references(name: str):
    results, annotations = SETS[name]
    references: dict[int, list[str]] = {}
    for row in read(f"captions/{annotations}")["annotations"]:
        references.setdefault(row["image_id"], []).append(row["caption"])
    return {row["image_id"]: row["caption"] for row in read(f"captions/{results}")}, references


def test_a_copy_of_the_only_reference_scores_ten_where_it_has_four_tokens():
    corpus = corpus_of(["a b c d", "x"], [["a b c d"], ["e f g h"]])
    assert cider(corpus).tolist() == [pytest.approx(10.0), 0.0]


def test_cider_of_a_worked_case():
    # Unigrams only: "a" is in both images (weight 0), "b" and "c" in one (weight log 2). The cosine over unigrams of
    # "a b" with "a b c" is log2^2 / (log2 * sqrt(2) log2) = 1 / sqrt 2; bigram "a b": 1 of 2, the same; lengths differ
    # by one bigram.
    corpus = corpus_of(["a b", "a"], [["a b c"], ["a"]])
    assert cider(corpus)[0] == pytest.approx(10 / 4 * 2 / math.sqrt(2) * math.exp(-1 / 72))


def test_repeating_a_word_does_not_pay():
    once, often = (cider(corpus_of([text, "x"], [["a b c"], ["d e f"]]))[0] for text in ("a b", "a a a b"))
    assert often < once


def test_one_image_alone_scores_nothing():
    assert cider(corpus_of(["a b c d"], [["a b c d"]])).tolist() == [0.0]


def test_an_empty_prediction_scores_nothing():
    corpus = corpus_of(["", "d"], [["a b"], ["d e"]])
    assert cider(corpus)[0] == 0.0
    assert bleu(corpus_of([""], [["a b"]])) == pytest.approx((0.0,) * 4, abs=1e-3)


def test_leave_one_out_is_the_scorer_run_with_each_reference_as_the_prediction():
    references = [["a b c", "a b d", "a e"], ["f g h", "f g i", "f j"]]
    runs = []
    for k in range(3):
        others = [of_image[:k] + of_image[k + 1 :] for of_image in references]
        runs.append(cider(corpus_of([of_image[k] for of_image in references], others)))
    assert leave_one_out_cider(corpus_of(["", ""], references)).tolist() == pytest.approx(sum(runs) / 3)


def test_people_who_say_the_same_score_ten():
    corpus = corpus_of(["", ""], [["a b c d"] * 3, ["e f g h"] * 2])
    assert human_cider_score(corpus).value == pytest.approx(10.0)


def test_leave_one_out_needs_two_references():
    with pytest.raises(ValueError, match="1 images have one reference only, such as 0"):
        leave_one_out_cider(corpus_of(["a", "b"], [["a"], ["b", "c"]]))


def test_bleu_of_a_worked_case():
    # "the cat the cat" against "the cat sat down": clipped unigrams 2 of 4, bigrams 1 of 3, equal length.
    values = bleu(corpus_of(["the cat the cat"], [["the cat sat down"]]))
    assert values[0] == pytest.approx(0.5)
    assert values[1] == pytest.approx(math.sqrt(0.5 / 3))


def test_bleu_takes_the_closest_reference_and_punishes_a_shorter_text():
    values = bleu(corpus_of(["a b"], [["a b c", "a b c d e"]]))
    assert values[0] == pytest.approx(math.exp(1 - 3 / 2))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", SETS)
def test_real_captions_score_what_the_toolkit_gives(name, protocol):
    predictions, references = predictions_and_references(name)
    expected = read("expected.json")["captions"][name]
    corpus = tokenize_corpus(predictions, references, protocol=protocol)
    per_image = dict(zip(corpus.image_ids, cider(corpus).tolist(), strict=True))
    assert cider_score(corpus).value == pytest.approx(expected["scores"]["CIDEr"], abs=1e-12)
    assert bleu(corpus) == pytest.approx([expected["scores"][f"Bleu_{n}"] for n in range(1, 5)], abs=1e-12)
    for image, value in expected["first5"].items():
        assert per_image[int(image)] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_published_examples_of_clipscore(protocol):
    references = read("captions/clipscore_example/refs.json")
    sets = {name: read(f"captions/clipscore_example/{name}_captions.json") for name in ("good", "bad")}
    for name, corpus in tokenize_corpora(sets, references, protocol=protocol).items():
        expected = read("expected.json")["captions"][f"clipscore_example_{name}"]
        assert cider(corpus).mean() == pytest.approx(expected["scores"]["CIDEr"], abs=1e-12)
        assert bleu(corpus) == pytest.approx([expected["scores"][f"Bleu_{n}"] for n in range(1, 5)], abs=1e-12)
        for image, value in zip(corpus.image_ids, cider(corpus), strict=True):
            assert value == pytest.approx(expected["per"][image], abs=1e-12)


HARD = """a the dog's cat. U.S. two-way 3.5 $5 can't man, (red) "quoted" -- ... n't gonna café
é😀 &amp; <b> #tag @x 5 1/2 :) ½ Mr. e.g. a/b [x] {y} \N{RIGHT SINGLE QUOTATION MARK}s"""


@needs_java
def test_hard_captions_score_what_the_toolkit_computes():
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    draws, words = random.Random(0), HARD.split()
    said = {i: " ".join(draws.choices(words, k=draws.randint(0, 12))) for i in range(60)}
    said |= {0: "", 1: ".", 2: "  ", 3: "a 5 1/2 foot dog"}
    right = {i: [" ".join(draws.choices(words, k=draws.randint(1, 12))) for _ in range(1 + i % 5)] for i in said}
    right |= {2: [".", ""], 3: ["the dog is 5 1/2 feet", "5 dogs"]}
    tokens = PTBTokenizer()
    theirs = (
        tokens.tokenize({i: [{"caption": text} for text in texts] for i, texts in right.items()}),
        tokens.tokenize({i: [{"caption": text}] for i, text in said.items()}),
    )
    corpus = tokenize_corpus(said, right, protocol="ptb")
    assert cider(corpus) == pytest.approx(Cider().compute_score(*theirs)[1], abs=1e-12)
    assert rouge_l(corpus) == pytest.approx(Rouge().compute_score(*theirs)[1], abs=1e-12)
    assert bleu(corpus) == pytest.approx(Bleu(4).compute_score(*theirs, verbose=0)[0], abs=1e-12)


def test_the_published_example_without_a_tokenizer():
    folder: Path = shared_path("evaldata/captions/nlgeval_example")
    said, first, second = ((folder / f"{name}.txt").read_text().splitlines() for name in ("hyp", "ref1", "ref2"))
    corpus = corpus_of(said, [list(pair) for pair in zip(first, second, strict=True)])
    expected = read("expected.json")["captions"]["nlgeval_example"]["scores"]
    assert cider(corpus).mean() == pytest.approx(expected["CIDEr"], abs=1e-12)
    assert bleu(corpus) == pytest.approx([expected[f"Bleu_{n}"] for n in range(1, 5)], abs=1e-12)
    assert bleu_score(corpus, 2).value == pytest.approx(expected["Bleu_2"], abs=1e-12)


@needs_java
def test_the_java_free_tokenizer_cuts_the_real_captions_as_the_jar_does():
    captions = set()
    for name in SETS:
        predictions, references = predictions_and_references(name)
        captions |= {*predictions.values(), *(text for texts in references.values() for text in texts)}
    texts = sorted(captions)
    differ = [t for t, a, b in zip(texts, tokenize_ptb(texts), tokenize_java_free(texts), strict=True) if a != b]
    assert differ == []


@needs_java
def test_the_java_free_tokenizer_agrees_on_hard_cases():
    texts = [
        "A man's dog can't jump; he'd've (maybe) 'won'!",
        "'Tis 7:30pm at St. Mary's, $37,000 or 50% off, #4 & co-op's e-mail",
        "she isn't sure... 1/2 of the 90's -- or -3?",
        "the U.S. plan b. cannot gonna y'all o'clock shouldn't've",
        "What?! Really!! (yes) [no] {so} A&amp;M a&amp;b B&W \u2018quoted\u2019 \u201cwords\u201d café",
    ]
    assert tokenize_java_free(texts) == tokenize_ptb(texts)


@needs_java
def test_no_character_moves_a_caption_to_another_line():
    texts = [f"a{chr(code)}b" for code in range(0x3000)] + ["", "   ", "\ud800", "last 😀"]
    cut = tokenize_ptb(texts)
    assert len(cut) == len(texts)
    assert cut[-4:] == [(), (), (), ("last",)]


@settings(max_examples=200)
@given(st.text(max_size=40))
def test_java_free_tokens_are_lower_case_and_hold_no_space(text):
    for token in tokenize_java_free([text])[0]:
        assert token
        assert not any(letter.isspace() for letter in token)
        assert token == token.lower()


@given(st.lists(st.sampled_from(["a", "red", "ball", "lies", "left", "of", "two", "dogs"]), max_size=8))
def test_plain_words_are_kept_as_they_are(words):
    assert tokenize_java_free([" ".join(words).capitalize() + " ."]) == [tuple(words)]


def test_a_corpus_is_cut_down_to_the_images_that_are_predicted():
    references = {1: ["a b"], 2: ["c d"], 3: ["e f"]}
    corpora = tokenize_corpora({"model": {3: "e", 1: "a"}, "same": {2: "x"}}, references, protocol="java-free")
    assert corpora["model"].image_ids == (3, 1)
    assert corpora["model"].references == ((("e", "f"),), (("a", "b"),))
    assert (corpora["model"].n_without_prediction, corpora["same"].n_without_prediction) == (1, 2)
    assert cider(corpora["model"]).shape == (2,)


def test_the_first_sentence_is_what_stands_before_the_first_full_stop():
    assert first_sentence("a cat. a dog.") == "a cat"
    assert first_sentence("a cat") == "a cat"


def test_wrong_input_is_one_sentence():
    with pytest.raises(ValueError, match='1 images of "predictions" have no reference, such as 7'):
        tokenize_corpus({7: "a"}, {8: ["b"]}, protocol="java-free")
    with pytest.raises(ValueError, match='"predictions" are none'):
        tokenize_corpus({}, {8: ["b"]}, protocol="java-free")
    with pytest.raises(KeyError, match="Known: ptb, java-free"):
        tokenize_corpus({8: "a"}, {8: ["b"]}, protocol="ptb3")


def test_without_java_the_message_names_the_protocol_that_needs_none(monkeypatch):
    monkeypatch.setattr("mmi_eval.metrics.toolkit_jars.shutil.which", lambda name: None)
    with pytest.raises(CaptionToolError, match='needs Java; install it, or score with the protocol "java-free"'):
        tokenize_ptb(["a"])


def test_without_the_package_the_message_names_the_protocol_that_needs_none(monkeypatch):
    monkeypatch.setattr("mmi_eval.metrics.toolkit_jars.shutil.which", lambda name: "java")
    monkeypatch.setattr("mmi_eval.metrics.toolkit_jars.find_spec", lambda name: None)
    with pytest.raises(CaptionToolError, match=r'pip install "mmi\[eval\]", or score .* "java-free"'):
        tokenize_ptb(["a"])


@needs_java
def test_a_java_that_fails_is_one_sentence(monkeypatch, tmp_path):
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\necho 'no runtime here' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr("mmi_eval.metrics.toolkit_jars.shutil.which", lambda name: str(broken))
    with pytest.raises(CaptionToolError, match="failed: no runtime here; mend Java, or") as error:
        tokenize_ptb(["a"])
    assert "\n" not in str(error.value)
