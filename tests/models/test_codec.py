import json

import pytest
import torch

from mmi.config import CodecConfig, ConfigError
from mmi.models.codec import PixelUnshuffleCodec, VAECodec, build_codec

TINY = CodecConfig(
    allow_frozen_random=True,
    factor=4,
    block_channels=(8, 8, 16),
    layers_per_block=1,
    norm_groups=4,
    scaling_factor=0.5,
)


def pictures(n: int, size: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def vae() -> VAECodec:
    torch.manual_seed(0)
    codec = build_codec(TINY)
    assert isinstance(codec, VAECodec)
    return codec


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_pixel_unshuffle_is_exactly_inverted(factor):
    codec = PixelUnshuffleCodec(factor)
    images = pictures(2)
    latents = codec.encode(images, torch.zeros(2, 3 * factor**2, 16 // factor, 16 // factor))
    assert latents.shape == (2, 3 * factor**2, 16 // factor, 16 // factor)
    assert torch.equal(codec.decode(latents), images)


def test_a_pixel_block_stays_in_its_cell():
    codec = PixelUnshuffleCodec(4)
    images = torch.zeros(1, 3, 16, 16)
    images[:, :, 4:8, 8:12] = 1
    changed = codec.encode(images, torch.zeros(0)).abs().amax(dim=1)[0]
    assert changed.nonzero().tolist() == [[1, 2]]


def test_vae_latent_is_mean_plus_scaled_noise(vae):
    images = pictures(3)
    zeros = torch.zeros(3, 4, 4, 4)
    noise = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    posterior = vae.vae.encode(images).latent_dist
    assert torch.allclose(vae.encode(images, zeros), posterior.mean * 0.5, atol=1e-5)
    assert torch.allclose(vae.encode(images, noise), (posterior.mean + posterior.std * noise) * 0.5, atol=1e-5)


def test_vae_decodes_to_the_picture_size_in_float32(vae):
    assert vae.decode(torch.randn(2, 4, 4, 4)).shape == (2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        inside = vae.encode(pictures(1), torch.zeros(1, 4, 4, 4))
    assert inside.dtype == torch.float32
    assert torch.allclose(inside, vae.encode(pictures(1), torch.zeros(1, 4, 4, 4)), atol=1e-6)


def test_chunks_do_not_change_the_latents(vae, monkeypatch):
    images, noise = pictures(5), torch.randn(5, 4, 4, 4)
    whole = vae.encode(images, noise)
    monkeypatch.setattr("mmi.models.codec.CHUNK", 2)
    assert torch.allclose(vae.encode(images, noise), whole, atol=1e-5)


def test_no_pictures_give_no_latents(vae):
    assert vae.encode(pictures(0), torch.zeros(0, 4, 4, 4)).shape == (0, 4, 4, 4)
    assert vae.decode(torch.zeros(0, 4, 4, 4)).shape == (0, 3, 16, 16)


def test_the_autoencoder_is_frozen_and_stays_in_evaluation_mode(vae):
    vae.train()
    assert not vae.vae.training
    assert not any(p.requires_grad for p in vae.parameters())


def test_weights_of_a_folder_or_of_its_vae_subfolder_are_used(vae, tmp_path):
    vae.vae.save_pretrained(tmp_path / "sd" / "vae")
    config = CodecConfig(**vars(TINY) | {"allow_frozen_random": False})
    for weights in (tmp_path / "sd", tmp_path / "sd" / "vae"):
        loaded = build_codec(CodecConfig(**vars(config) | {"weights": str(weights)}))
        assert torch.equal(
            loaded.encode(pictures(1), torch.zeros(1, 4, 4, 4)), vae.encode(pictures(1), torch.zeros(1, 4, 4, 4))
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"allow_frozen_random": False}, "stay random"),
        ({"frozen": False}, "gets no gradient"),
        ({"factor": 8}, "a factor of 4"),
        ({"weights": "/nowhere"}, "no config.json in /nowhere"),
    ],
    ids=["random", "trainable", "factor", "no-folder"],
)
def test_a_wrong_autoencoder_is_refused_in_one_sentence(changes, words):
    with pytest.raises(ConfigError, match=words):
        build_codec(CodecConfig(**vars(TINY) | changes))


def test_weights_with_other_numbers_are_refused(vae, tmp_path):
    vae.vae.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"norm_num_groups is 4 there and 2 here"):
        build_codec(CodecConfig(**vars(TINY) | {"weights": str(tmp_path), "norm_groups": 2}))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"shift_factor": 0.1}))
    with pytest.raises(ConfigError, match=r"shift_factor is 0.1 there and None here"):
        build_codec(CodecConfig(**vars(TINY) | {"weights": str(tmp_path)}))
