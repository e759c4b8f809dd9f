"""Folders as open_clip publishes them: weights beside ``open_clip_config.json``."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from mmi.config import ConfigError, VisionTrunkConfig
from mmi.models.clip_trunk import ClipTrunk

TRUNK = VisionTrunkConfig(
    frozen=True, image_size=16, patch_size=4, d_model=24, n_layers=4, n_heads=3, d_mlp=48, activation="gelu"
)
TOWER = {"layers": 4, "width": 24, "head_width": 8, "mlp_ratio": 2, "patch_size": 4, "image_size": 16}
TEXT = {"context_length": 8, "vocab_size": 99, "width": 16, "heads": 2, "layers": 1}
PIXELS = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}


def folder(tmp_path, *, quick_gelu=False, weights="open_clip_model.safetensors", vision=None, pixels=None):
    """Save a tiny model of open_clip with the file names of its hub folders."""
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    model = open_clip.CLIP(embed_dim=16, vision_cfg=TOWER, text_cfg=TEXT, quick_gelu=quick_gelu).eval()
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    tree = {"embed_dim": 16, "quick_gelu": quick_gelu, "vision_cfg": TOWER | (vision or {}), "text_cfg": TEXT}
    content = json.dumps({"model_cfg": tree, "preprocess_cfg": pixels or PIXELS})
    (tmp_path / "open_clip_config.json").write_text(content)
    if weights.endswith(".bin"):
        torch.save(state, tmp_path / weights)
    else:
        save_file(state, tmp_path / weights)
    return model.visual


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_a_folder_gives_the_numbers_of_open_clip(weights, quick_gelu, tmp_path):
    theirs = folder(tmp_path, quick_gelu=quick_gelu, weights=weights)
    trunk = ClipTrunk(replace(TRUNK, weights=str(tmp_path), activation="quick_gelu" if quick_gelu else "gelu"))
    pixels = torch.randn(2, 3, 16, 16)
    taps = theirs.forward_intermediates(pixels, indices=[3], output_fmt="NLC", normalize_intermediates=False)
    torch.testing.assert_close(trunk(pixels)[:, 1:], taps["image_intermediates"][0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation": "quick_gelu"}, r"activation is 'quick_gelu' but open_clip_config\.json of .* says 'gelu'"),
        ({"n_heads": 4}, r"n_heads is 4 but open_clip_config\.json of .* says 3"),
        ({"d_mlp": 40}, r"d_mlp is 40 but the tensors of .* say 48"),
    ],
)
def test_numbers_that_disagree_are_named(changes, words, tmp_path):
    folder(tmp_path)
    with pytest.raises(ConfigError, match=words):
        ClipTrunk(replace(TRUNK, weights=str(tmp_path), **changes))


@pytest.mark.parametrize(
    ("vision", "words"),
    [
        ({"timm_model_name": "vit_base"}, "timm_model_name 'vit_base', not a plain CLIP"),
        ({"ls_init_value": 0.1}, "ls_init_value"),
        ({"norm_kwargs": {"eps": 1e-6}}, "norm_kwargs"),
    ],
)
def test_other_towers_are_refused(vision, words, tmp_path):
    folder(tmp_path, vision=vision)
    with pytest.raises(ConfigError, match=words):
        ClipTrunk(replace(TRUNK, weights=str(tmp_path)))


def test_towers_for_other_pixels_are_refused(tmp_path):
    folder(tmp_path, pixels={"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]})
    with pytest.raises(ConfigError, match=r"wants pixels of mean \[0\.5, 0\.5, 0\.5\]"):
        ClipTrunk(replace(TRUNK, weights=str(tmp_path)))


def test_a_folder_without_weights_is_named(tmp_path):
    folder(tmp_path, weights="elsewhere.bin")
    with pytest.raises(ConfigError, match=r"has open_clip_config\.json but none of open_clip_model\.safetensors"):
        ClipTrunk(replace(TRUNK, weights=str(tmp_path)))
