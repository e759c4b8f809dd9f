"""The language model against numbers of the official implementation (golden D) and its list of tensors."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from shared_data import shared_path
from torch.nn import functional as F

from mmi.checkpoints.official_language import (
    convert_language_tensors,
    is_language_key,
    language_key,
    official_language_key,
    restore_language_tensors,
)
from mmi.checkpoints.official_vision import DERIVED_VISION_KEYS, VISION_KEYS
from mmi.config import (
    AdapterConfig,
    CompatConfig,
    ConfigError,
    LanguageConfig,
    MMFSConfig,
    ResamplerConfig,
    VisionConfig,
    VisionTrunkConfig,
)
from mmi.models.language_model import ImageContext, LanguageModel
from mmi.models.visibility import context_starts, image_slots, slot_values, visible_images
from mmi.models.visual_tokenizer import VisualTokenizer

OFFICIAL = CompatConfig.of("official")
VISION = VisionConfig(
    trunk=VisionTrunkConfig(d_model=32, n_heads=4, d_mlp=64),
    adapter=AdapterConfig(d_stem=8, n_heads=4),
    resampler=ResamplerConfig(n_tokens=8, d_model=48, n_layers=2, n_heads=4, d_mlp=96),
)
TINY = LanguageConfig(
    vocab_size=96,
    d_model=64,
    n_layers=8,
    n_heads=4,
    n_kv_heads=4,
    d_head=16,
    d_mlp=128,
    max_positions=256,
    pad_token_id=95,
    mmfs=MMFSConfig(d_inner=32),
)
VISION_PREFIX = "visual_tokenizer."


@pytest.fixture(scope="module")
def official_state():
    return load_file(shared_path("golden/tiny_official_checkpoint_1_language_and_vision.safetensors"))


@pytest.fixture(scope="module")
def golden():
    return load_file(shared_path("golden/d_multimodal_llm.safetensors"))


@pytest.fixture(scope="module")
def model(official_state):
    model = LanguageModel(TINY, 32, OFFICIAL, load_weights=False).eval()
    model.load_state_dict(convert_language_tensors(official_state, TINY).parameters)
    return model


@pytest.fixture(scope="module")
def features(official_state, golden):
    vision = VisualTokenizer(VISION, 64, load_weights=False).eval()
    stored = {k.removeprefix(VISION_PREFIX): v for k, v in official_state.items() if k.startswith(VISION_PREFIX)}
    vision.load_state_dict({VISION_KEYS.ours(k): v for k, v in stored.items() if k not in DERIVED_VISION_KEYS})
    with torch.no_grad():
        return vision(golden["images_u8"])


@pytest.fixture(scope="module")
def places(golden):
    """Row and start of every image, read off the ids."""
    row, start = torch.nonzero(golden["text_ids"] == TINY.image_start_token_id, as_tuple=True)
    return row, start


@pytest.fixture(scope="module")
def run(model, features, golden, places):
    """Run the model on the golden rows; keep the input of every layer and the output of every MMFS branch."""
    inputs, branches = [], []
    handles = [b.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0])) for b in model.blocks]
    handles += [b.register_forward_hook(lambda _, __, output: branches.append(output)) for b in model.branches]
    row, start = places
    table = image_slots(row, 2)
    visible = visible_images(golden["text_ids"], slot_values(start, table), bos_token_id=1)
    real = golden["attention_mask"].bool()
    with torch.no_grad():
        hidden = model(
            model.embed(golden["text_ids"], golden["vis_embed_in_order"], row, start),
            attention_mask=real,
            document_ids=(golden["text_ids"] == 1).cumsum(1) - 1,
            position_ids=torch.zeros_like(golden["text_ids"]),
            images=ImageContext(model.project_pyramid(features.pyramid), table, visible),
        )
    for handle in handles:
        handle.remove()
    return inputs, branches, hidden, real


def test_placeholders_and_image_starts_are_embedded_as_officially(model, golden, places):
    embeddings = model.embed(golden["text_ids"], golden["vis_embed_in_order"], *places)
    torch.testing.assert_close(embeddings, golden["mm_embeds"], rtol=0, atol=1e-6)


def test_every_token_sees_the_official_images(golden, places):
    row, start = places
    starts = slot_values(start, image_slots(row, 2))
    visible = visible_images(golden["text_ids"], starts, bos_token_id=1)
    real = golden["attention_mask"].bool()
    assert torch.equal(visible[real], golden["cross_attention_mask"].bool()[real])
    assert golden["num_image_per_seq"].tolist() == (starts >= 0).sum(1).tolist()
    bos = context_starts(golden["text_ids"], row, start, bos_token_id=1)
    assert torch.equal(bos, golden["nearest_bos_idxs"])


def test_every_layer_and_branch_gives_the_official_numbers(run, golden):
    inputs, branches, hidden, real = run
    for index, layer_input in enumerate(inputs):
        expected = golden["hidden_states"][index][real]
        torch.testing.assert_close(
            layer_input[real], expected, rtol=0, atol=3e-5, msg=lambda text, i=index: f"layer {i}: {text}"
        )
    for index, branch in zip((0, 4), branches, strict=True):
        torch.testing.assert_close(branch[real], golden[f"mmfs_output_layer_{index}"][real], rtol=0, atol=3e-5)
    torch.testing.assert_close(hidden[real], golden["last_hidden_state"][real], rtol=0, atol=3e-5)


def test_logits_and_losses_are_the_official_ones(run, model, golden):
    _, _, hidden, real = run
    with torch.no_grad():
        logits = model.head(hidden)
    torch.testing.assert_close(logits[real], golden["logits"][real], rtol=0, atol=1e-4)
    facts = json.loads(shared_path("golden/d_multimodal_llm.json").read_text())
    # The "given" labels stand on padding too, where nothing is to be compared.
    for name in ("plain", "prompt_offset", "skip_text_without_image"):
        labels = golden[f"labels_{name}"]
        loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels, ignore_index=-100)
        assert loss.item() == pytest.approx(facts["losses"][name], abs=2e-5), name


def test_conversion_uses_every_tensor_and_can_be_undone(official_state):
    language = {name: tensor for name, tensor in official_state.items() if is_language_key(name)}
    converted = convert_language_tensors(language, TINY)
    assert not converted.unknown
    restored = restore_language_tensors(converted.parameters, converted.extras, TINY)
    assert restored.keys() == language.keys()
    for name, tensor in language.items():
        # The two halves of a new row's bias are near +-100, where float32 steps are 8e-6.
        tolerance = 1e-5 if name.startswith("text_decoder.head_new") else 0
        torch.testing.assert_close(restored[name], tensor, rtol=0, atol=tolerance)


def test_full_size_tensors_have_their_place_and_shape():
    keys = json.loads(shared_path("golden/official_full_size_keys.json").read_text())["keys"]
    language = {name: entry[0] for name, entry in keys.items() if is_language_key(name)}
    official = {name: torch.empty(shape, device="meta") for name, shape in language.items()}
    converted = convert_language_tensors(official, LanguageConfig())
    with torch.device("meta"):
        ours = LanguageModel(LanguageConfig(), 1024, OFFICIAL, load_weights=False).state_dict()
    assert not converted.unknown
    assert {k: v.shape for k, v in converted.parameters.items()} == {k: v.shape for k, v in ours.items()}
    renamed = [name for name in language if language_key(name)]
    assert len(renamed) == len(language) - 6
    assert all(official_language_key(language_key(name) or "") == name for name in renamed)


def test_wrong_sizes_and_missing_halves_are_named(official_state):
    language = {name: tensor for name, tensor in official_state.items() if is_language_key(name)}
    with pytest.raises(ConfigError, match=r"embed_tokens.weight has 98 rows; language.vocab_size 97"):
        convert_language_tensors(language, LanguageConfig(vocab_size=97, pad_token_id=0))
    two_levels = replace(TINY, mmfs=replace(TINY.mmfs, levels=(1, 2)))
    with pytest.raises(ConfigError, match=r"has 432 outputs; language.mmfs with 16 heads, 2 levels"):
        convert_language_tensors(language, two_levels)
    del language["text_decoder.head_new.bias"]
    with pytest.raises(ConfigError, match=r"lacks text_decoder.head_new.bias"):
        convert_language_tensors(language, TINY)
