"""Continuations behind a prompt that is read once score as if each were read with it, whatever they share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from factories import byte_tokenizer, picture, tiny_config, wake_up
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmi.inference import Generator
from mmi.models.build import build_network
from mmi.models.language_state import LanguageState
from mmi.models.option_scoring import longest_beginnings, score_options
from mmi.models.text_decoding import TextDecoding

PROMPT = ["a dog", picture(1), "and a cat", picture(2), "question: is it a dog? answer:"]
options = st.lists(st.lists(st.integers(3, 6), min_size=1, max_size=5).map(tuple), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    network = build_network(tiny_config())
    wake_up(network)
    return Generator(network, byte_tokenizer())


@pytest.fixture(scope="module")
def state(generator: Generator) -> LanguageState:
    return generator.read([PROMPT]).language


@given(options)
def test_rows_to_read_hold_every_beginning_once(found: list[tuple[int, ...]]) -> None:
    rows = longest_beginnings(found)
    beginnings = {option[:n] for option in found for n in range(1, len(option))}
    assert {row[:n] for row in rows for n in range(1, len(row) + 1)} == beginnings
    assert not [(a, b) for a in rows for b in rows if a != b and b[: len(a)] == a]


SHARED = {
    "nothing shared": [[10, 11], [12, 13, 14], [15]],
    "one begins another": [[10, 11], [10, 11, 12, 13], [10]],
    "the same twice": [[10, 11, 12], [10, 11, 12]],
    "last tokens differ": [[10, 11, 12], [10, 11, 13], [10, 11, 14]],
    "single tokens": [[10], [11], [12]],
}


@pytest.mark.parametrize("ids", SHARED.values(), ids=SHARED.keys())
@pytest.mark.parametrize("most_tokens", [1, 10_000], ids=["one row at a time", "together"])
def test_what_continuations_share_changes_no_score(
    generator: Generator, state: LanguageState, ids: list[list[int]], most_tokens: int
) -> None:
    together = score_options(state, ids, most_tokens=most_tokens)
    for option, score in zip(ids, together, strict=True):
        alone = state.expanded(1)
        with torch.no_grad():
            hidden = torch.cat([state.hidden_states[:, -1:], alone.extend(torch.tensor([option]))], dim=1)
            steps = generator.network.language_model.head(hidden[0, :-1]).log_softmax(-1)
        assert score == pytest.approx(float(steps[torch.arange(len(option)), option].sum()), abs=1e-4)


def test_a_prompt_can_be_scored_again_and_gone_on_with(generator: Generator) -> None:
    settings = TextDecoding(max_new_tokens=5, min_new_tokens=3, n_beams=3)
    fresh, used = generator.read([PROMPT]), generator.read([PROMPT])
    first = score_options(used.language, SHARED["last tokens differ"])
    assert score_options(used.language, SHARED["last tokens differ"]) == first
    assert used.write(settings) == fresh.write(settings)


def test_copies_of_a_row_are_those_of_the_library(state: LanguageState) -> None:
    theirs = state.expanded(1)
    theirs._cache.batch_repeat_interleave(3)
    for ours, other in zip(keys(state.expanded(3)), keys(theirs), strict=True):
        assert torch.equal(ours, other)


def test_copies_of_several_rows_stand_together(generator: Generator) -> None:
    two = generator.read([["one"], ["another one"]]).language
    for once, copied in zip(keys(two), keys(two.expanded(2)), strict=True):
        assert torch.equal(copied, once[[0, 0, 1, 1]])


def keys(state: LanguageState) -> list[Tensor]:
    layers: Any = state._cache.layers
    return [torch.stack([layer.keys, layer.values], dim=1) for layer in layers]


def test_wrong_continuations_are_one_sentence(generator: Generator, state: LanguageState) -> None:
    with pytest.raises(ValueError, match="has no token to score"):
        score_options(state, [[3], []])
    with pytest.raises(ValueError, match="the state has 2 rows"):
        score_options(generator.read([["a"], ["b"]]).language, [[3]])
    with pytest.raises(ValueError, match="continuation '' has no token"):
        generator.score_continuations(PROMPT, ["yes", ""])
    assert generator.score_continuations(PROMPT, []) == []
