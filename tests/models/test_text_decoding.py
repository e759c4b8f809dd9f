"""Greedy, beam and sampled decoding against the library's ``generate`` on a plain language model."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from mmi.config import CompatConfig, ConfigError, LanguageConfig, MMFSConfig
from mmi.models.language_backbone import library_config
from mmi.models.language_model import LanguageModel
from mmi.models.language_state import LanguageState
from mmi.models.text_decoding import PRESETS, StopRules, TextDecoding, decode

VOCAB, PAD = 40, 0
RULES = StopRules(stop_ids=(2, 7))
GREEDY = TextDecoding(max_new_tokens=12, min_new_tokens=0, n_beams=1)
PROMPTS = torch.tensor([[PAD, PAD, 1, 5, 9], [1, 8, 3, 4, 6], [PAD, 1, 11, 12, 30]])
CONFIG = LanguageConfig(
    frozen=False,
    vocab_size=VOCAB,
    d_model=32,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    d_head=8,
    d_mlp=48,
    max_positions=64,
    pad_token_id=PAD,
    mmfs=MMFSConfig(enabled=False),
)


@pytest.fixture(scope="module", params=range(3))
def pair(request):
    """The same random language model in the library and in ours; peaked, so that stop ids come now and then.

    The library's has two more rows, which are our two new tokens.
    """
    torch.manual_seed(request.param)
    library = AutoModelForCausalLM.from_config(library_config(replace(CONFIG, vocab_size=VOCAB + 2))).eval()
    ours = LanguageModel(CONFIG, 8, CompatConfig.of("corrected")).eval()
    with torch.no_grad():
        for parameter in library.parameters():
            parameter.mul_(6 if parameter.ndim > 1 else 1)
        for block, layer in zip(ours.blocks, library.model.layers, strict=True):
            block.layer.load_state_dict(layer.state_dict())
        ours.norm.load_state_dict(library.model.norm.state_dict())
        ours.embed_tokens.weight.copy_(library.model.embed_tokens.weight[:VOCAB])
        ours.new_tokens.copy_(library.model.embed_tokens.weight[VOCAB:])
        ours.text_head.base.weight.copy_(library.lm_head.weight[:VOCAB])
        ours.text_head.new_weight.copy_(library.lm_head.weight[VOCAB:])
        ours.text_head.new_bias.zero_()
    return library, ours


def generate(library, prompts, repetition_penalty=None, **settings):
    if repetition_penalty:
        # As a setting, the library would spare as many generated tokens as the row has padding.
        settings["logits_processor"] = [RepetitionPenaltyLogitsProcessor(repetition_penalty)]
    ids = library.generate(
        inputs_embeds=library.get_input_embeddings()(prompts),
        attention_mask=(prompts != PAD).long(),
        eos_token_id=list(RULES.stop_ids),
        pad_token_id=PAD,
        max_new_tokens=12,
        **settings,
    )
    rows = []
    for row in ids.tolist():
        ends = [i for i, token in enumerate(row) if token in RULES.stop_ids]
        rows.append(row[: ends[0] + 1] if ends else row)
    return rows


def read(model, prompts, real=None):
    state = LanguageState(model, len(prompts))
    with torch.no_grad():
        hidden = state.extend(prompts, prompts != PAD if real is None else real)
        return state, model.head(hidden[:, -1])


def ours_generate(model, settings, prompts=PROMPTS, rules=RULES, generator=None):
    return decode(*read(model, prompts), settings, rules, generator=generator)


CASES: dict[str, dict] = {
    "greedy": {},
    "greedy, repetition penalty": {"repetition_penalty": 1.4},
    "greedy, at least 5": {"min_new_tokens": 5},
    "3 beams": {"n_beams": 3},
    "5 beams, at least 4": {"n_beams": 5, "min_new_tokens": 4},
    "3 beams, length penalty 0": {"n_beams": 3, "length_penalty": 0.0},
    "4 beams, length penalty 2": {"n_beams": 4, "length_penalty": 2.0},
    "4 beams, length penalty -1": {"n_beams": 4, "length_penalty": -1.0},
    "3 beams, repetition penalty": {"n_beams": 3, "repetition_penalty": 1.3},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_choices_equal_the_librarys(pair, changes):
    library, ours = pair
    theirs = {("num_beams" if k == "n_beams" else k): v for k, v in changes.items()}
    expected = generate(library, PROMPTS, do_sample=False, **theirs)
    assert ours_generate(ours, replace(GREEDY, **changes)) == expected


def test_sampling_draws_what_the_library_draws(pair):
    library, ours = pair
    torch.manual_seed(5)
    expected = generate(library, PROMPTS, do_sample=True, top_p=0.8, top_k=20, temperature=2.0)
    torch.manual_seed(5)
    settings = replace(GREEDY, do_sample=True, top_p=0.8, top_k=20, temperature=2.0)
    assert ours_generate(ours, settings) == expected


@pytest.mark.parametrize("settings", [GREEDY, replace(GREEDY, n_beams=3)], ids=["greedy", "beams"])
def test_rows_of_a_batch_do_not_influence_each_other(pair, settings):
    _, ours = pair
    alone = [ours_generate(ours, settings, row[row != PAD][None])[0] for row in PROMPTS]
    assert ours_generate(ours, settings) == alone


@pytest.mark.parametrize("settings", [GREEDY, replace(GREEDY, n_beams=3)], ids=["greedy", "beams"])
def test_afterwards_the_state_has_read_all_tokens_but_the_last(pair, settings):
    _, ours = pair
    state, logits = read(ours, PROMPTS)
    rows = decode(state, logits, settings, RULES)
    for b, prompt in enumerate(PROMPTS):
        real = state.text_ids[b][state.attention_mask[b]].tolist()
        assert real == [*prompt[prompt != PAD].tolist(), *rows[b][:-1]]
    with torch.no_grad():
        after = state.step(torch.tensor([row[-1] for row in rows]))
        for b, prompt in enumerate(PROMPTS):
            whole = torch.tensor([[*prompt[prompt != PAD].tolist(), *rows[b]]])
            torch.testing.assert_close(after[b], read(ours, whole, whole >= 0)[1][0], rtol=1e-4, atol=1e-4)


def test_the_same_seed_draws_the_same_text_and_a_cold_one_is_greedy(pair):
    _, ours = pair
    hot = replace(GREEDY, do_sample=True, temperature=3.0)
    draws = [ours_generate(ours, hot, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    cold = replace(GREEDY, do_sample=True, temperature=1e-4)
    assert ours_generate(ours, cold) == ours_generate(ours, GREEDY)


def test_banned_ids_never_come(pair):
    _, ours = pair
    first = ours_generate(ours, GREEDY)[0][0]
    rules = StopRules(RULES.stop_ids, banned_ids=(first,))
    assert all(first not in row for row in ours_generate(ours, GREEDY, rules=rules))
    assert all(first not in row for row in ours_generate(ours, replace(GREEDY, n_beams=3), rules=rules))


def test_presets_are_the_table_of_the_official_settings():
    rows = {
        name: (p.max_new_tokens, p.min_new_tokens, p.n_beams, p.length_penalty, p.do_sample, p.repetition_penalty)
        for name, p in PRESETS.items()
    }
    # The official minimum counts an artificial start token.
    assert rows == {
        "default": (30, 7, 5, 1.0, False, 1.0),
        "caption": (20, 7, 5, 1.0, False, 1.0),
        "paragraph": (90, 89, 5, 1.0, False, 1.2),
        "vqa": (10, 0, 3, 0.0, False, 1.0),
        "grounding": (30, 7, 5, 1.0, False, 1.0),
        "demo": (90, 7, 1, 1.0, True, 1.3),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_new_tokens": 0}, r"max_new_tokens is 0; expected at least 1"),
        ({"min_new_tokens": 40}, r"min_new_tokens is 40; expected 0 to max_new_tokens"),
        ({"top_p": 0.0}, r"top_p is 0.0; expected above 0"),
        ({"temperature": 0.0}, r"temperature is 0.0; expected above 0"),
        ({"do_sample": True}, r"do_sample is true with 5 beams"),
    ],
    ids=["no tokens", "minimum above maximum", "empty nucleus", "absolute zero", "sampled beams"],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        TextDecoding(**changes)
