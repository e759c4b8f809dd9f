"""Tiny random models, saved by the libraries themselves, load through the public config; others are one sentence."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from mmi.commands.settings import network_settings
from mmi.compose import compose
from mmi.config import ConfigError
from mmi.models.build import build_network

SHAPE = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "pad_token_id": None,
}  # fmt: skip
OURS = {
    "vocab_size": 40, "d_model": 32, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "d_head": 8, "d_mlp": 48,
    "max_positions": 64, "norm_eps": 1e-5, "pad_token_id": 0, "mmfs_every": 2,
    "mmfs": {"n_heads": 4, "n_points": 2, "d_inner": 16, "base_size": 4},
}  # fmt: skip
VISION = {
    "image_size": 32,
    "trunk": {
        "frozen": False,
        "image_size": 32,
        "patch_size": 8,
        "d_model": 24,
        "n_layers": 4,
        "n_heads": 3,
        "d_mlp": 48,
    },
    "adapter": {"d_stem": 4, "n_heads": 3, "n_points": 2},
    "resampler": {"n_tokens": 3, "d_model": 12, "n_layers": 2, "n_heads": 2, "d_mlp": 16},
}
CLIP = {
    "image_size": 32, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3,
    "intermediate_size": 48, "hidden_act": "quick_gelu",
}  # fmt: skip
LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}

# What the library is told, and what our configuration says of the same model.
LANGUAGE_MODELS = {
    "llama, grouped queries": (LlamaConfig, LlamaForCausalLM, {}, {}),
    "llama, tied embeddings": (
        LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}, {"tie_embeddings": True},
    ),
    "llama, wide heads": (LlamaConfig, LlamaForCausalLM, {"head_dim": 16}, {"d_head": 16}),
    "llama, stretched as llama3": (
        LlamaConfig, LlamaForCausalLM,
        {"rope_parameters": LLAMA3 | {"rope_type": "llama3", "rope_theta": 5e5, "original_max_position_embeddings": 8}},
        {"rope_theta": 5e5, "rope_scaling": {"kind": "llama3", "original_max_positions": 8, **LLAMA3}},
    ),
    "llama, stretched linearly": (
        LlamaConfig, LlamaForCausalLM,
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
        {"rope_scaling": {"kind": "linear", "factor": 2.0}},
    ),
    "mistral, sliding window": (
        MistralConfig, MistralForCausalLM, {"sliding_window": 4}, {"family": "mistral", "sliding_window": 4},
    ),
    "mistral, no window": (MistralConfig, MistralForCausalLM, {"sliding_window": None}, {"family": "mistral"}),
    "qwen2, biases, tied": (
        Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}, {"family": "qwen2", "tie_embeddings": True},
    ),
    "qwen2, window in later layers": (
        Qwen2Config, Qwen2ForCausalLM,
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2},
        {"family": "qwen2", "sliding_window": 4, "full_attention_layers": 2},
    ),
    "qwen3, norms of queries and keys": (
        Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}, {"family": "qwen3", "d_head": 16},
    ),
}  # fmt: skip


def network(tmp_path, **parts):
    """Build a network from a config file, as any command does."""
    file = tmp_path / "network.yaml"
    tree = {"vision": VISION, "language": OURS, "image_decoder": {"enabled": False}} | parts
    file.write_text(yaml.safe_dump({"model": {"network": tree}}))
    return build_network(*network_settings(compose([file])))


def stir(model):
    """Give every parameter, norms and biases included, a value of its own."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture
def language(tmp_path):
    """Save a language model of the library and return its folder, as text."""

    def save(config_class, model_class, **changes):
        stir(model_class(config_class(**SHAPE | changes))).save_pretrained(tmp_path / "language")
        return str(tmp_path / "language")

    return save


@pytest.mark.parametrize("case", LANGUAGE_MODELS)
def test_language_models_give_the_hidden_states_and_logits_of_their_library(case, language, tmp_path):
    config_class, model_class, theirs, ours = LANGUAGE_MODELS[case]
    folder = language(config_class, model_class, **theirs)
    model = network(tmp_path, language=OURS | ours | {"weights": folder}).language_model.eval()
    library = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.randint(40, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = model(model.embed_text(ids))
        expected = library(ids, output_hidden_states=True)
        torch.testing.assert_close(hidden, expected.hidden_states[-1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.head(hidden)[..., :40], expected.logits, rtol=1e-4, atol=1e-5)
    assert not any(p.requires_grad for block in model.blocks for p in block.layer.parameters())


def rewrite(folder, **changes):
    """Change ``config.json`` as a file of an older or other program would have it; ``...`` removes a key."""
    path = f"{folder}/config.json"
    with open(path) as file:
        tree = json.load(file) | changes
    with open(path, "w") as file:
        json.dump({key: value for key, value in tree.items() if value is not ...}, file)


def test_config_files_of_older_library_versions_are_understood(language, tmp_path):
    stretched = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    folder = language(LlamaConfig, LlamaForCausalLM, rope_parameters=stretched)
    old = {"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    rewrite(folder, rope_parameters=..., head_dim=..., mlp_bias=..., dtype=..., torch_dtype="float32", **old)
    network(tmp_path, language=OURS | {"weights": folder, "rope_scaling": {"kind": "linear", "factor": 2.0}})


def test_weights_in_shards_and_as_bin_are_read(language, tmp_path):
    folder = language(LlamaConfig, LlamaForCausalLM)
    whole = network(tmp_path, language=OURS | {"weights": folder}).language_model.state_dict()
    LlamaForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    tensors = load_file(f"{folder}/model.safetensors")
    (tmp_path / "language" / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "language" / "pytorch_model.bin")
    for other in (folder, str(tmp_path / "shards")):
        state = network(tmp_path, language=OURS | {"weights": other}).language_model.state_dict()
        assert all(torch.equal(whole[name], state[name]) for name in whole if ".layer." in name)


@pytest.mark.parametrize(
    ("config_class", "model_class"), [(Olmo2Config, Olmo2ForCausalLM), (Gemma2Config, Gemma2ForCausalLM)]
)
def test_layers_with_other_norms_are_refused_in_one_sentence(config_class, model_class, language, tmp_path):
    folder = language(config_class, model_class)
    with pytest.raises(ConfigError, match=r"is a model of type '(olmo2|gemma2)', whose decoder layers .* or qwen3\.$"):
        network(tmp_path, language=OURS | {"weights": folder})


def test_layers_with_other_norms_under_a_known_name_are_refused_too(language, tmp_path):
    folder = language(LlamaConfig, LlamaForCausalLM)
    tensors = load_file(f"{folder}/model.safetensors")
    tensors["model.layers.0.post_feedforward_layernorm.weight"] = torch.ones(32)
    save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"holds 1 tensors .* such as model\.layers\.0\.post_feedforward_layernorm"):
        network(tmp_path, language=OURS | {"weights": folder})


@pytest.mark.parametrize("module", ["self_attn.rotary_emb.inv_freq", "mlp.down_proj.bias"])
def test_stored_rotary_frequencies_are_no_reason_to_refuse_a_folder(module, language, tmp_path):
    folder = language(LlamaConfig, LlamaForCausalLM)
    tensors = load_file(f"{folder}/model.safetensors") | {f"model.layers.0.{module}": torch.ones(4)}
    save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
    if "inv_freq" in module:
        network(tmp_path, language=OURS | {"weights": folder})
    else:
        with pytest.raises(ConfigError, match=r"down_proj\.bias"):
            network(tmp_path, language=OURS | {"weights": folder})


def test_code_in_a_folder_is_not_run_and_not_offered(tmp_path, monkeypatch):
    def ask(*_):
        raise AssertionError("the library asks whether to run the code of a stranger")

    monkeypatch.setattr("builtins.input", ask)
    mark = tmp_path / "code_was_run"
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Own: pass\n")
    maps = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    for kind in ("own", "olmo2", "llama"):
        (folder / "config.json").write_text(json.dumps({"model_type": kind, "auto_map": maps}))
        with pytest.raises(ConfigError) as error:
            network(tmp_path, language=OURS | {"weights": str(folder)})
        assert "\n" not in str(error.value)
        assert ("code from a folder is never run" in str(error.value)) == (kind != "llama")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("other shape", r"has 1 tensors of another shape, such as model\.embed_tokens\.weight \[48, 32\] against"),
        ("cut off", r"no readable weights \(SafetensorError"),
        ("not only tensors", r"no readable weights \(UnpicklingError"),
        ("no weights", "no readable weights"),
        ("quantised", "is quantised"),
        ("no json", "cannot be read"),
    ],
)
def test_damaged_folders_are_one_sentence(damage, words, language, tmp_path):
    folder = language(LlamaConfig, LlamaForCausalLM)
    weights = tmp_path / "language" / "model.safetensors"
    if damage == "other shape":
        save_file(load_file(weights) | {"model.embed_tokens.weight": torch.zeros(48, 32)}, weights, {"format": "pt"})
    elif damage == "cut off":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "quantised":
        rewrite(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    elif damage == "no json":
        (tmp_path / "language" / "config.json").write_text("{")
    else:
        weights.unlink()
        if damage == "not only tensors":
            torch.save({"model.norm.weight": tmp_path}, tmp_path / "language" / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=words) as error:
        network(tmp_path, language=OURS | {"weights": folder})
    assert "\n" not in str(error.value)


# Stable Diffusion

UNET = {
    "sample_size": 8, "in_channels": 4, "block_channels": [16, 32], "layers_per_block": 1, "attention_heads": [2, 4],
    "down_blocks": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_blocks": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "d_condition": 20, "norm_groups": 4,
}  # fmt: skip
DECODER = {
    "image_size": 16,
    "codec": {"factor": 2, "block_channels": [8, 16], "layers_per_block": 1, "norm_groups": 4},
    "resampler": {"n_tokens": 7, "d_model": 20, "n_layers": 1, "n_heads": 2, "d_mlp": 16, "cross_attention_every": 1},
    "mmfs": {"n_heads": 2, "n_points": 2, "d_inner": 16, "levels": [0, 1, 2, 3], "base_size": None, "max_images": 4},
}


def diffusion_folder(folder, **scheduler):
    """Save what a Stable Diffusion pipeline consists of, part by part, as the library does."""
    unet = stir(
        UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=(2, 4), cross_attention_dim=20, norm_num_groups=4, use_linear_projection=True,
        )
    )  # fmt: skip
    vae = stir(
        AutoencoderKL(
            block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, layers_per_block=1,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, sample_size=16,
        )
    )  # fmt: skip
    schedule = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012} | scheduler
    DDPMScheduler(**schedule).save_pretrained(folder / "scheduler")
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    text = CLIPTextConfig(
        vocab_size=6, hidden_size=20, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=7, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    stir(CLIPTextModel(text)).save_pretrained(folder / "text_encoder")
    (folder / "tokenizer").mkdir()
    words = ["<|startoftext|>", "<|endoftext|>", "a", "b", "a</w>", "b</w>"]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    return unet, vae


def decoder_of(weights):
    return DECODER | {"unet": UNET | {"weights": weights}, "codec": DECODER["codec"] | {"weights": weights}}


def test_a_stable_diffusion_folder_gives_unet_autoencoder_schedule_and_the_empty_prompt(tmp_path):
    unet, vae = diffusion_folder(tmp_path / "sd")
    config = decoder_of(str(tmp_path / "sd"))
    decoder = network(tmp_path, language=OURS | {"frozen": False}, image_decoder=config).image_decoder.eval()
    latents, condition, steps = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 20), torch.tensor([3, 900])
    with torch.no_grad():
        expected = unet(latents, steps, condition).sample
        torch.testing.assert_close(decoder.unet(latents, steps, condition), expected, rtol=1e-4, atol=1e-5)
        images = torch.rand(1, 3, 16, 16) * 2 - 1
        mean = vae.encode(images).latent_dist.mean * 0.18215
        torch.testing.assert_close(decoder.codec.encode(images, torch.zeros(1, 4, 8, 8)), mean, rtol=1e-4, atol=1e-5)
    prompt = CLIPTextModel.from_pretrained(tmp_path / "sd" / "text_encoder")(torch.tensor([[0, 1, 1, 1, 1, 1, 1]]))
    torch.testing.assert_close(decoder.unconditional.detach(), prompt.last_hidden_state.detach())


def test_weights_for_another_schedule_are_refused(tmp_path):
    diffusion_folder(tmp_path / "sd", prediction_type="v_prediction")
    with pytest.raises(ConfigError, match="prediction_type is v_prediction there and epsilon here"):
        network(tmp_path, language=OURS | {"frozen": False}, image_decoder=decoder_of(str(tmp_path / "sd")))


def test_a_text_encoder_that_cannot_be_read_is_one_sentence(tmp_path):
    diffusion_folder(tmp_path / "sd")
    weights = tmp_path / "sd" / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    config = decoder_of(str(tmp_path / "sd"))
    with pytest.raises(ConfigError, match="text encoder for the empty prompt that cannot be read"):
        network(tmp_path, language=OURS | {"frozen": False}, image_decoder=config)
    save_file({"embeddings.position_ids": torch.zeros(1, 7)}, weights, {"format": "pt"})
    with pytest.raises(ConfigError, match="its text encoder lacks"):
        network(tmp_path, language=OURS | {"frozen": False}, image_decoder=config)


def test_a_clip_folder_gives_the_vision_trunk(tmp_path):
    clip = stir(CLIPVisionModel(CLIPVisionConfig(**CLIP)))
    clip.save_pretrained(tmp_path / "clip")
    trunk = VISION["trunk"] | {"frozen": True, "weights": str(tmp_path / "clip")}
    loaded = network(
        tmp_path, vision=VISION | {"trunk": trunk}, language=OURS | {"frozen": False}
    ).visual_tokenizer.trunk
    pixels = torch.randn(1, 3, 32, 32)
    expected = clip(pixels, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(loaded(pixels), expected, rtol=0, atol=1e-5)


class RunsOnLoading:
    """What a stranger's pickle can hold: loading it without care runs a command."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("part", ["language", "clip", "open_clip", "unet", "vae", "text_encoder"])
def test_pickles_that_run_code_are_refused_unread(part, language, tmp_path):
    mark, sd = tmp_path / "code_was_run", tmp_path / "sd"
    diffusion_folder(sd)
    CLIPVisionModel(CLIPVisionConfig(**CLIP)).save_pretrained(tmp_path / "clip")
    place = {
        "language": (Path(language(LlamaConfig, LlamaForCausalLM)), "model.safetensors", "pytorch_model.bin"),
        "clip": (tmp_path / "clip", "model.safetensors", "pytorch_model.bin"),
        "open_clip": (tmp_path, "network.yaml", "tower.pt"),
    }
    diffusion = (sd / part, "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
    place |= {
        "unet": diffusion,
        "vae": diffusion,
        "text_encoder": (sd / part, "model.safetensors", "pytorch_model.bin"),
    }
    folder, safe, unsafe = place[part]
    (folder / safe).unlink(missing_ok=True)
    torch.save({"weight": RunsOnLoading(mark)}, folder / unsafe)
    trunk = {"clip": str(tmp_path / "clip"), "open_clip": str(tmp_path / "tower.pt")}.get(part)
    tree = {
        "vision": VISION | {"trunk": VISION["trunk"] | {"weights": trunk}},
        "language": OURS | ({"weights": str(folder)} if part == "language" else {"frozen": False}),
        "image_decoder": decoder_of(str(sd)) if folder.parent == sd else {"enabled": False},
    }
    with pytest.raises(ConfigError) as error:
        network(tmp_path, **tree)
    assert "\n" not in str(error.value)
    assert not mark.exists()
    torch.load(folder / unsafe, weights_only=False)
    assert mark.exists()  # without care it would have


def put_into_hub_cache(cache: Path, repository: str, folder: Path) -> None:
    """Lay a folder out as the hub's library leaves it after a download."""
    entry = cache / f"models--{repository.replace('/', '--')}"
    (entry / "refs").mkdir(parents=True)
    (entry / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, entry / "snapshots" / ("0" * 40))


def test_hub_ids_give_what_their_folders_give(language, tmp_path):
    diffusion_folder(tmp_path / "sd")
    language(MistralConfig, MistralForCausalLM, sliding_window=4)
    CLIPVisionModel(CLIPVisionConfig(**CLIP)).save_pretrained(tmp_path / "clip")
    for part in ("clip", "language", "sd"):
        put_into_hub_cache(tmp_path / "hub", f"someone/{part}", tmp_path / part)
    for start in (str(tmp_path), "someone"):
        tree = {
            "vision": VISION | {"trunk": VISION["trunk"] | {"frozen": True, "weights": f"{start}/clip"}},
            "language": OURS | {"family": "mistral", "sliding_window": 4, "weights": f"{start}/language"},
            "image_decoder": decoder_of(f"{start}/sd"),
        }
        (tmp_path / f"from_{Path(start).name}.yaml").write_text(yaml.safe_dump({"model": {"network": tree}}))
    # A process of its own, because the hub's library reads its variables when it is imported.
    script = (
        "import sys, torch\n"
        "from mmi.commands.settings import compose, network_settings\n"
        "from mmi.models.build import build_network\n"
        "states = []\n"
        "for file in sys.argv[1:]:\n"
        "    torch.manual_seed(0)\n"
        "    states.append(build_network(*network_settings(compose([file]))).state_dict())\n"
        "assert 'image_decoder.unconditional' in states[0]\n"
        "assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])\n"
    )
    files = sorted(map(str, tmp_path.glob("from_*.yaml")))
    where = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, *files], env=where, capture_output=True, text=True, check=False
    )
    assert len(files) == 2
    assert done.returncode == 0, done.stderr
