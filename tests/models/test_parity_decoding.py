"""Cached decoding of the tiny official model against full passes and searches in plain Python (SPEC 5.1, 5.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from factories import picture
from tiny_official import BOS, EOS, IMAGE, N_TOKENS, PAD, SOI, tiny_network
from torch import Tensor

from mmi.config import CompatConfig, Preset
from mmi.inference import Generator
from mmi.models.generation import InterleavedState
from mmi.models.language_model import ImageContext
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.text_decoding import StopRules, TextDecoding, decode
from mmi.tokens import SpecialTokens, Tokenizer

PICTURE = [SOI] + [IMAGE] * N_TOKENS
PROMPTS = [
    [BOS, 5, *PICTURE, 7, 8, *PICTURE, 9],
    [BOS, *PICTURE, 11, 12],
    [BOS, 14, 15, 16],
]
N_PICTURES = [2, 1, 0]
# Many ids end a row here, so that continuations of all lengths compete.
STOPS = (EOS, SOI, 20, 31, 44, 58, 66, 72, 80)


@pytest.fixture(scope="module")
def network() -> MMInterleaved:
    return tiny_network("official")


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.randint(0, 256, (3, 3, 224, 224), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def read(network: MMInterleaved, pictures: Tensor) -> InterleavedState:
    """Read all prompts at once, padded on the left."""
    width = max(map(len, PROMPTS))
    ids = torch.tensor([[PAD] * (width - len(p)) + p for p in PROMPTS])
    mask = torch.tensor([[i >= width - len(p) for i in range(width)] for p in PROMPTS])
    row, start = torch.nonzero(ids == SOI, as_tuple=True)
    state = InterleavedState(network, len(PROMPTS))
    state.read(ids, mask, pictures, row, start)
    return state


class FullPasses:
    """Next-token logits of one prompt by running the whole row again, without padding or cache."""

    @torch.no_grad()
    def __init__(self, network: MMInterleaved, prompt: list[int], pictures: Tensor) -> None:
        self.model, self.prompt = network.language_model, prompt
        self.features = network.visual_tokenizer(pictures)

    @torch.no_grad()
    def __call__(self, continuations: Sequence[Sequence[int]]) -> Tensor:
        model, features, n = self.model, self.features, len(continuations)
        ids = torch.tensor([[*self.prompt, *c] for c in continuations])
        starts = [i for i, token in enumerate(self.prompt) if token == SOI]
        table = torch.arange(len(starts)).expand(n, -1)
        # New text sees what the last prompt token sees: here, every image.
        visible = torch.tensor([[s + 1 <= t for s in starts] for t in range(ids.shape[1])], dtype=torch.bool)
        visible = visible.view(ids.shape[1], len(starts))
        embeddings = model.embed_text(ids)
        for r in range(n):
            for m, start in enumerate(starts):
                embeddings[r, start + 1 : start + 1 + N_TOKENS] = features.tokens[m]
        context = ImageContext(model.project_pyramid(features.pyramid), table, visible.expand(n, -1, -1))
        return model.head(model(embeddings, images=context)[:, -1])


@pytest.fixture(scope="module")
def passes(network: MMInterleaved, pictures: Tensor) -> list[FullPasses]:
    parts = pictures.split(N_PICTURES)
    return [FullPasses(network, prompt, part) for prompt, part in zip(PROMPTS, parts, strict=True)]


def adjusted(scores: Tensor, ids: Sequence[int], settings: TextDecoding, rules: StopRules) -> Tensor:
    """Repetition penalty and least length, one id after the other."""
    scores = scores.clone()
    seen = {*ids} if rules.first_id is None else {rules.first_id, *ids}
    for token in seen:
        scores[token] *= settings.repetition_penalty if scores[token] < 0 else 1 / settings.repetition_penalty
    if len(ids) < settings.min_new_tokens:
        scores[list(rules.stop_ids)] = -torch.inf
    scores[list(rules.banned_ids)] = -torch.inf
    return scores


def plain_greedy(logits: Callable, settings: TextDecoding, rules: StopRules) -> list[int]:
    ids: list[int] = []
    while len(ids) < settings.max_new_tokens and not (ids and ids[-1] in rules.stop_ids):
        ids.append(int(adjusted(logits([ids])[0], ids, settings, rules).argmax()))
    return ids


Scored = tuple[float, list[int]]


def plain_beams(logits: Callable, settings: TextDecoding, rules: StopRules) -> list[int]:
    """Beam search with lists; ``rules.beam_lengths`` chooses between today's library and the pinned one."""
    k, power, most = settings.n_beams, settings.length_penalty, settings.max_new_tokens
    beams: list[Scored] = [(0.0, [])]
    ended: list[Scored] = []

    def end(score: float, ids: list[int]) -> None:
        ended.append((score, ids))
        ended.sort(key=lambda item: -item[0])
        del ended[k:]

    for length in range(1, most + 1):
        found: list[Scored] = []
        for (score, ids), row in zip(beams, logits([ids for _, ids in beams]), strict=True):
            scores = adjusted(row.log_softmax(-1), ids, settings, rules).tolist()
            found += [(score + s, [*ids, token]) for token, s in enumerate(scores)]
        found.sort(key=lambda item: -item[0])
        going = [item for item in found if item[1][-1] not in rules.stop_ids][:k]
        cut_off = length == most and rules.beam_lengths == "corrected"
        for score, ids in found[:k]:
            if cut_off or ids[-1] in rules.stop_ids:
                end(score / length**power, ids)
        full = len(ended) == k
        if rules.beam_lengths == "corrected":
            if full and going[0][0] / length**power <= ended[-1][0]:
                break
        elif full and ended[-1][0] >= found[0][0] / (length + 1) ** power:
            break
        elif length == most:
            for score, ids in going:
                end(score / (length + 1) ** power, ids)
        beams = going
    return ended[0][1]


CASES: dict[str, TextDecoding] = {
    "greedy": TextDecoding(max_new_tokens=8, min_new_tokens=0, n_beams=1),
    "greedy, penalty, minimum": TextDecoding(max_new_tokens=8, min_new_tokens=4, n_beams=1, repetition_penalty=1.3),
    "3 beams": TextDecoding(max_new_tokens=8, min_new_tokens=0, n_beams=3),
    "3 beams, length penalty 0": TextDecoding(max_new_tokens=8, min_new_tokens=0, n_beams=3, length_penalty=0.0),
    "5 beams": TextDecoding(max_new_tokens=8, min_new_tokens=2, n_beams=5),
    "5 beams, length penalty 3": TextDecoding(max_new_tokens=8, min_new_tokens=0, n_beams=5, length_penalty=3.0),
    "5 beams, penalty": TextDecoding(max_new_tokens=8, min_new_tokens=0, n_beams=5, repetition_penalty=1.3),
}


@pytest.mark.parametrize("lengths", ["corrected", "official"])
@pytest.mark.parametrize("settings", CASES.values(), ids=CASES.keys())
def test_cached_decoding_of_a_padded_batch_equals_full_passes_row_by_row(
    network: MMInterleaved, pictures: Tensor, passes: list[FullPasses], settings: TextDecoding, lengths: Preset
) -> None:
    rules = StopRules(STOPS, banned_ids=(IMAGE,), first_id=BOS, beam_lengths=lengths)
    state = read(network, pictures)
    assert state.language.last_hidden is not None
    logits = network.language_model.head(state.language.last_hidden)
    plain = plain_greedy if settings.n_beams == 1 else plain_beams
    expected = [plain(full, settings, rules) for full in passes]
    assert decode(state.language, logits, settings, rules) == expected


def test_the_two_ways_to_count_lengths_choose_differently(network: MMInterleaved, pictures: Tensor) -> None:
    """At a high length penalty a cut-off continuation profits from the extra token."""
    found = {}
    for lengths in ("corrected", "official"):
        found[lengths] = []
        for power in (0.5, 1.0, 2.0, 3.0, 5.0):
            state = read(network, pictures)
            assert state.language.last_hidden is not None
            settings = TextDecoding(max_new_tokens=5, min_new_tokens=0, n_beams=3, length_penalty=power)
            rules = StopRules(STOPS, beam_lengths=lengths)
            found[lengths] += decode(
                state.language, network.language_model.head(state.language.last_hidden), settings, rules
            )
    assert found["corrected"] != found["official"]


@pytest.mark.parametrize("n_beams", [1, 3, 5])
def test_writing_officially_allows_every_id_and_correctly_only_text(
    network: MMInterleaved, pictures: Tensor, passes: list[FullPasses], n_beams: int
) -> None:
    settings = TextDecoding(max_new_tokens=6, min_new_tokens=0, n_beams=n_beams)
    head = network.language_model.text_head.base
    assert head is not None
    weight = head.weight.detach().clone()
    with torch.no_grad():
        # Padding and <s> are what this head likes best.
        head.weight[PAD] = 2 * weight[:95].amax(0)
        head.weight[BOS] = 2 * weight[:95].amax(0) + 0.01
    rows = {}
    try:
        for preset in ("official", "corrected"):
            network.compat = CompatConfig.of(preset)
            rows[preset] = read(network, pictures).write(settings)
            official = preset == "official"
            rules = StopRules(
                (EOS, SOI), () if official else (IMAGE, BOS, PAD), BOS if official else None, beam_lengths=preset
            )
            plain = plain_greedy if n_beams == 1 else plain_beams
            assert rows[preset] == [plain(full, settings, rules) for full in passes]
    finally:
        network.compat = CompatConfig.of("official")
        with torch.no_grad():
            head.weight.copy_(weight)
    assert {BOS, PAD} & {i for row in rows["official"] for i in row}
    assert not {BOS, PAD, IMAGE} & {i for row in rows["corrected"] for i in row}


class Characters:
    """Printable characters as ids 3 to 94."""

    vocab_size = 96

    def encode(self, text: str) -> list[int]:
        return [3 + ord(c) % 92 for c in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(i) for i in ids)


def test_a_hundred_options_behind_a_shared_prefix_score_as_one_by_one(network: MMInterleaved) -> None:
    generator = Generator(network, Tokenizer(Characters(), SpecialTokens(BOS, EOS, PAD, SOI, IMAGE)))
    prompt = [picture(3, 224), "caption: a dog. question: red? answer: no question: where? answer:"]
    options = [f"{'very ' * (i % 5)}far {chr(97 + i % 26)}{i}"[: 1 + i % 17] for i in range(100)]
    together = generator.score_continuations(prompt, options)
    alone = {i: generator.score_continuations(prompt, [options[i]])[0] for i in range(0, 100, 3)}
    assert alone == pytest.approx({i: together[i] for i in alone}, abs=1e-4)

    ids = generator.read([prompt]).language.text_ids[0].tolist()
    pixels = generator._pixels(prompt[0])[None]
    full = FullPasses(network, ids, pixels)
    for i in range(0, 100, 12):
        tokens = generator.tokenizer.encode(options[i])
        steps = [full([tokens[:n]])[0].log_softmax(-1)[token] for n, token in enumerate(tokens)]
        assert together[i] == pytest.approx(float(sum(steps)), abs=1e-4)
