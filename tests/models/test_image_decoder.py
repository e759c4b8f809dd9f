from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from mmi.config import (
    CodecConfig,
    ConfigError,
    DiffusionConfig,
    ImageDecoderConfig,
    MMFSConfig,
    ResamplerConfig,
    UNetConfig,
)
from mmi.models.image_decoder import ImageDecoder, PreviousImages
from mmi.models.noise import DiffusionDraws

LANGUAGE, PYRAMID = 24, 12
CONFIG = ImageDecoderConfig(
    image_size=16,
    unet=UNetConfig(
        sample_size=8,
        in_channels=12,
        block_channels=(8, 16),
        down_blocks=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_blocks=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_heads=(2, 4),
        d_condition=20,
        norm_groups=4,
    ),
    codec=CodecConfig(kind="pixel_unshuffle", factor=2, latent_channels=12, scaling_factor=1.0),
    resampler=ResamplerConfig(
        n_tokens=3, d_model=20, n_layers=1, n_heads=4, d_mlp=24, cross_attention_every=1, qk_norm=False, dropout=0.0
    ),
    mmfs=MMFSConfig(
        n_heads=2, n_points=2, d_inner=8, levels=(0, 1, 2, 3), base_size=None, max_images=4, train_null_value=False
    ),
    n_context_positions=32,
)


def make_decoder(**changes) -> ImageDecoder:
    torch.manual_seed(0)
    decoder = ImageDecoder(replace(CONFIG, **changes), LANGUAGE, PYRAMID).eval()
    with torch.no_grad():
        for parameter in decoder.resampler.parameters():
            parameter.mul_(5)
        for module in decoder.unet.mmfs:
            for parameter in (*module.conv.parameters(), *module.attention.parameters()):
                parameter.normal_(0, 0.3)
    return decoder


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pyramid(n: int) -> list[Tensor]:
    return [noise(n, PYRAMID, 16 >> level, 16 >> level, seed=level) for level in range(4)]


def draws(n: int, dropout: float = 0.0) -> DiffusionDraws:
    return DiffusionDraws.create(0, 0, 0, n, (12, 8, 8), 1000, dropout)


def targets(n: int) -> Tensor:
    return torch.randint(0, 256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def condition(decoder: ImageDecoder, n: int, length: int = 5) -> Tensor:
    return decoder.condition(noise(n, length, LANGUAGE, seed=5), torch.ones(n, length, dtype=torch.bool))


def previous(decoder: ImageDecoder, visible: list[list[int]]) -> PreviousImages | None:
    table = torch.arange(len(visible))[:, None]
    return decoder.look_at(pyramid(len(visible)), table, torch.tensor(visible).bool())


@torch.no_grad()
def test_padding_of_a_context_changes_nothing():
    decoder = make_decoder()
    context = noise(1, 4, LANGUAGE)
    padded = torch.cat([context, torch.zeros(1, 3, LANGUAGE)], dim=1)
    mask = torch.tensor([[True] * 4 + [False] * 3])
    short = decoder.condition(context, mask[:, :4])
    assert short.shape == (1, 3, 20)
    assert torch.allclose(short, decoder.condition(padded, mask), atol=1e-5)


@torch.no_grad()
def test_the_order_of_a_context_matters():
    decoder = make_decoder()
    context, mask = noise(1, 4, LANGUAGE), torch.ones(1, 4, dtype=torch.bool)
    assert (decoder.condition(context, mask) - decoder.condition(context.flip(1), mask)).abs().max() > 1e-3


def test_a_context_longer_than_the_table_is_refused():
    decoder = make_decoder()
    with pytest.raises(ValueError, match=r"33 tokens of context, but image_decoder.n_context_positions is 32"):
        decoder.condition(torch.zeros(1, 33, LANGUAGE), torch.ones(1, 33, dtype=torch.bool))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@torch.no_grad()
def test_the_loss_is_the_mean_squared_error_to_the_target_of_the_prediction_type(kind):
    decoder = make_decoder(diffusion=DiffusionConfig(prediction=kind))
    tokens, random = condition(decoder, 2), draws(2)
    losses = decoder.loss(targets(2), tokens, None, random)
    assert losses.shape == (2,)
    assert losses.dtype == torch.float32

    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alpha = torch.cumprod(1 - betas, 0)[random.timesteps].view(-1, 1, 1, 1)
    latents = F.pixel_unshuffle(targets(2) / 127.5 - 1, 2)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * random.noise
    target = {
        "epsilon": random.noise,
        "sample": latents,
        "v_prediction": alpha.sqrt() * random.noise - (1 - alpha).sqrt() * latents,
    }[kind]
    expected = (decoder.unet(noisy, random.timesteps, tokens) - target).square().mean(dim=(1, 2, 3))
    assert torch.allclose(losses, expected, rtol=1e-4)


@torch.no_grad()
def test_an_image_has_the_same_loss_alone_and_in_a_batch():
    decoder = make_decoder()
    tokens, random = condition(decoder, 3), draws(3, 0.5)
    together = decoder.loss(targets(3), tokens, previous(decoder, [[1], [0], [1]]), random)
    for i in range(3):
        one = torch.tensor([i])
        look = decoder.look_at(pyramid(3), one[:, None], torch.tensor([[i != 1]]))
        alone = decoder.loss(targets(3)[one], tokens[one], look, random.index(one))
        assert torch.allclose(together[i], alone[0], rtol=1e-4)


@torch.no_grad()
def test_dropping_the_condition_replaces_the_tokens_and_keeps_the_previous_image():
    decoder = make_decoder()
    tokens, random = condition(decoder, 1), replace(draws(1), drop_condition=torch.tensor([True]))
    look, nothing = previous(decoder, [[1]]), previous(decoder, [[0]])
    dropped = decoder.loss(targets(1), tokens, look, random)
    assert torch.equal(dropped, decoder.loss(targets(1), tokens + 1, look, random))
    unconditional = decoder.unconditional.expand(1, -1, -1)
    kept = replace(random, drop_condition=torch.tensor([False]))
    assert torch.allclose(dropped, decoder.loss(targets(1), unconditional, look, kept))
    assert (dropped - decoder.loss(targets(1), tokens, nothing, random)).abs() > 1e-4


@torch.no_grad()
def test_only_images_that_someone_sees_are_projected():
    decoder = make_decoder()
    table = torch.tensor([[0, 3], [2, -1], [1, 2]])
    visible = torch.tensor([[False, True], [False, False], [False, True]])
    look = decoder.look_at(pyramid(4), table, visible)
    assert look is not None
    assert look.values[0].n_images == 2
    everything = PreviousImages(decoder.project_pyramid(pyramid(4)), table, visible)
    tokens, random = condition(decoder, 3), draws(3)
    assert torch.allclose(
        decoder.loss(targets(3), tokens, look, random), decoder.loss(targets(3), tokens, everything, random), rtol=1e-4
    )
    assert decoder.look_at(pyramid(4), table, torch.zeros_like(visible)) is None


def test_gradients_reach_the_context_the_pyramid_and_every_trained_parameter():
    decoder = make_decoder()
    context = noise(2, 4, LANGUAGE).requires_grad_()
    maps = [m.requires_grad_() for m in pyramid(2)]
    tokens = decoder.condition(context, torch.ones(2, 4, dtype=torch.bool))
    look = decoder.look_at(maps, torch.tensor([[1], [0]]), torch.ones(2, 1, dtype=torch.bool))
    random = replace(draws(2), drop_condition=torch.tensor([False, True]))
    decoder.loss(targets(2), tokens, look, random).sum().backward()
    assert context.grad is not None
    assert float(context.grad[0].abs().max()) > 0
    assert float(context.grad[1].abs().max()) == 0  # its condition was dropped
    assert all(m.grad is not None and float(m.grad.abs().max()) > 0 for m in maps)
    assert [n for n, p in decoder.named_parameters() if p.requires_grad and p.grad is None] == []


def test_no_images_give_no_losses():
    decoder = make_decoder()
    assert decoder.loss(targets(0), torch.zeros(0, 3, 20), None, draws(0)).shape == (0,)


def test_targets_of_another_size_are_refused():
    decoder = make_decoder()
    with pytest.raises(ValueError, match=r"image_decoder.image_size is 16"):
        decoder.loss(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), condition(decoder, 1), None, draws(1))


def test_the_base_model_computes_in_low_precision_but_the_loss_does_not():
    decoder = make_decoder()
    tokens = condition(decoder, 2).detach()
    exact = decoder.loss(targets(2), tokens, previous(decoder, [[1], [0]]), draws(2))
    with torch.autocast("cpu", torch.bfloat16):
        rough = decoder.loss(targets(2), tokens, previous(decoder, [[1], [0]]), draws(2))
    assert rough.dtype == torch.float32
    assert torch.allclose(exact, rough, rtol=0.05)
    decoder.to(torch.bfloat16)
    maps = [m.bfloat16() for m in pyramid(2)]
    look = decoder.look_at(maps, torch.tensor([[0], [1]]), torch.tensor([[True], [False]]))
    low = decoder.loss(targets(2), tokens.bfloat16(), look, draws(2))
    assert low.dtype == torch.float32
    assert torch.allclose(exact, low, rtol=0.1)


def test_weights_trained_for_another_noise_schedule_are_refused(tmp_path):
    decoder = make_decoder(mmfs=replace(CONFIG.mmfs, enabled=False))
    library = UNet2DConditionModel(
        sample_size=8,
        in_channels=12,
        out_channels=12,
        block_out_channels=(8, 16),
        down_block_types=CONFIG.unet.down_blocks,
        up_block_types=CONFIG.unet.up_blocks,
        layers_per_block=1,
        attention_head_dim=(2, 4),
        cross_attention_dim=20,
        norm_num_groups=4,
        use_linear_projection=True,
    )
    library.load_state_dict(decoder.unet.state_dict())
    library.save_pretrained(tmp_path / "unet")
    unet = replace(CONFIG.unet, weights=str(tmp_path), frozen=True)
    (tmp_path / "scheduler").mkdir()
    schedule = tmp_path / "scheduler" / "scheduler_config.json"
    schedule.write_text(json.dumps({"prediction_type": "epsilon", "beta_start": 0.00085, "clip_sample": False}))
    assert torch.equal(make_decoder(unet=unet).unet.conv_in.weight, decoder.unet.conv_in.weight)
    schedule.write_text(json.dumps({"prediction_type": "v_prediction"}))
    with pytest.raises(ConfigError, match="prediction_type is v_prediction there and epsilon here"):
        make_decoder(unet=unet)
