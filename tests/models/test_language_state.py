"""Continuing rows piece by piece gives what one full pass gives: left padding, beams, late images and MMFS included."""

from dataclasses import replace

import pytest
import torch

from mmi.config import CompatConfig, LanguageConfig, MMFSConfig, ResamplerConfig
from mmi.models.language_model import ImageContext, LanguageModel
from mmi.models.language_state import LanguageState, NewImages
from mmi.models.text_decoding import StopRules, TextDecoding, decode
from mmi.models.visibility import image_slots, slot_values, visible_images

BOS, EOS, PAD, VOCAB, N_TOKENS, D_PYRAMID = 1, 2, 0, 40, 3, 12
START, IMAGE = VOCAB, VOCAB + 1
RULES = StopRules((EOS, START), banned_ids=(IMAGE,))
CLOSE = {"rtol": 0, "atol": 3e-6}


def image():
    return [START] + [IMAGE] * N_TOKENS


PROMPTS = [[BOS, 5, *image(), 6, *image(), 7], [BOS, 8, *image(), 9], [BOS, 10, 11]]


FEW_TOKENS = ResamplerConfig(n_tokens=5, d_model=24, n_layers=1, n_heads=4, d_mlp=16, dropout=0.0, init_std=0.3)


def build(*, backend="sdpa", attention="deformable", window=None, transition=None):
    torch.manual_seed(1)
    config = LanguageConfig(
        frozen=False,
        family="mistral" if window else "llama",
        sliding_window=window,
        vocab_size=VOCAB,
        d_model=32,
        n_layers=4,
        n_heads=4,
        n_kv_heads=2,
        d_head=8,
        d_mlp=48,
        max_positions=128,
        pad_token_id=PAD,
        mmfs_every=2,
        mmfs=MMFSConfig(
            n_heads=4,
            n_points=2,
            d_inner=16,
            base_size=4,
            max_images=6,
            attention=attention,
            transition=transition,
        ),
        attention_backend=backend,
    )
    model = LanguageModel(config, D_PYRAMID, CompatConfig.of("corrected")).eval()
    for branch in model.branches:
        torch.nn.init.constant_(branch.gate, 0.9)
        torch.nn.init.normal_(branch.attention.null_value)
    with torch.no_grad():
        model.text_head.base.weight.mul_(8)  # peaked, so that stop ids come now and then
    return model.requires_grad_(False)


MODELS = {
    "sdpa": build(),
    "eager": build(backend="eager"),
    "dense": build(attention="dense"),
    "dense, resampled": build(attention="dense", transition=FEW_TOKENS),
    "window": build(window=6),
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
# Gaps count towards a window.
models_with_gaps = pytest.mark.parametrize("model", [MODELS["sdpa"], MODELS["eager"]], ids=["sdpa", "eager"])


class Pictures:
    """As many random pictures as are asked for, always the same ones."""

    def __init__(self, n):
        generator = torch.Generator().manual_seed(4)
        self.tokens = torch.randn(n, N_TOKENS, 32, generator=generator)
        self.pyramid = [torch.randn(n, D_PYRAMID, s, s, generator=generator) for s in (16, 8, 4, 2)]

    def new(self, model, which, ids):
        """Pictures ``which`` at the image starts of a stretch."""
        row, start = torch.nonzero(ids == START, as_tuple=True)
        values = model.project_pyramid([level[which] for level in self.pyramid])
        return NewImages(self.tokens[which], values, row, start)


PICTURES = Pictures(5)


def left_padded(rows):
    length = max(map(len, rows))
    ids = torch.tensor([[PAD] * (length - len(row)) + row for row in rows])
    real = torch.tensor([[False] * (length - len(row)) + [True] * len(row) for row in rows])
    return ids, real


def full_pass(model, row, pictures):
    """Hidden states of one unpadded row, computed at once."""
    ids = torch.tensor([row])
    image_row, start = torch.nonzero(ids == START, as_tuple=True)
    # An image start without placeholders is a prediction, not an image.
    keep = torch.tensor([s + 1 < len(row) and row[s + 1] == IMAGE for s in start.tolist()], dtype=torch.bool)
    image_row, start = image_row[keep], start[keep]
    table = image_slots(image_row, 1)
    visible = visible_images(ids, slot_values(start, table), bos_token_id=BOS)
    values = model.project_pyramid([level[pictures] for level in PICTURES.pyramid])
    embeddings = model.embed(ids, PICTURES.tokens[pictures], image_row, start)
    return model(embeddings, images=ImageContext(values, table, visible))[0]


WHICH = [[0, 1], [2], []]


def prompt_state(model, *, keep_hidden=False):
    ids, real = left_padded(PROMPTS)
    state = LanguageState(model, 3, keep_hidden=keep_hidden)
    hidden = state.extend(ids, real, PICTURES.new(model, [0, 1, 2], ids))
    return state, hidden, real


@every_model
def test_left_padded_prompts_equal_single_ones(model):
    _, hidden, real = prompt_state(model)
    for b, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(hidden[b][real[b]], full_pass(model, prompt, WHICH[b]), **CLOSE)


@every_model
def test_cached_steps_equal_a_full_pass(model):
    state, _, _ = prompt_state(model)
    new = torch.tensor([[12, 13, 14], [15, 16, 17], [18, 19, 20]])
    steps = torch.stack([state.step(new[:, i]) for i in range(3)], dim=1)
    for b, prompt in enumerate(PROMPTS):
        whole = full_pass(model, prompt + new[b].tolist(), WHICH[b])
        torch.testing.assert_close(steps[b], model.head(whole[-3:]), rtol=0, atol=1e-4)


@models_with_gaps
def test_rows_that_have_ended_read_nothing_more(model):
    state, _, _ = prompt_state(model)
    state.step(torch.tensor([12, 13, 14]), torch.tensor([True, False, True]))
    logits = state.step(torch.tensor([15, 16, 17]))
    for b, read in enumerate([[12, 15], [16], [14, 17]]):
        whole = full_pass(model, PROMPTS[b] + read, WHICH[b])
        torch.testing.assert_close(logits[b], model.head(whole[-1]), rtol=0, atol=1e-4)


@models_with_gaps
def test_an_image_can_come_later_and_in_some_rows_only(model):
    state, _, _ = prompt_state(model, keep_hidden=True)
    ids = torch.tensor([[21, *image(), 22], [23] + [PAD] * 5, [24, *image(), 25]])
    real = ids != PAD
    state.extend(ids, real, PICTURES.new(model, [3, 4], ids))
    logits = state.step(torch.tensor([26, 27, 28]))
    for b, (more, which) in enumerate([([0, 1, 3], 26), ([2], 27), ([4], 28)]):
        row = PROMPTS[b] + ids[b][real[b]].tolist() + [which]
        assert state.text_ids[b][state.attention_mask[b]].tolist() == row
        whole = full_pass(model, row, more)
        torch.testing.assert_close(state.hidden_states[b][state.attention_mask[b]], whole, **CLOSE)
        torch.testing.assert_close(logits[b], model.head(whole[-1]), rtol=0, atol=1e-4)


def uncached_beam_search(model, prompt, which, settings):
    """Score every hypothesis with full passes, in plain Python."""
    beams, ended = [((), 0.0)], []
    for length in range(1, settings.max_new_tokens + 1):
        found = []
        for ids, score in beams:
            logits = model.head(full_pass(model, [*prompt, *ids], which)[-1])
            steps = logits.log_softmax(-1)
            for token in range(VOCAB + 2):
                if token not in RULES.banned_ids:
                    found.append(((*ids, token), score + float(steps[token])))
        found = sorted(found, key=lambda item: -item[1])[: 3 * settings.n_beams]
        last = length == settings.max_new_tokens
        stops = [last or ids[-1] in RULES.stop_ids for ids, _ in found]
        best = [i for i in range(settings.n_beams) if stops[i]]
        ended += [(found[i][0], found[i][1] / length**settings.length_penalty) for i in best]
        ended = sorted(ended, key=lambda item: -item[1])[: settings.n_beams]
        beams = [item for item, stop in zip(found, stops, strict=True) if not stop][: settings.n_beams]
        full = len(ended) == settings.n_beams
        if beams and full and beams[0][1] / length**settings.length_penalty <= ended[-1][1]:
            break
    return list(ended[0][0])


@every_model
@pytest.mark.parametrize("n_beams", [1, 3], ids=["greedy", "beams"])
def test_cached_decoding_equals_uncached(model, n_beams):
    settings = TextDecoding(max_new_tokens=6, min_new_tokens=0, n_beams=n_beams)
    state, hidden, _ = prompt_state(model)
    rows = decode(state, model.head(hidden[:, -1]), settings, RULES)
    for b, prompt in enumerate(PROMPTS):
        assert rows[b] == uncached_beam_search(model, prompt, WHICH[b], settings)


@every_model
def test_beams_share_the_values_of_images(model):
    state, _, _ = prompt_state(model)
    beams = state.expanded(4)
    assert beams.image_table.shape[0] == 12
    for ours, theirs in zip(state.values, beams.values, strict=True):
        assert ours.value.data_ptr() == theirs.value.data_ptr()
    tokens = torch.arange(12, 24)
    logits = beams.step(tokens)
    chosen = torch.tensor([11, 0, 4, 4])
    beams.select(chosen)
    after = beams.step(torch.tensor([30, 31, 32, 33]))
    for k, old in enumerate(chosen.tolist()):
        row = [*PROMPTS[old // 4], int(tokens[old]), 30 + k]
        whole = full_pass(model, row, WHICH[old // 4])
        torch.testing.assert_close(logits[old], model.head(whole[-2]), rtol=0, atol=1e-4)
        torch.testing.assert_close(after[k], model.head(whole[-1]), rtol=0, atol=1e-4)
    assert state.text_ids.shape[1] == len(PROMPTS[0]), "the state it came from is untouched"
    untouched = state.step(torch.tensor([12, 13, 14]))
    whole = full_pass(model, [*PROMPTS[2], 14], [])
    torch.testing.assert_close(untouched[2], model.head(whole[-1]), rtol=0, atol=1e-4)


def projected_images(model, run):
    """Run something and return how many images each value projection projected, call by call, and the result."""
    calls = []
    projections = [branch.attention.value_proj for branch in model.branches]
    hooks = [p.register_forward_hook(lambda _, inputs, __: calls.append(inputs[0].shape[0])) for p in projections]
    result = run()
    for hook in hooks:
        hook.remove()
    return [n for n in calls if n], result


def test_images_are_projected_once_for_all_steps_and_beams_and_not_a_bit_changes():
    model = MODELS["sdpa"]
    tokens = torch.tensor([[12, 13, 14], [15, 16, 17], [18, 19, 20]])

    def steps(*, again: bool, n_beams: int):
        state, _, _ = prompt_state(model)
        state = state.expanded(n_beams)
        logits = []
        for token in tokens:
            if again:
                state.values = model.project_pyramid([level[:3] for level in PICTURES.pyramid])
            logits.append(state.step(token.repeat_interleave(n_beams)))
            state.select(torch.arange(3 * n_beams).flip(0))
        return torch.stack(logits)

    for n_beams in (1, 4):
        calls, cached = projected_images(model, lambda n=n_beams: steps(again=False, n_beams=n))
        assert calls == [3] * len(model.branches)
        calls, projected_again = projected_images(model, lambda n=n_beams: steps(again=True, n_beams=n))
        assert calls == [3] * len(model.branches) * 4
        assert torch.equal(cached, projected_again)


def test_a_caller_may_say_what_new_tokens_see():
    model = MODELS["sdpa"]
    state, _, _ = prompt_state(model)
    twin = state.expanded(1)
    seen = state.extend(torch.tensor([[12], [13], [14]]))
    blind = twin.extend(torch.tensor([[12], [13], [14]]), visible=torch.zeros(3, 1, 2, dtype=torch.bool))
    changed = (seen != blind).any(-1)[:, 0]
    assert changed.tolist() == [True, True, False]


def test_a_state_without_hidden_states_says_so():
    state, _, _ = prompt_state(MODELS["sdpa"])
    with pytest.raises(ValueError, match=r"keep_hidden=True"):
        _ = state.hidden_states


def test_text_only_prompts_work_with_mmfs_switched_off_too():
    model = MODELS["sdpa"]
    off = replace(model.config, mmfs=replace(model.config.mmfs, enabled=False))
    plain = LanguageModel(off, D_PYRAMID, CompatConfig.of("corrected")).eval()
    settings = TextDecoding(max_new_tokens=4, min_new_tokens=0, n_beams=2)
    for each in (model, plain):
        state = LanguageState(each, 1)
        hidden = state.extend(torch.tensor([[BOS, 5, 6]]))
        (ids,) = decode(state, each.head(hidden[:, -1]), settings, RULES)
        assert 1 <= len(ids) <= 4
