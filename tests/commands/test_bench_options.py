"""What ``mmi bench options`` prints; how much faster the shared prefix is at demo size is a slow test."""

from __future__ import annotations

import json

import pytest
import torch
from factories import byte_tokenizer, picture, tiny_config, wake_up

from mmi.cli import main
from mmi.commands.option_timing import Question, drawn_questions, full_passes, word_tokenizer
from mmi.config import LanguageConfig
from mmi.inference import Generator
from mmi.models.build import build_network

TINY = ["bench", "options", "--config", "model/tiny.yaml", "--questions", "1"]


def test_every_way_has_a_time_a_ratio_and_the_same_ranks(capsys):
    assert main([*TINY, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [way["way"] for way in report["ways"]] == ["shared prefix", "one full pass each", "four at a time"]
    for way in report["ways"]:
        assert len(way["seconds"]) == 1
        assert way["seconds"][0] > 0
        assert way["same_ranks"] == 1
        assert way["largest_difference"] < 1e-3
    assert {"processor", "torch", "cores"} <= set(report["machine"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--questions", "0"], "--questions is 0; expected at least 1"),
        (["--run", "runs/x", "--config", "model/tiny.yaml"], "--run has its own config"),
        (["--checkpoint", "best"], "--checkpoint belongs to a run folder"),
        (["--run", "nowhere"], "nowhere"),
    ],
    ids=["no questions", "run and config", "checkpoint alone", "no such run"],
)
def test_wrong_options_are_one_sentence(capsys, words, sentence):
    assert main(["bench", "options", *words]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("n_together", [1, 4], ids=["one full pass each", "four at a time"])
def test_full_passes_give_the_same_numbers_and_ranks(n_together):
    torch.manual_seed(0)
    network = build_network(tiny_config())
    wake_up(network)
    generator = Generator(network, byte_tokenizer())
    question = Question(picture(3), "what is it? answer:", ("yes", "yes it is", "no", "a dog", "a cat", "yes it was"))
    shared = generator.score_continuations([question.picture, question.text], question.options)
    plain = full_passes(generator, question, n_together)
    assert plain == pytest.approx(shared, abs=1e-4)
    assert sorted(range(6), key=plain.__getitem__) == sorted(range(6), key=shared.__getitem__)


def test_drawn_questions_are_the_last_of_dialogs_of_ten_rounds():
    first, second = drawn_questions(2)
    assert first.text.count("question: ") == second.text.count("question: ") == 10
    assert len(set(first.options)) == 100
    assert (first.text, first.picture.tobytes()) != (second.text, second.picture.tobytes())


def test_a_small_vocabulary_runs_out_of_words_aloud():
    tokenizer = word_tokenizer(LanguageConfig(vocab_size=5, bos_token_id=1, eos_token_id=2, pad_token_id=0))
    assert tokenizer.decode(tokenizer.encode("yes no yes")) == "yes no yes"
    with pytest.raises(ValueError, match="more than 2 words"):
        tokenizer.encode("perhaps")


@pytest.mark.slow
def test_a_hundred_options_are_fifteen_times_faster_behind_a_shared_prefix(capsys):
    assert main(["bench", "options", "--questions", "3", "--json"]) == 0
    shared, _, four = json.loads(capsys.readouterr().out)["ways"]
    print(f"{shared['ratio']:.1f} times faster than one full pass each, {four['ratio']:.1f} four at a time")
    assert shared["same_ranks"] == four["same_ranks"] == 3
    assert shared["ratio"] >= 15
