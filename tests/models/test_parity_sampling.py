"""Guided ancestral sampling against a plain loop, and pictures that do not depend on the batch (SPEC 1.11, 5.2)."""

from __future__ import annotations

from collections.abc import Sequence

import plain_reference as plain
import pytest
import torch
from plain_decoder import ParityCase
from second_model import second_network
from tiny_official import BOS, IMAGE, N_TOKENS, PAD, SOI, tiny_network
from torch import Tensor

from mmi.models.generation import InterleavedState
from mmi.models.image_sampling import ImageSampling
from mmi.models.mm_interleaved import MMInterleaved

PROMPTS = [[BOS, 5, 6, 7], [BOS, SOI, *[IMAGE] * N_TOKENS, 8, 9, 10, 11], [BOS, 12, 13, 14, 15]]


@pytest.fixture(scope="module", params=["tiny official", "second"])
def network(request: pytest.FixtureRequest) -> MMInterleaved:
    return tiny_network() if request.param == "tiny official" else second_network()


def pyramid_of(network: MMInterleaved, n: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    sizes = network.config.vision.pyramid_sizes
    return [torch.randn(n, network.config.vision.trunk.d_model, s, s, generator=generator) for s in sizes]


def condition_of(network: MMInterleaved, n: int) -> Tensor:
    decoder = network.config.image_decoder
    shape = (n, decoder.resampler.n_tokens, decoder.unet.d_condition)
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
@pytest.mark.parametrize("seen", [True, False], ids=["sees a previous image", "sees none"])
def test_guided_sampling_is_the_plain_loop_over_the_plain_unet(network: MMInterleaved, seen: bool) -> None:
    decoder = network.image_decoder
    assert decoder is not None
    pyramid, condition = pyramid_of(network, 1), condition_of(network, 1)
    look = decoder.look_at(pyramid, torch.tensor([[0]]), torch.tensor([[seen]]))
    (found,) = decoder.sample(condition, look, ImageSampling(5, 3.5), [7])

    wide = [level.double() for level in pyramid]
    case = ParityCase.of(network)
    expected = case.picture(condition[0].double(), wide, 0 if seen else None, n_steps=5, scale=3.5, seed=7)
    network.float()
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-4)


@torch.no_grad()
def test_one_generator_for_a_batch_draws_the_noise_of_a_batch(network: MMInterleaved) -> None:
    """The released code fills a whole batch from one generator, step after step."""
    decoder = network.image_decoder
    assert decoder is not None
    shared = torch.Generator().manual_seed(3)
    condition = condition_of(network, 2)
    found = decoder.sample(condition, None, ImageSampling(2, 1.0), [shared, shared])
    whole = torch.Generator().manual_seed(3)
    start, *later = (torch.randn((2, *decoder.latent_shape), generator=whole) for _ in range(3))
    for i in range(2):
        latents = plain.ancestral_sampling(
            lambda x, time, i=i: decoder.unet(x[None].float(), torch.tensor([time]), condition[i : i + 1])[0],
            start[i],
            [noise[i] for noise in later],
            decoder.config.diffusion.prediction,
            2,
        )
        expected = (decoder.codec.decode(latents[None].float())[0] / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-4)


def draw(network: MMInterleaved, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> Tensor:
    """Read prompts of ids together, padded on the left, and draw the image after each; float before rounding."""
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(p)) + [*p] for p in prompts])
    mask = torch.tensor([[i >= width - len(p) for i in range(width)] for p in prompts])
    row, start = torch.nonzero(ids == SOI, as_tuple=True)
    generator = torch.Generator().manual_seed(9)
    pictures = torch.randint(0, 256, (1, 3, 224, 224), generator=generator, dtype=torch.uint8)
    state = InterleavedState(network, len(prompts))
    state.read(ids, mask, pictures.expand(len(row), -1, -1, -1), row, start)
    state.read(torch.full((len(prompts), 1), SOI))
    rows = torch.arange(len(prompts))
    decoder = state._decoder()
    condition, previous = state._given(decoder, rows, torch.full_like(rows, width))
    return decoder.sample(condition, previous, ImageSampling(10, 7.5), seeds)


def test_pictures_from_fixed_noise_are_bitwise_equal_in_the_same_batch_and_close_in_others() -> None:
    network = tiny_network()
    seeds = [11, 12, 13]
    together = draw(network, PROMPTS, seeds)
    assert torch.equal(together, draw(network, PROMPTS, seeds))
    for i, prompt in enumerate(PROMPTS):
        (alone,) = draw(network, [prompt], [seeds[i]])
        torch.testing.assert_close(together[i], alone, rtol=0, atol=1e-4)
    order = [2, 0, 1, 1, 2, 0, 0, 2]
    many = draw(network, [PROMPTS[i] for i in order], [seeds[i] for i in order])
    torch.testing.assert_close(many, together[order], rtol=0, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.01
