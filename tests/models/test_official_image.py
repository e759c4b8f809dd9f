from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from shared_data import shared_path

from mmi.checkpoints.official_image import convert_image_tensors, image_key, is_image_key, official_image_key
from mmi.config import CodecConfig, ConfigError, ImageDecoderConfig, MMFSConfig, ResamplerConfig, UNetConfig
from mmi.models.image_decoder import ImageDecoder
from mmi.models.spatial_mmfs import PreviousImages


def config_of(official: dict) -> ImageDecoderConfig:
    """Our numbers of the tiny official model."""
    unet, vae, resampler = official["unet"], official["vae"], official["img_perceiver"]
    return ImageDecoderConfig(
        image_size=official["image_size"],
        unet=UNetConfig(
            sample_size=official["image_decoder_mmfs"]["pos_embed_grid"],
            block_channels=tuple(unet["block_out_channels"]),
            attention_heads=tuple(unet["attention_head_dim"]),
            norm_groups=unet["norm_num_groups"],
            d_condition=unet["cross_attention_dim"],
        ),
        codec=CodecConfig(
            block_channels=tuple(vae["block_out_channels"]),
            layers_per_block=vae["layers_per_block"],
            norm_groups=vae["norm_num_groups"],
        ),
        resampler=ResamplerConfig(
            n_tokens=resampler["num_queries"],
            d_model=resampler["hidden_size"],
            n_layers=resampler["num_hidden_layers"],
            n_heads=resampler["num_attention_heads"],
            d_mlp=resampler["intermediate_size"],
            cross_attention_every=1,
            qk_norm=False,
            dropout=0.0,
        ),
        mmfs=MMFSConfig(
            d_inner=official["mmfs_img_attn_dim"],
            levels=(0, 1, 2, 3),
            base_size=None,
            max_images=10,
            offset_init=1.0,
            train_null_value=False,
        ),
    )


@pytest.fixture(scope="module")
def keys() -> dict:
    return json.loads(shared_path("golden/tiny_official_checkpoint_keys.json").read_text())


@pytest.fixture(scope="module")
def official(keys) -> dict[str, torch.Tensor]:
    tensors = {}
    for file in keys["files"]:
        tensors |= load_file(shared_path(f"golden/{file}"))
    return tensors


@pytest.fixture(scope="module")
def decoder(keys) -> ImageDecoder:
    return ImageDecoder(config_of(keys["config"]), 64, 32, load_weights=False).eval()


def n_skips(decoder: ImageDecoder) -> int:
    return len(decoder.unet.mmfs) - 1


def test_every_official_image_tensor_is_used_once_and_every_parameter_is_filled(official, decoder):
    converted = convert_image_tensors(official, decoder.config, n_skips(decoder))
    ours = decoder.state_dict()
    assert converted.unknown == ()
    assert {k: v.shape for k, v in converted.parameters.items()} == {k: v.shape for k, v in ours.items()}
    tables = [k for k in official if k.startswith("image_decoder.") and k.endswith(".pos_embed")]
    assert len(tables) == 13
    n_image = sum(is_image_key(k) for k in official)
    assert len(converted.parameters) + len(tables) == n_image
    decoder.load_state_dict(converted.parameters, strict=True)


def test_only_dead_attention_outputs_and_computed_tables_are_left_over(official, decoder):
    converted = convert_image_tensors(official, decoder.config, n_skips(decoder))
    tables = {name for name in converted.extras if name.endswith(".pos_embed")}
    assert (len(tables), len(converted.extras) - len(tables)) == (13, 26)
    name = "image_decoder.decoder.mmfs_module.mmfs_down_blocks.3.mmfs.attention_weights.weight"
    used = converted.parameters["unet.mmfs.3.attention.attention_weights.weight"].unflatten(0, (16, 4, 8))
    dead = converted.extras[name].unflatten(0, (16, 4, 1))
    assert torch.equal(torch.cat([used, dead], dim=2).flatten(0, 2), official[name])


def test_official_names_are_found_back(official, decoder):
    for name in filter(is_image_key, official):
        ours = image_key(name, n_skips(decoder))
        if not name.endswith(".pos_embed"):
            assert ours is not None
            assert official_image_key(ours, n_skips(decoder)) == name


def test_old_names_of_the_autoencoders_attention_are_understood():
    old = "image_decoder.decoder.vae.decoder.mid_block.attentions.0."
    new = "codec.vae.decoder.mid_block.attentions.0."
    for theirs, ours in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
        assert image_key(f"{old}{theirs}.weight", 12) == f"{new}{ours}.weight"
    assert image_key(f"{old}group_norm.weight", 12) == f"{new}group_norm.weight"


def test_what_the_official_code_trains_is_trainable_here_and_the_rest_frozen(keys, decoder):
    ours = dict(decoder.named_parameters())
    for name, (_, _, _, state, _) in keys["keys"].items():
        if is_image_key(name) and not name.endswith(".pos_embed"):
            assert ours[image_key(name, n_skips(decoder))].requires_grad == (state == "trained"), name


def test_a_changed_position_table_or_point_count_is_refused(official, decoder):
    name = "image_decoder.decoder.mmfs_module.mmfs_mid_block.pos_embed"
    with pytest.raises(ConfigError, match=r"mmfs_mid_block.pos_embed differs"):
        convert_image_tensors({name: official[name] + 0.1}, decoder.config, 12)
    name = "image_decoder.decoder.mmfs_module.mmfs_mid_block.mmfs.attention_weights.bias"
    with pytest.raises(ConfigError, match=r"has 575 outputs; .* needs 576"):
        convert_image_tensors({name: official[name][:575]}, decoder.config, 12)


def test_the_converted_model_runs_and_uses_every_branch(official, decoder):
    decoder.load_state_dict(convert_image_tensors(official, decoder.config, 12).parameters)
    generator = torch.Generator().manual_seed(0)
    pyramid = [torch.randn(1, 32, s, s, generator=generator) for s in (64, 32, 16, 8)]
    values = decoder.project_pyramid(pyramid)
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    condition = decoder.condition(torch.randn(1, 5, 64, generator=generator), torch.ones(1, 5, dtype=torch.bool))
    time = torch.tensor([500])
    table, visible = torch.tensor([[0]]), torch.tensor([[True]])
    with torch.no_grad():
        seen = decoder.unet(latents, time, condition, PreviousImages(values, table, visible))
        unseen = decoder.unet(latents, time, condition, PreviousImages(values, table, ~visible))
    assert torch.isfinite(seen).all()
    assert (seen - unseen).abs().max() > 1e-3


def test_the_full_size_official_checkpoint_fits_the_default_configuration():
    full = json.loads(shared_path("golden/official_full_size_keys.json").read_text())["keys"]
    with torch.device("meta"):
        decoder = ImageDecoder(ImageDecoderConfig(), 5120, 1024, load_weights=False)
        tensors = {k: torch.empty(v[0]) for k, v in full.items() if is_image_key(k) and not k.endswith(".pos_embed")}
    converted = convert_image_tensors(tensors, decoder.config, 12)
    assert converted.unknown == ()
    assert {k: v.shape for k, v in converted.parameters.items()} == {
        k: v.shape for k, v in decoder.state_dict().items()
    }
