"""The visual tokenizer against numbers of the official implementation (golden C) and its list of tensors."""

import json

import pytest
import torch
from safetensors.torch import load_file
from shared_data import shared_path

from mmi.checkpoints.official_vision import DERIVED_VISION_KEYS, RESAMPLER_KEYS, VISION_KEYS
from mmi.config import AdapterConfig, ResamplerConfig, VisionConfig, VisionTrunkConfig
from mmi.models.positions import sincos_2d
from mmi.models.resampler import Resampler
from mmi.models.visual_tokenizer import VisualTokenizer

PREFIX = "visual_tokenizer."
TINY = VisionConfig(
    trunk=VisionTrunkConfig(d_model=32, n_heads=4, d_mlp=64),
    adapter=AdapterConfig(d_stem=8, n_heads=4),
    resampler=ResamplerConfig(n_tokens=8, d_model=48, n_layers=2, n_heads=4, d_mlp=96),
)


@pytest.fixture(scope="module")
def official_state():
    state = load_file(shared_path("golden/tiny_official_checkpoint_1_language_and_vision.safetensors"))
    return {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}


@pytest.fixture(scope="module")
def run(official_state):
    """Run the tiny official parameters on the golden pictures; keep what passes through the head."""
    tokenizer = VisualTokenizer(TINY, d_language=64, load_weights=False).eval()
    stored = {key: value for key, value in official_state.items() if key not in DERIVED_VISION_KEYS}
    tokenizer.load_state_dict({VISION_KEYS.ours(key): value for key, value in stored.items()})
    golden = load_file(shared_path("golden/c_vision_tokenizer.safetensors"))
    inner = {}

    def keep_head(module, arguments, output):
        inner["encoder_last_hidden_state"], inner["resampler_input"] = arguments[0], output

    tokenizer.token_head.register_forward_hook(keep_head)
    tokenizer.resampler.register_forward_hook(lambda module, arguments, output: inner.update(resampler_output=output))
    return tokenizer, tokenizer(golden["images_u8"]), inner, golden


def test_tokens_and_intermediate_values_match(run):
    _, features, inner, golden = run
    torch.testing.assert_close(features.tokens, golden["vis_embed"], rtol=0, atol=2e-5)
    for name, value in inner.items():
        torch.testing.assert_close(
            value, golden[name], rtol=0, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_feature_maps_match(run):
    _, features, _, golden = run
    for level, size in zip(features.pyramid, (64, 32, 16, 8), strict=True):
        expected = golden[f"feature_{size}"]
        torch.testing.assert_close(level[: expected.shape[0]], expected, rtol=0, atol=1e-4)
    flat = [level.double().flatten(1) for level in features.pyramid]
    sums = torch.stack([torch.stack([level.sum(1), level.square().sum(1)]) for level in flat])
    torch.testing.assert_close(sums, golden["feature_sums"], rtol=1e-6, atol=1e-2)


def test_gradients_match(run):
    tokenizer, features, _, _ = run
    facts = json.loads(shared_path("golden/c_vision_tokenizer.json").read_text())
    loss = features.tokens.square().mean() + 0.1 * sum(level.square().mean() for level in features.pyramid)
    assert loss.item() == pytest.approx(facts["loss_value"], rel=1e-6)
    loss.backward()
    norms = {name: p.grad.norm().item() for name, p in tokenizer.named_parameters() if p.grad is not None}
    expected = {VISION_KEYS.ours(key): norm for key, norm in facts["gradient_norms_per_parameter"].items()}
    assert norms == pytest.approx(expected, rel=2e-5, abs=1e-7)


def test_the_stored_position_table_is_the_one_we_compute(official_state):
    stored = official_state["pos_embed"]
    assert not stored[0].any()
    torch.testing.assert_close(stored[1:], sincos_2d(16, 16, 32), rtol=0, atol=5e-7)


@pytest.mark.parametrize(
    ("listing", "config", "d_language"),
    [
        ("golden/tiny_official_checkpoint_keys.json", TINY, 64),
        ("golden/official_full_size_keys.json", VisionConfig(), 5120),
    ],
    ids=["tiny", "full size"],
)
def test_every_official_tensor_has_its_place_and_shape(listing, config, d_language):
    keys = json.loads(shared_path(listing).read_text())["keys"]
    official = {key.removeprefix(PREFIX): entry[0] for key, entry in keys.items() if key.startswith(PREFIX)}
    stored = {key: shape for key, shape in official.items() if key not in DERIVED_VISION_KEYS}
    with torch.device("meta"):
        ours = VisualTokenizer(config, d_language, load_weights=False).state_dict()
    assert {VISION_KEYS.ours(key): shape for key, shape in stored.items()} == {
        k: list(v.shape) for k, v in ours.items()
    }
    assert all(VISION_KEYS.official(VISION_KEYS.ours(key)) == key for key in stored)
    assert set(official) - set(stored) == set(DERIVED_VISION_KEYS)


def test_the_image_decoders_resampler_has_its_place_too():
    keys = json.loads(shared_path("golden/official_full_size_keys.json").read_text())["keys"]
    prefix = "image_decoder.perceiver_resampler."
    official = {key.removeprefix(prefix): entry[0] for key, entry in keys.items() if key.startswith(prefix)}
    config = ResamplerConfig(
        n_tokens=77, d_model=1024, n_layers=1, n_heads=16, cross_attention_every=1, qk_norm=False, dropout=0.0
    )
    with torch.device("meta"):
        ours = Resampler(config, 5120).state_dict()
    assert {RESAMPLER_KEYS.ours(key): shape for key, shape in official.items()} == {
        key: list(value.shape) for key, value in ours.items()
    }


def test_unknown_names_are_not_renamed():
    assert VISION_KEYS.ours("pos_embed") is None
    assert VISION_KEYS.ours("encoder.vision_model.adapter_spm.fc9.weight") is None
    assert VISION_KEYS.official("trunk.layers.x.mlp.fc1.weight") is None
