"""Properties of the language model: what may reach what, and what equals the library."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from recorded_calls import WAITING, RecordedCalls
from transformers import AutoModelForCausalLM

from mmi.config import CompatConfig, ConfigError, ImageDecoderConfig, LanguageConfig, MMFSConfig, ResamplerConfig
from mmi.models.attention_mask import attention_masks
from mmi.models.language_backbone import library_config
from mmi.models.language_model import ImageContext, LanguageModel
from mmi.models.visibility import image_slots, slot_values, visible_images

BOS, EOS, PAD, VOCAB, N_TOKENS, D_PYRAMID = 1, 2, 0, 40, 3, 12
START, IMAGE = VOCAB, VOCAB + 1
CONFIG = LanguageConfig(
    frozen=False,
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
    mmfs=MMFSConfig(n_heads=4, n_points=2, d_inner=16, base_size=4, max_images=6, offset_init=1.0),
)
CORRECTED, OFFICIAL = CompatConfig.of("corrected"), CompatConfig.of("official")
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def build(config=CONFIG, compat=CORRECTED, *, open_gates=True, seed=0):
    torch.manual_seed(seed)
    model = LanguageModel(config, D_PYRAMID, compat).eval()
    if open_gates:
        for branch in model.branches:
            torch.nn.init.constant_(branch.gate, 0.7)
            if branch.attention.null_value is not None:
                torch.nn.init.normal_(branch.attention.null_value)
    return model


def image():
    return [START] + [IMAGE] * N_TOKENS


class Rows:
    """Packed rows of ids with random pictures: what a model is given and what it answers."""

    def __init__(self, *rows, seed=0, n_empty_slots=0):
        length = max(map(len, rows))
        self.ids = torch.tensor([row + [PAD] * (length - len(row)) for row in rows])
        self.row, self.start = torch.nonzero(self.ids == START, as_tuple=True)
        generator = torch.Generator().manual_seed(seed)
        n = len(self.row)
        self.tokens = torch.randn(n, N_TOKENS, 32, generator=generator)
        self.pyramid = [torch.randn(n, D_PYRAMID, s, s, generator=generator) for s in (16, 8, 4, 2)]
        self.table = F.pad(image_slots(self.row, len(rows)), (0, n_empty_slots), value=-1)
        self.visible = visible_images(self.ids, slot_values(self.start, self.table), bos_token_id=BOS)
        self.documents = torch.where(self.ids == PAD, -1, (self.ids == BOS).cumsum(1) - 1)
        first = torch.stack([(self.documents == d).int().argmax(1) for d in range(4)], 1)
        self.positions = torch.arange(length) - first.gather(1, self.documents.clamp(min=0))

    def context(self, model):
        return ImageContext(model.project_pyramid(self.pyramid), self.table, self.visible)

    def run(self, model, *, packed=True):
        return model(
            model.embed(self.ids, self.tokens, self.row, self.start),
            attention_mask=self.ids != PAD,
            document_ids=self.documents if packed else None,
            position_ids=self.positions if packed else None,
            images=self.context(model),
        )


TWO_DOCUMENTS = [BOS, 5, *image(), 6, 7, EOS, BOS, 8, *image(), 9, *image(), 10, EOS]
SECOND = 9  # where the second document starts


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_closed_gates_give_the_plain_language_model(family, tmp_path):
    config = replace(CONFIG, family=family)
    AutoModelForCausalLM.from_config(library_config(config)).save_pretrained(tmp_path)
    library = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    model = build(replace(config, weights=str(tmp_path)), open_gates=False)
    rows = Rows([BOS, 5, *image(), 6, 7, EOS])
    embeddings = model.embed(rows.ids, rows.tokens, rows.row, rows.start)
    expected = library(inputs_embeds=embeddings, output_hidden_states=True)
    hidden = rows.run(model)
    assert torch.equal(hidden, expected.hidden_states[-1])
    logits = model.head(hidden)
    assert torch.equal(logits[..., :VOCAB], expected.logits), "old ids keep the language model's logits"
    assert (logits[..., VOCAB:] == -5).all(), "new ids start at -5"


@torch.no_grad()
def test_a_later_image_cannot_change_an_earlier_token():
    model = build()
    rows = Rows([BOS, 5, *image(), 6, *image(), 7, EOS])
    before = rows.run(model)
    second = int(rows.start[1])
    rows.tokens[1] += 1
    for level in rows.pyramid:
        level[1] += 1
    after = rows.run(model)
    assert torch.equal(before[:, : second + 1], after[:, : second + 1])
    assert (before[:, second + 1 :] != after[:, second + 1 :]).any(-1).all()


@pytest.mark.parametrize("compat", [CORRECTED, OFFICIAL], ids=["corrected", "official"])
@torch.no_grad()
def test_the_pyramid_of_an_image_reaches_no_other_document_directly(compat):
    model = build(compat=compat)
    rows = Rows(TWO_DOCUMENTS)
    reached = []
    model.branches[0].register_forward_hook(lambda _, __, output: reached.append(output))
    rows.run(model)
    for level in rows.pyramid:
        level[0] += 1
    rows.run(model)
    changed = (reached[0] != reached[1]).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == list(range(3, SECOND))


@torch.no_grad()
def test_packed_documents_do_not_see_each_other():
    model = build()
    rows, alone = Rows(TWO_DOCUMENTS), Rows(TWO_DOCUMENTS[SECOND:])
    alone.tokens, alone.pyramid = rows.tokens[1:], [level[1:] for level in rows.pyramid]
    torch.testing.assert_close(rows.run(model)[:, SECOND:], alone.run(model), rtol=0, atol=2e-6)


@torch.no_grad()
def test_officially_packed_documents_attend_to_each_other():
    model = build(compat=OFFICIAL)
    rows, other = Rows(TWO_DOCUMENTS), Rows([BOS, 11, *TWO_DOCUMENTS[2:]])
    assert (rows.run(model)[:, SECOND:] != other.run(model)[:, SECOND:]).any(-1).all()
    rows.positions = rows.positions + 3
    assert torch.equal(rows.run(model), rows.run(model, packed=False)), "positions count through the row"


def test_a_backend_that_cannot_keep_documents_apart_is_refused():
    library = library_config(CONFIG)
    library._attn_implementation = "flash_attention_2"
    rows = Rows(TWO_DOCUMENTS)
    with pytest.raises(ConfigError, match=r"flash_attention_2 cannot keep packed documents apart; use sdpa"):
        attention_masks(library, ["full_attention"], torch.zeros(1, 18, 32), None, None, rows.documents)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("compat", [CORRECTED, OFFICIAL], ids=["corrected", "official"])
@torch.no_grad()
def test_rows_do_not_depend_on_their_batch_or_padding(backend, compat):
    model = build(replace(CONFIG, attention_backend=backend), compat)
    long, short = TWO_DOCUMENTS, [BOS, 4, EOS]
    both = Rows(short, long)
    alone = Rows(long)
    alone.tokens, alone.pyramid = both.tokens, both.pyramid
    torch.testing.assert_close(both.run(model)[1:], alone.run(model), rtol=0, atol=2e-6)
    text_only = Rows(short)
    torch.testing.assert_close(both.run(model)[:1, :3], text_only.run(model), rtol=0, atol=2e-6)
    embeddings = model.embed(text_only.ids, text_only.tokens, text_only.row, text_only.start)
    torch.testing.assert_close(text_only.run(model), model(embeddings), rtol=0, atol=2e-6)


@torch.no_grad()
@pytest.mark.parametrize("every", [1, 4], ids=["four_layers", "one_layer"])
def test_images_are_numbered_once_for_all_layers_and_nothing_waits_for_the_device(every):
    model, rows = build(replace(CONFIG, mmfs_every=every)), Rows(TWO_DOCUMENTS)
    embeddings, context = model.embed(rows.ids, rows.tokens, rows.row, rows.start), rows.context(model)
    with RecordedCalls() as calls:
        model(embeddings, images=context)
    assert len(calls.arguments["mmfs::attention"]) == 4 // every
    assert len(calls.arguments["aten::cumsum"]) == 1
    assert not WAITING & calls.names


@torch.no_grad()
def test_empty_image_slots_change_nothing():
    model = build()
    torch.testing.assert_close(
        Rows(TWO_DOCUMENTS).run(model), Rows(TWO_DOCUMENTS, n_empty_slots=5).run(model), rtol=0, atol=1e-6
    )


@torch.no_grad()
def test_sliding_windows_equal_the_library_and_forget():
    config = replace(CONFIG, family="qwen2", sliding_window=4, full_attention_layers=1, n_layers=2)
    model = build(config, open_gates=False)  # construction compares with the library
    assert model.kinds == ("full_attention", "sliding_attention")
    windowed = build(replace(config, full_attention_layers=0, n_layers=1), open_gates=False)
    ids = torch.tensor([[BOS, 5, 6, 7, 8, 9]])
    other = ids.clone()
    other[0, 1] = 11
    changed = (windowed(windowed.embed_text(ids)) != windowed(windowed.embed_text(other))).any(-1)[0]
    assert changed.tolist() == [False, True, True, True, True, False]


def test_activation_checkpointing_gives_equal_loss_and_gradients():
    plain = build(replace(CONFIG, activation_checkpointing=False)).train()
    frugal = LanguageModel(replace(CONFIG, activation_checkpointing=True), D_PYRAMID, CORRECTED).train()
    frugal.load_state_dict(plain.state_dict())
    losses, gradients = [], []
    for model in (plain, frugal):
        rows = Rows(TWO_DOCUMENTS)
        rows.tokens.requires_grad_()
        rows.pyramid[1].requires_grad_()
        loss = rows.run(model).square().mean()
        loss.backward()
        losses.append(loss.item())
        gradients.append([rows.tokens.grad, rows.pyramid[1].grad, *(p.grad for p in model.parameters())])
    assert losses[0] == losses[1]
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


FEW_TOKENS = ResamplerConfig(n_tokens=5, d_model=24, n_layers=1, n_heads=4, d_mlp=16, dropout=0.0, init_std=0.3)
SWITCHES = {
    "off": {"enabled": False},
    "levels": {"levels": (1, 2)},
    "other levels": {"levels": (0, 2, 3)},
    "nearest image": {"visible_images": 1},
    "points": {"n_points": 4},
    "dense": {"attention": "dense"},
    "dense, resampled": {"attention": "dense", "transition": FEW_TOKENS},
    "no null slot": {"null_slot": False},
}


def with_weights_of(other, config):
    """Build a model with all weights another model has in the same shape, so that only a switch differs."""
    model = build(config)
    ours, theirs = model.state_dict(), other.state_dict()
    model.load_state_dict({k: theirs[k] if k in theirs and theirs[k].shape == v.shape else v for k, v in ours.items()})
    return model


@pytest.mark.parametrize("change", SWITCHES.values(), ids=SWITCHES.keys())
@torch.no_grad()
def test_each_mmfs_switch_changes_the_computation(change):
    ordinary = build()
    changed = with_weights_of(ordinary, replace(CONFIG, mmfs=replace(CONFIG.mmfs, **change)))
    rows = Rows(TWO_DOCUMENTS)
    difference = (rows.run(ordinary) - rows.run(changed)).abs().amax(-1)[0]
    assert difference[-1] > 1e-4
    assert len(changed.branches) == (0 if change == {"enabled": False} else 2)


def test_a_transition_hands_its_tokens_to_every_layer_and_learns():
    model = build(replace(CONFIG, mmfs=replace(CONFIG.mmfs, attention="dense", transition=FEW_TOKENS)))
    rows = Rows(TWO_DOCUMENTS)
    values = model.project_pyramid(rows.pyramid)
    assert {value.value.shape[1] for value in values} == {FEW_TOKENS.n_tokens}
    rows.run(model).sum().backward()
    assert all(parameter.grad is not None for parameter in model.mmfs_transition.parameters())


def test_sampled_points_need_places_that_a_transition_takes_away():
    with pytest.raises(ConfigError, match=r"set mmfs\.attention: dense"):
        MMFSConfig(transition=FEW_TOKENS)
    with pytest.raises(ConfigError, match=r"image_decoder\.mmfs\.transition"):
        ImageDecoderConfig(mmfs=MMFSConfig(attention="dense", transition=FEW_TOKENS))


@torch.no_grad()
def test_seeing_only_the_nearest_image_hides_the_pyramid_of_the_one_before():
    model = build(replace(CONFIG, mmfs=replace(CONFIG.mmfs, visible_images=1)))
    rows = Rows([BOS, 5, *image(), 6, *image(), 7, EOS])
    reached = []
    model.branches[0].register_forward_hook(lambda _, __, output: reached.append(output))
    rows.run(model)
    for level in rows.pyramid:
        level[0] += 1
    rows.run(model)
    changed = (reached[0] != reached[1]).any(-1)[0]
    first, second = rows.start.tolist()
    assert changed.nonzero().flatten().tolist() == list(range(first + 1, second + 1))


def test_mmfs_stands_in_every_kth_layer():
    for every, expected in ((1, [0, 1, 2, 3]), (2, [0, 2]), (3, [0, 3])):
        model = build(replace(CONFIG, mmfs_every=every))
        assert [i for i, block in enumerate(model.blocks) if block.mmfs is not None] == expected


def test_more_images_than_the_index_table_holds_are_counted_and_the_nearest_stay():
    model = build(replace(CONFIG, mmfs=replace(CONFIG.mmfs, max_images=2)))
    rows = Rows([BOS, *image(), *image(), 7])
    assert int(model.count_hidden(rows.visible)) == 4  # three placeholders of the second image and the last token
    assert rows.run(model).isfinite().all()
    off = build(replace(CONFIG, mmfs=replace(CONFIG.mmfs, enabled=False)))
    assert int(off.count_hidden(rows.visible)) == 0


def test_placeholders_are_replaced_and_image_starts_shifted_by_a_trained_vector():
    model = build()
    rows = Rows(TWO_DOCUMENTS, [BOS, 5, *image()])
    rows.tokens.requires_grad_()
    before = model.embed(rows.ids, rows.tokens, rows.row, rows.start)
    for m in range(len(rows.row)):
        places = before[rows.row[m], rows.start[m] + 1 : rows.start[m] + 1 + N_TOKENS]
        assert torch.equal(places, rows.tokens[m])
    with torch.no_grad():
        model.image_start += 1
    after = model.embed(rows.ids, rows.tokens, rows.row, rows.start)
    assert torch.equal(((after - before) != 0).any(-1), rows.ids == START)
    (gradient,) = torch.autograd.grad(after.sum(), rows.tokens)
    assert (gradient == 1).all()


def test_a_frozen_model_trains_only_what_is_new():
    model = build(replace(CONFIG, frozen=True, allow_frozen_random=True))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {n for n in trained if ".mmfs." not in n} == {"image_start", "text_head.new_weight", "text_head.new_bias"}
    assert {n for n, _ in model.named_parameters() if ".mmfs." in n} <= trained
    rows = Rows(TWO_DOCUMENTS)
    rows.tokens.requires_grad_()
    model.head(rows.run(model)).square().mean().backward()
    assert rows.tokens.grad.abs().sum() > 0
    assert all(p.requires_grad for p in build().parameters()), "a small random model trains everything"


@pytest.mark.parametrize("tie", [False, True], ids=["own rows", "tied"])
def test_the_head_keeps_old_rows_and_adds_two(tie):
    model = build(replace(CONFIG, tie_embeddings=tie, frozen=True, allow_frozen_random=True))
    rows = model.embed_tokens.weight if tie else model.text_head.base.weight
    hidden = torch.randn(5, 32)
    logits = model.head(hidden)
    torch.testing.assert_close(logits[:, :VOCAB], hidden @ rows.T)
    logits.logsumexp(-1).sum().backward()
    assert model.text_head.new_weight.grad.abs().sum() > 0
    assert rows.grad is None
    assert ("text_head.base.weight" in model.state_dict()) != tie
    assert model.head(hidden.bfloat16().float()).dtype == torch.float32


def test_half_precision_keeps_float32_logits_and_rotary_frequencies():
    model = build().to(torch.bfloat16)
    rows = Rows(TWO_DOCUMENTS)
    rows.tokens, rows.pyramid = rows.tokens.bfloat16(), [level.bfloat16() for level in rows.pyramid]
    hidden = rows.run(model)
    assert hidden.dtype == torch.bfloat16
    assert model.head(hidden).dtype == torch.float32
    cos, _ = model._cos_sin(torch.zeros(1, 1, 32), torch.tensor([[97]]))
    expected, _ = build()._cos_sin(torch.zeros(1, 1, 32), torch.tensor([[97]]))
    assert torch.equal(cos, expected)


def test_a_model_can_be_copied_and_rebuilt_from_its_state():
    model = build()
    twin = copy.deepcopy(model)
    other = build(seed=1)
    other.load_state_dict(model.state_dict())
    rows = Rows(TWO_DOCUMENTS)
    with torch.no_grad():
        assert torch.equal(rows.run(model), rows.run(twin))
        assert torch.equal(rows.run(model), rows.run(other))


def test_tokens_need_a_unit_for_offsets():
    with pytest.raises(ConfigError, match=r"language.mmfs.base_size is null"):
        replace(CONFIG, mmfs=replace(CONFIG.mmfs, base_size=None))
