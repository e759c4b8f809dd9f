from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

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
from mmi.models.image_sampling import ImageSampling, sampling_schedule

PYRAMID = 12
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
    diffusion=DiffusionConfig(prediction="sample"),
    resampler=ResamplerConfig(
        n_tokens=3, d_model=20, n_layers=1, n_heads=4, d_mlp=24, cross_attention_every=1, qk_norm=False, dropout=0.0
    ),
    mmfs=MMFSConfig(
        n_heads=2, n_points=2, d_inner=8, levels=(0, 1, 2, 3), base_size=None, max_images=4, train_null_value=False
    ),
)
FEW = ImageSampling(n_steps=3, guidance_scale=2.0)
SAMPLERS = pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])


@pytest.fixture(scope="module")
def decoder() -> ImageDecoder:
    torch.manual_seed(0)
    decoder = ImageDecoder(CONFIG, 24, PYRAMID).eval()
    with torch.no_grad():
        for module in decoder.unet.mmfs:
            for parameter in (*module.conv.parameters(), *module.attention.parameters()):
                parameter.normal_(0, 0.3)
    return decoder


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def previous(decoder: ImageDecoder, visible: list[list[int]]) -> PreviousImages | None:
    n = len(visible)
    maps = [noise(n, PYRAMID, 16 >> level, 16 >> level, seed=level) for level in range(4)]
    return decoder.look_at(maps, torch.arange(n)[:, None], torch.tensor(visible).bool())


@pytest.mark.parametrize(
    ("n_steps", "first", "last"), [(30, [958, 925, 892], [34, 1]), (250, [997, 993, 989], [5, 1])], ids=["30", "250"]
)
def test_the_released_codes_timesteps_are_visited(n_steps, first, last):
    steps = sampling_schedule(DiffusionConfig(), ImageSampling(n_steps=n_steps)).timesteps.tolist()
    assert len(steps) == n_steps
    assert steps[:3] == first
    assert steps[-2:] == last


@SAMPLERS
def test_trailing_spacing_starts_at_full_noise(sampler):
    settings = ImageSampling(n_steps=4, sampler=sampler, spacing="trailing")
    assert sampling_schedule(DiffusionConfig(), settings).timesteps.tolist() == [999, 749, 499, 249]


@SAMPLERS
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_prediction_leads_to_the_true_latents(sampler, prediction):
    """An oracle that knows the clean latents is followed to them by every sampler and prediction type."""
    diffusion = DiffusionConfig(prediction=prediction)
    schedule = sampling_schedule(diffusion, ImageSampling(n_steps=20, sampler=sampler))
    clean, latents = noise(2, 4, 4, 4, seed=1), noise(2, 4, 4, 4, seed=2)
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    for step in schedule.timesteps.tolist():
        alpha = schedule.alphas_cumprod[step]
        epsilon = (latents - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        oracle = {
            "epsilon": epsilon,
            "sample": clean,
            "v_prediction": alpha.sqrt() * epsilon - (1 - alpha).sqrt() * clean,
        }[prediction]
        latents = schedule.step(oracle, step, latents, generator=generators, return_dict=False)[0]
    assert torch.allclose(latents, clean, atol=0.02)


@SAMPLERS
def test_a_picture_does_not_depend_on_the_batch_it_is_drawn_in(decoder, sampler):
    settings = replace(FEW, sampler=sampler)
    condition = noise(3, 3, 20)
    together = decoder.sample(condition, previous(decoder, [[1], [0], [1]]), settings, [5, 6, 7])
    assert together.shape == (3, 3, 16, 16)
    assert 0 <= float(together.min()) <= float(together.max()) <= 1
    for i in range(3):
        visible = [[int(j == i and i != 1)] for j in range(3)]
        look = previous(decoder, visible)
        if look is not None:
            look = PreviousImages(look.values, look.image_table, look.visible)
        alone = decoder.sample(condition[i : i + 1], look, settings, [5 + i])
        assert torch.allclose(together[i], alone[0], atol=1e-4)


def test_images_are_projected_once_for_all_diffusion_steps_and_not_a_bit_changes(decoder):
    calls = []
    projections = [module.attention.value_proj for module in decoder.unet.spatial_mmfs]
    hooks = [p.register_forward_hook(lambda _, inputs, __: calls.append(inputs[0].shape[0])) for p in projections]
    look, condition = previous(decoder, [[1], [0], [1]]), noise(3, 3, 20)
    cached = decoder.sample(condition, look, FEW, [5, 6, 7])
    assert calls == [2] * len(projections), "one picture sees nothing, so its image is not projected at all"

    def project_again(unet, inputs):
        *rest, given = inputs
        maps = [noise(3, PYRAMID, 16 >> level, 16 >> level, seed=level)[[0, 2]] for level in range(4)]
        return (*rest, replace(given, values=unet.project_pyramid(maps)))

    hooks.append(decoder.unet.register_forward_pre_hook(project_again))
    assert torch.equal(decoder.sample(condition, look, FEW, [5, 6, 7]), cached)
    assert len(calls) == len(projections) * (1 + FEW.n_steps)
    for hook in hooks:
        hook.remove()


def test_the_seed_decides_the_picture(decoder):
    condition = noise(1, 3, 20).expand(3, -1, -1)
    pictures = decoder.sample(condition, None, FEW, [1, 1, 2])
    assert torch.allclose(pictures[0], pictures[1], atol=1e-5)
    assert (pictures[0] - pictures[2]).abs().max() > 1e-2


def test_guidance_of_one_is_the_condition_alone_and_costs_one_pass(decoder):
    sizes = []
    counting = decoder.unet.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[0]))
    condition = noise(2, 3, 20)
    one = decoder.sample(condition, None, replace(FEW, guidance_scale=1.0), [0, 1])
    none = decoder.sample(condition, None, replace(FEW, guidance_scale=0.0), [0, 1])
    almost = decoder.sample(condition, None, replace(FEW, guidance_scale=1.0 + 1e-6), [0, 1])
    counting.remove()
    assert sizes == [2] * 6 + [4] * 3
    assert torch.equal(one, none)
    assert torch.allclose(one, almost, atol=1e-4)


def test_guidance_leaves_the_previous_image_to_both_halves(decoder):
    """With the unconditional tokens as condition, both halves agree, so any scale gives the same picture."""
    condition = decoder.unconditional.detach().expand(2, -1, -1)
    look = previous(decoder, [[1], [0]])
    weak, strong = (decoder.sample(condition, look, replace(FEW, guidance_scale=scale), [0, 1]) for scale in (1.0, 9.0))
    assert torch.allclose(weak, strong, atol=1e-4)
    assert (weak - decoder.sample(condition, None, FEW, [0, 1])).abs().amax(dim=(1, 2, 3))[0] > 1e-3


def test_progress_is_told_after_every_step(decoder):
    told = []
    decoder.sample(noise(1, 3, 20), None, FEW, [0], progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_nothing_to_draw_gives_no_pictures(decoder):
    assert decoder.sample(torch.zeros(0, 3, 20), None, FEW, []).shape == (0, 3, 16, 16)


def test_wrong_settings_are_refused_in_one_sentence(decoder):
    with pytest.raises(ConfigError, match="n_steps is 0"):
        ImageSampling(n_steps=0)
    with pytest.raises(ConfigError, match=r"sampler is 'euler'; expected one of ddpm, ddim, dpm\+\+"):
        ImageSampling(sampler="euler")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="1001"):
        decoder.sample(noise(1, 3, 20), None, ImageSampling(n_steps=1001), [0])
    with pytest.raises(ValueError, match="1 seeds for 2 pictures"):
        decoder.sample(noise(2, 3, 20), None, FEW, [0])
