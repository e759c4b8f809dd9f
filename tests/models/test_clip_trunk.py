from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel

from mmi.config import ConfigError, VisionTrunkConfig
from mmi.models.clip_trunk import ClipTrunk

SMALL = VisionTrunkConfig(
    frozen=False, image_size=16, patch_size=4, d_model=24, n_layers=4, n_heads=3, d_mlp=40, activation="gelu"
)


def library_config(**changes):
    numbers = {
        "image_size": 16, "patch_size": 4, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3,
        "intermediate_size": 40, "hidden_act": "gelu",
    }  # fmt: skip
    return CLIPVisionConfig(**(numbers | changes))


def library_folder(tmp_path, **changes):
    CLIPVisionModel(library_config(**changes)).save_pretrained(tmp_path / "clip")
    return str(tmp_path / "clip")


def before_last_norm(clip, pixels):
    return clip(pixels, output_hidden_states=True).hidden_states[-1]


def test_trunk_equals_the_library_before_its_last_norm(tmp_path):
    folder = library_folder(tmp_path)
    trunk, clip = ClipTrunk(replace(SMALL, weights=folder)), CLIPVisionModel.from_pretrained(folder)
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(trunk(pixels), before_last_norm(clip, pixels), rtol=0, atol=1e-6)


def test_half_pixel_interpolation_equals_the_library_at_another_size(tmp_path):
    folder = library_folder(tmp_path)
    trunk, clip = ClipTrunk(replace(SMALL, weights=folder)), CLIPVisionModel.from_pretrained(folder)
    pixels = torch.randn(2, 3, 28, 28)
    theirs = clip(pixels, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states[-1]
    torch.testing.assert_close(trunk(pixels), theirs, rtol=0, atol=1e-6)


def test_interpolation_conventions_differ_only_at_other_sizes():
    trunk = ClipTrunk(SMALL)
    aligned = ClipTrunk(replace(SMALL, position_interpolation="align_corners"))
    aligned.load_state_dict(trunk.state_dict())
    same, larger = torch.randn(1, 3, 16, 16), torch.randn(1, 3, 20, 20)
    assert torch.equal(trunk(same), aligned(same))
    assert not torch.allclose(trunk(larger), aligned(larger), atol=1e-4)


def test_full_clip_checkpoints_give_their_vision_tower(tmp_path):
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    full = CLIPModel(CLIPConfig(vision_config=library_config().to_dict(), text_config=text | {"vocab_size": 99}))
    full.save_pretrained(tmp_path / "full")
    trunk = ClipTrunk(replace(SMALL, weights=str(tmp_path / "full")))
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(trunk(pixels), before_last_norm(full.vision_model, pixels), rtol=0, atol=1e-6)


def test_half_precision_folders_load_as_float32(tmp_path):
    CLIPVisionModel(library_config()).half().save_pretrained(tmp_path / "half")
    assert ClipTrunk(replace(SMALL, weights=str(tmp_path / "half"))).class_embedding.dtype == torch.float32


@pytest.mark.parametrize(
    ("field", "value", "theirs"),
    [("n_heads", 2, 3), ("d_mlp", 48, 40), ("image_size", 32, 16), ("activation", "quick_gelu", "gelu")],
)
def test_numbers_that_disagree_with_the_folder_are_named(tmp_path, field, value, theirs):
    config = replace(SMALL, weights=library_folder(tmp_path), **{field: value})
    with pytest.raises(ConfigError, match=f"vision.trunk.{field} is {value!r} but config.json .* {theirs!r}"):
        ClipTrunk(config)


def test_other_norm_constants_are_refused(tmp_path):
    folder = library_folder(tmp_path, layer_norm_eps=1e-6)
    with pytest.raises(ConfigError, match="layer_norm_eps 1e-06; only 1e-05"):
        ClipTrunk(replace(SMALL, weights=folder))


def test_incomplete_folders_are_refused(tmp_path):
    clip = CLIPVisionModel(library_config())
    state = {key: value.clone() for key, value in clip.state_dict().items() if "layers.2.mlp.fc1.bias" not in key}
    clip.save_pretrained(tmp_path / "clip", state_dict=state)
    with pytest.raises(ConfigError, match=r"lacks 1 tensors .*layers\.2\.mlp\.fc1\.bias"):
        ClipTrunk(replace(SMALL, weights=str(tmp_path / "clip")))


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_folders_without_readable_weights_are_named(tmp_path, damage):
    folder = library_folder(tmp_path)
    weights = tmp_path / "clip" / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    if damage == "truncated":
        weights.write_bytes(content[:1000])
    with pytest.raises(ConfigError, match="no readable weights"):
        ClipTrunk(replace(SMALL, weights=folder))


def test_a_place_without_weights_is_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"holds no config\.json of a CLIP"):
        ClipTrunk(replace(SMALL, weights=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="of type 'llama'"):
        ClipTrunk(replace(SMALL, weights=str(tmp_path)))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="neither a folder nor a hub id"):
        ClipTrunk(replace(SMALL, weights=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match=r"missing\.pt' does not exist"):
        ClipTrunk(replace(SMALL, weights=str(tmp_path / "missing.pt")))
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ConfigError, match=r"text\.pt' is not a plain weight file"):
        ClipTrunk(replace(SMALL, weights=str(tmp_path / "text.pt")))


@pytest.mark.parametrize("layout", ["pt", "safetensors", "training checkpoint", "vision tower alone"])
def test_open_clip_files_give_the_numbers_of_open_clip(tmp_path, layout):
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    theirs = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"layers": 4, "width": 24, "head_width": 8, "mlp_ratio": 2, "patch_size": 4, "image_size": 16},
        text_cfg={"context_length": 8, "vocab_size": 99, "width": 16, "heads": 2, "layers": 1},
    ).eval()
    state = {key: value.contiguous() for key, value in theirs.state_dict().items()}
    path = tmp_path / "open_clip.pt"
    if layout == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(state, path)
    elif layout == "training checkpoint":
        torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    elif layout == "vision tower alone":
        torch.save(theirs.visual.state_dict(), path)
    else:
        torch.save(state, path)

    trunk = ClipTrunk(replace(SMALL, weights=str(path), d_mlp=48))
    pixels = torch.randn(2, 3, 16, 16)
    taps = theirs.visual.forward_intermediates(pixels, indices=[3], output_fmt="NLC", normalize_intermediates=False)
    torch.testing.assert_close(trunk(pixels)[:, 1:], taps["image_intermediates"][0], rtol=0, atol=1e-5)


def test_the_same_tower_from_open_clip_and_transformers_is_the_same(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    vision = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"layers": 4, "width": 24, "head_width": 8, "mlp_ratio": 2, "patch_size": 4, "image_size": 16},
        text_cfg={"context_length": 8, "vocab_size": 99, "width": 16, "heads": 2, "layers": 1},
    ).visual
    torch.save(vision.state_dict(), tmp_path / "tower.pt")
    config = replace(SMALL, d_mlp=48)
    from_open_clip = ClipTrunk(replace(config, weights=str(tmp_path / "tower.pt")))
    from_open_clip.to_transformers().save_pretrained(tmp_path / "folder")
    from_folder = ClipTrunk(replace(config, weights=str(tmp_path / "folder")))
    for name, tensor in from_open_clip.state_dict().items():
        assert torch.equal(tensor, from_folder.state_dict()[name]), name


def test_open_clip_files_of_other_sizes_and_kinds_are_named(tmp_path):
    state = {
        "visual.positional_embedding": torch.zeros(17, 24), "visual.conv1.weight": torch.zeros(24, 3, 4, 4),
        "visual.transformer.resblocks.0.mlp.c_fc.weight": torch.zeros(40, 24),
    }  # fmt: skip
    save_file(state, tmp_path / "short.safetensors")
    with pytest.raises(ConfigError, match=r"n_layers is 4 but the tensors of .* say 1"):
        ClipTrunk(replace(SMALL, weights=str(tmp_path / "short.safetensors")))
    with pytest.raises(ConfigError, match="class_embedding has shape None"):
        ClipTrunk(replace(SMALL, n_layers=1, weights=str(tmp_path / "short.safetensors")))
    save_file(state | {"visual.attn_pool.query": torch.zeros(3)}, tmp_path / "pooled.safetensors")
    with pytest.raises(ConfigError, match=r"attn_pool\.query.*plain CLIP"):
        ClipTrunk(replace(SMALL, weights=str(tmp_path / "pooled.safetensors")))
    save_file({"fc.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="plain CLIP"):
        ClipTrunk(replace(SMALL, weights=str(tmp_path / "other.safetensors")))


def test_a_frozen_random_trunk_is_an_error_unless_asked_for():
    frozen = replace(SMALL, frozen=True)
    with pytest.raises(ConfigError, match="frozen but has no weights"):
        ClipTrunk(frozen)
    ClipTrunk(replace(frozen, allow_frozen_random=True))
    ClipTrunk(frozen, load_weights=False)


def test_a_frozen_trunk_stays_as_it_is_but_passes_gradients():
    trunk = ClipTrunk(replace(SMALL, frozen=True), load_weights=False).train()
    assert not any(module.training for module in trunk.modules())
    assert not any(parameter.requires_grad for parameter in trunk.parameters())
    tokens = torch.randn(1, 17, 24, requires_grad=True)
    trunk.run_layers(tokens, 1, 3).sum().backward()
    assert tokens.grad is not None
    assert tokens.grad.abs().sum() > 0


def test_a_trainable_trunk_trains_every_parameter():
    trunk = ClipTrunk(SMALL).train()
    trunk(torch.randn(1, 3, 20, 20)).square().sum().backward()
    assert trunk.layers[0].training
    assert [name for name, parameter in trunk.named_parameters() if parameter.grad is None] == []


def test_activation_checkpointing_changes_no_gradient():
    trunk = ClipTrunk(SMALL)
    recomputing = ClipTrunk(replace(SMALL, activation_checkpointing=True))
    recomputing.load_state_dict(trunk.state_dict())
    pixels = torch.randn(1, 3, 16, 16)
    for network in (trunk, recomputing):
        network(pixels).square().sum().backward()
    assert torch.equal(trunk.position_embedding.grad, recomputing.position_embedding.grad)
