import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import CLIPVisionModel

from mmi.config import ConfigError, VisionTrunkConfig
from mmi.models.clip_trunk import ClipTrunk
from mmi.training.caption_contrast import CaptionContrast, retrieval_accuracy
from mmi.training.vision_pretraining import patch_loss, pretrain_trunk

TINY = VisionTrunkConfig(image_size=8, patch_size=4, d_model=16, n_layers=4, n_heads=2, d_mlp=16)


def coloured_patches(n, seed=0):
    """Patches of one of three colours; labels name the colour, and whether the picture's first patch is black."""
    colour = np.random.default_rng(seed).integers(0, 3, (n, 2, 2))
    palette = np.array([[0, 0, 0], [250, 30, 30], [20, 40, 240]], np.uint8)
    pictures = palette[colour].repeat(4, axis=1).repeat(4, axis=2).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pictures), {"colour": colour, "start": (colour[:, :1, :1] == 0) + np.ones_like(colour)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("pretrained") / "trunk"
    accuracy = pretrain_trunk(TINY, *coloured_patches(120), out, steps=80, batch_size=16, seed=3, learning_rate=1e-2)
    return out, accuracy


def test_patches_and_their_context_become_readable(trained):
    _, accuracy = trained
    assert set(accuracy) == {"colour", "colour/all", "start", "start/all"}
    assert accuracy["colour"] > 0.95
    assert accuracy["start"] > 0.8, "only attention can carry this"


def test_the_folder_loads_as_a_frozen_trunk_and_as_a_library_model(trained):
    out, _ = trained
    trunk = ClipTrunk(replace(TINY, weights=str(out)))
    pixels = torch.randn(1, 3, 8, 8)
    library = CLIPVisionModel.from_pretrained(out)(pixels, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(trunk(pixels), library, rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="n_heads"):
        ClipTrunk(replace(TINY, weights=str(out), n_heads=4))
    assert (out / "pretraining.json").is_file()
    assert (out / "model.safetensors").is_file()


def test_the_seed_decides_everything_and_the_global_state_is_left_alone(tmp_path):
    pictures, labels = coloured_patches(40)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        pretrain_trunk(TINY, pictures, labels, tmp_path / name, 3, 4, seed)
    assert torch.equal(torch.rand(1), expected)
    first, again, other = (
        ClipTrunk(replace(TINY, weights=str(tmp_path / name))).class_embedding for name in ("first", "again", "other")
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_shown_patches_count_as_much_as_all_empty_ones():
    target = torch.tensor([[0, 0, 0, 2]])
    logits = torch.zeros(1, 4, 3)
    logits[0, 3, 2] = -50.0
    wrong_where_shown = patch_loss([{"digit": logits}], {"digit": target})
    logits = torch.zeros(1, 4, 3)
    logits[0, :3, 0] = -50.0
    wrong_where_empty = patch_loss([{"digit": logits}], {"digit": target})
    torch.testing.assert_close(wrong_where_shown, wrong_where_empty)


def test_what_does_not_fit_is_named(tmp_path):
    pictures, labels = coloured_patches(4)
    with pytest.raises(ValueError, match=r"expected uint8 \[N, 3, 8, 8\]"):
        pretrain_trunk(TINY, pictures[:, :, :4], labels, tmp_path)
    with pytest.raises(ValueError, match=r"labels\['colour'\] has shape \[4, 1, 2\]"):
        pretrain_trunk(TINY, pictures, {"colour": labels["colour"][:, :1]}, tmp_path)
    with pytest.raises(ValueError, match="labels is empty"):
        pretrain_trunk(TINY, pictures, {}, tmp_path)
    with pytest.raises(ValueError, match="multiple of 4"):
        pretrain_trunk(replace(TINY, n_layers=3), pictures, labels, tmp_path)
    captions = np.ones((4, 3), np.int64)
    captions[2] = 0
    for wrong in (captions, captions[:3], captions[:, 0]):
        with pytest.raises(ValueError, match=r"captions is \[.*expected \[4, T\] token ids"):
            pretrain_trunk(TINY, pictures, labels, tmp_path, captions=wrong)


def test_captions_teach_the_class_token(tmp_path):
    pictures, labels = coloured_patches(300)
    captions = np.concatenate([labels["colour"].reshape(300, 4) + np.array([1, 4, 7, 10]), np.zeros((300, 2), int)], 1)
    notes = {"world": 7}
    accuracy = pretrain_trunk(TINY, pictures, labels, tmp_path, 150, seed=1, captions=captions, notes=notes)
    assert accuracy["picture of a caption"] > 0.3, "one of 30"
    assert accuracy["caption of a picture"] > 0.3
    settings = json.loads((tmp_path / "pretraining.json").read_text())["settings"]
    assert (settings["world"], settings["contrast"], settings["steps"]) == (7, True, 150)
    library = CLIPVisionModel.from_pretrained(tmp_path)
    assert not torch.equal(library.post_layernorm.weight, torch.ones(16)), "the norm that the contrast learned"


def test_padding_says_nothing():
    contrast = CaptionContrast(16, 9).eval()
    short, long = torch.tensor([[3, 4, 0, 0, 0, 0]]), torch.tensor([[3, 4, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]])
    torch.testing.assert_close(contrast.captions(short)[0], contrast.captions(long)[0], rtol=0, atol=1e-6)


def test_retrieval_counts_both_ways():
    captions = torch.eye(3)
    images = torch.tensor([[1.0, 0, 0], [0, 0.5, 0], [0, 0.9, 0.3]])
    assert retrieval_accuracy(images, captions) == pytest.approx((2 / 3, 2 / 3))
    assert retrieval_accuracy(images, captions, among=2) == (1.0, 1.0)
