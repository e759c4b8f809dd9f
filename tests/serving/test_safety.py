"""The safety checker: read from safetensors only, and its verdict is what is used."""

from __future__ import annotations

import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from factories import picture
from transformers import CLIPConfig, CLIPImageProcessorPil

from mmi.config import ConfigError
from mmi.serving.safety import load_safety_checker


@pytest.fixture
def folder(tmp_path):
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(vision_config={**size, "image_size": 32, "patch_size": 8}, projection_dim=8)
    )
    checker.save_pretrained(tmp_path / "safety_checker")
    sides = {"height": 32, "width": 32}
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=sides)
    processor.save_pretrained(tmp_path / "feature_extractor")
    return tmp_path


@pytest.mark.parametrize("threshold", [-2.0, 2.0], ids=["flags all", "flags nothing"])
def test_a_picture_is_flagged_where_it_is_nearer_to_a_concept_than_allowed(folder, threshold):
    checker = StableDiffusionSafetyChecker.from_pretrained(folder / "safety_checker")
    checker.concept_embeds_weights.data.fill_(threshold)
    checker.special_care_embeds_weights.data.fill_(2.0)
    checker.save_pretrained(folder / "safety_checker")
    assert load_safety_checker(folder)(picture(0)) is (threshold < 0)


def test_pickled_weights_are_not_read(folder):
    weights = next((folder / "safety_checker").glob("*.safetensors"))
    weights.unlink()
    torch.save({}, folder / "safety_checker" / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="safetensors"):
        load_safety_checker(folder)


def test_a_folder_without_one_is_named(tmp_path):
    with pytest.raises(ConfigError, match="feature_extractor"):
        load_safety_checker(tmp_path)
