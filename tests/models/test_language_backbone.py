"""Numbers, weights and layers of the library's model: what is accepted and what is refused, in one sentence."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from mmi.config import CompatConfig, ConfigError, LanguageConfig, MMFSConfig, RopeScalingConfig
from mmi.models.decoder_block import DecoderBlock
from mmi.models.language_backbone import library_config, load_backbone
from mmi.models.language_model import LanguageModel

CONFIG = LanguageConfig(
    frozen=False,
    vocab_size=40,
    d_model=32,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    d_head=8,
    d_mlp=48,
    max_positions=64,
    pad_token_id=0,
    mmfs=MMFSConfig(n_heads=4, n_points=2, d_inner=16, base_size=4),
)


def build(config):
    return LanguageModel(config, 12, CompatConfig.of("corrected"))


def save(config, folder, **changes):
    library = library_config(config)
    for name, value in changes.items():
        setattr(library, name, value)
    AutoModelForCausalLM.from_config(library).save_pretrained(folder)
    return replace(config, weights=str(folder), frozen=True)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_weights_of_a_folder_are_read_and_frozen(family, tmp_path):
    config = save(replace(CONFIG, family=family), tmp_path)
    model = build(config)
    library = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(model.embed_tokens.weight, library.get_input_embeddings().weight)
    ours, theirs = model.blocks[1].layer.state_dict(), library.model.layers[1].state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not any(p.requires_grad for p in model.blocks[1].layer.parameters())


def test_numbers_that_differ_from_the_folder_are_all_named(tmp_path):
    config = save(CONFIG, tmp_path)
    with pytest.raises(ConfigError) as error:
        build(replace(config, n_kv_heads=4, rope_theta=5e5))
    message = str(error.value)
    assert "num_key_value_heads 2 against 4 (language.n_kv_heads)" in message
    assert "rope_theta" in message
    assert "vocab_size" not in message


def test_a_number_we_have_no_setting_for_is_refused(tmp_path):
    config = save(CONFIG, tmp_path, hidden_act="gelu")
    with pytest.raises(ConfigError, match=r"hidden_act 'gelu' against 'silu' \(no setting\)"):
        build(config)


def test_stretched_rotary_angles_are_a_setting(tmp_path):
    scaling = RopeScalingConfig(kind="llama3", factor=4.0, original_max_positions=32)
    config = save(replace(CONFIG, rope_scaling=scaling), tmp_path)
    stretched, plain = build(config), build(replace(CONFIG, frozen=False))
    hidden, positions = torch.zeros(1, 1, 32), torch.tensor([[60]])
    assert not torch.equal(stretched._cos_sin(hidden, positions)[0], plain._cos_sin(hidden, positions)[0])
    with pytest.raises(ConfigError, match=r"language\.rope_theta and rope_scaling"):
        build(replace(config, rope_scaling=None))


def test_a_missing_folder_is_named():
    with pytest.raises(ConfigError, match=r"language.weights /nowhere/model cannot be read"):
        build(replace(CONFIG, weights="/nowhere/model"))


def test_an_incomplete_folder_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    config = save(CONFIG, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 1 tensors the model needs, such as model.norm.weight"):
        build(config)


def test_freezing_random_weights_must_be_asked_for():
    with pytest.raises(ConfigError, match=r"language.frozen is true but language.weights is null"):
        build(replace(CONFIG, frozen=True))
    build(replace(CONFIG, frozen=True, allow_frozen_random=True))
    LanguageModel(replace(CONFIG, frozen=True), 12, CompatConfig.of("corrected"), load_weights=False)


def test_an_absent_attention_backend_is_named():
    with pytest.raises(ConfigError, match=r"language.attention_backend 'no_such_backend'"):
        build(replace(CONFIG, attention_backend="no_such_backend"))


def test_a_layer_with_other_norms_is_refused():
    library = Gemma2Config(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        pad_token_id=0,
    )
    layer = Gemma2ForCausalLM(library).model.layers[0]
    with pytest.raises(ConfigError, match=r"Gemma2DecoderLayer holds .*pre_feedforward_layernorm"):
        DecoderBlock(layer, None)


def test_unknown_families_are_refused():
    with pytest.raises(ConfigError, match=r"language.family is 'gemma'"):
        replace(CONFIG, family="gemma")


def test_a_layer_that_does_more_than_its_four_parts_is_found_by_comparing(monkeypatch):
    """Granite has the same parts but shrinks what they add: the layout looks right and the numbers are wrong."""
    numbers = library_config(CONFIG).to_dict()
    granite = AutoConfig.for_model("granite", **{k: v for k, v in numbers.items() if k != "model_type"})
    granite.residual_multiplier = 0.5
    monkeypatch.setattr("mmi.models.language_backbone.library_config", lambda config: granite)
    with pytest.raises(ConfigError, match=r"with closed gates our layers give other hidden states"):
        build(CONFIG)


def test_the_library_model_is_not_kept():
    parts = load_backbone(CONFIG)
    model = build(CONFIG)
    assert not any(type(m).__name__.endswith("ForCausalLM") for m in model.modules())
    assert parts.expected is not None
    assert not parts.expected.requires_grad


def test_building_does_not_depend_on_the_self_check_drawing_numbers():
    torch.manual_seed(3)
    build(CONFIG)
    after = torch.rand(())
    torch.manual_seed(3)
    model = load_backbone(CONFIG)
    assert model.probe is not None
    torch.manual_seed(3)
    build(CONFIG)
    assert torch.equal(after, torch.rand(()))
