"""The packaged configs have the numbers that the published models state in their own ``config.json``."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from mmi.commands.settings import network_settings
from mmi.compose import compose
from mmi.config import LanguageConfig, RopeScalingConfig
from mmi.config.assets import find_asset
from mmi.models.clip_weights import transformers_config
from mmi.models.codec import _library_numbers as codec_numbers
from mmi.models.diffusers_weights import check_numbers as check_diffusers_numbers
from mmi.models.diffusers_weights import check_scheduler
from mmi.models.image_sampling import schedule_numbers
from mmi.models.language_backbone import check_numbers, read_numbers
from mmi.models.unet import _library_numbers as unet_numbers

OLD_LLAMA = {
    "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "initializer_range": 0.02, "max_position_embeddings": 2048, "model_type": "llama", "pad_token_id": 0,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "torch_dtype": "float16", "vocab_size": 32000,
}  # fmt: skip
VICUNA_13B = OLD_LLAMA | {
    "hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40, "num_hidden_layers": 40,
}  # fmt: skip
OPEN_LLAMA_3B = OLD_LLAMA | {
    "hidden_size": 3200, "intermediate_size": 8640, "num_attention_heads": 32, "num_hidden_layers": 26,
}  # fmt: skip
MISTRAL_7B = {
    "model_type": "mistral", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
    "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": False,
    "vocab_size": 32000, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
QWEN2_5_05B = {
    "model_type": "qwen2", "hidden_act": "silu", "hidden_size": 896, "intermediate_size": 4864,
    "max_position_embeddings": 32768, "max_window_layers": 24, "num_attention_heads": 14, "num_hidden_layers": 24,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "sliding_window": 32768,
    "tie_word_embeddings": True, "use_mrope": False, "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
QWEN3_06B = {
    "model_type": "qwen3", "attention_bias": False, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
    "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28, "num_attention_heads": 16,
    "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-6, "rope_scaling": None,
    "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True, "use_sliding_window": False,
    "vocab_size": 151936,
}  # fmt: skip
LLAMA_32_1B = {
    "model_type": "llama", "attention_bias": False, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
    "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": False, "num_attention_heads": 32,
    "num_hidden_layers": 16, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "tie_word_embeddings": True, "vocab_size": 128256,
}  # fmt: skip


def network(name):
    return network_settings(compose([f"model/{name}.yaml"]))[0]


def published(tmp_path, tree):
    (tmp_path / "config.json").write_text(json.dumps(tree))
    return read_numbers("published", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "tree"), [("mm_interleaved_13b", VICUNA_13B), ("ablation_3b", OPEN_LLAMA_3B)], ids=["13b", "3b"]
)
def test_language_models_of_the_packaged_configs(name, tree, tmp_path):
    check_numbers(network(name).language, published(tmp_path, tree))
    asset = find_asset(network(name).language.weights.removeprefix("asset:"))
    assert all(tree[key] == value for key, value in asset.config["config.json"].items())


@pytest.mark.parametrize(
    ("tree", "config"),
    [
        (
            MISTRAL_7B,
            LanguageConfig(
                family="mistral", vocab_size=32000, d_model=4096, n_layers=32, n_heads=32, n_kv_heads=8, d_head=128,
                d_mlp=14336, max_positions=32768, sliding_window=4096, norm_eps=1e-5,
            ),
        ),
        (
            QWEN2_5_05B,
            LanguageConfig(
                family="qwen2", vocab_size=151936, d_model=896, n_layers=24, n_heads=14, n_kv_heads=2, d_head=64,
                d_mlp=4864, max_positions=32768, rope_theta=1e6, tie_embeddings=True,
            ),
        ),
        (
            QWEN3_06B,
            LanguageConfig(
                family="qwen3", vocab_size=151936, d_model=1024, n_layers=28, n_heads=16, n_kv_heads=8, d_head=128,
                d_mlp=3072, max_positions=40960, rope_theta=1e6, tie_embeddings=True,
            ),
        ),
        (
            LLAMA_32_1B,
            LanguageConfig(
                vocab_size=128256, d_model=2048, n_layers=16, n_heads=32, n_kv_heads=8, d_head=64, d_mlp=8192,
                max_positions=131072, rope_theta=5e5, norm_eps=1e-5, tie_embeddings=True,
                rope_scaling=RopeScalingConfig(factor=32.0),
            ),
        ),
    ],
    ids=["mistral", "qwen2", "qwen3", "llama3"],
)  # fmt: skip
def test_other_published_language_models_can_be_said_in_our_numbers(tree, config, tmp_path):
    check_numbers(config, published(tmp_path, tree))


@pytest.mark.parametrize("name", ["mm_interleaved_13b", "ablation_3b"])
def test_the_vision_trunk_of_the_packaged_configs(name):
    ours = transformers_config(network(name).vision.trunk).to_dict()
    theirs = find_asset("clip-vit-l-14").config["config.json"]["vision_config"]
    rest = {"num_attention_heads": 16, "intermediate_size": 4096, "layer_norm_eps": 1e-5}
    assert {key: ours[key] for key in {**theirs, **rest}} == {**theirs, **rest}


STABLE_DIFFUSION = {
    "act_fn": "silu", "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": False,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "downsample_padding": 1,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2, "mid_block_scale_factor": 1,
    "norm_eps": 1e-5, "norm_num_groups": 32, "out_channels": 4,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip
UNETS = {
    "mm_interleaved_13b": STABLE_DIFFUSION
    | {
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "sample_size": 64,
        "use_linear_projection": True,
    },
    "ablation_3b": STABLE_DIFFUSION | {"attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 32},
}
VAE = {
    "act_fn": "silu", "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3, "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3,
    "sample_size": 768, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
SCHEDULE = {
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
    "prediction_type": "epsilon", "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", UNETS)
def test_the_diffusion_models_of_the_packaged_configs(name, tmp_path):
    decoder = network(name).image_decoder
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel.from_config(UNETS[name]), AutoencoderKL.from_config(VAE)
    check_diffusers_numbers(
        unet, unet_numbers(decoder.unet), "there", "unet", ignore=("sample_size", "upcast_attention")
    )
    check_diffusers_numbers(vae, codec_numbers(decoder.codec), "there", "codec", ignore=("sample_size", "force_upcast"))
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULE))
    check_scheduler(str(tmp_path), schedule_numbers(decoder.diffusion), "diffusion")
    asset = find_asset(decoder.unet.weights.removeprefix("asset:"))
    assert all(UNETS[name][key] == value for key, value in asset.config["unet/config.json"].items())
