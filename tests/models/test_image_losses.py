"""Losses of known images: those of training, whatever stands beside them; and what is left when MMFS is silenced."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from factories import batch, byte_tokenizer, picture, tiny_config, wake_up

from mmi.batch import InterleavedBatch
from mmi.inference import Generator
from mmi.models.build import build_network
from mmi.models.generation import InterleavedState
from mmi.models.image_decoder import ImageDecoder
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.noise import DiffusionDraws
from mmi.models.output import NetworkOutput

PROMPTS = [["a rather long prompt", picture(1), "and"], ["x"], [picture(2), "y", picture(3)]]
TARGETS = [picture(4), picture(5), picture(6)]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(network(), byte_tokenizer())


def network(**config: object) -> MMInterleaved:
    torch.manual_seed(0)
    made = build_network(tiny_config(**config))  # type: ignore[arg-type]
    wake_up(made)
    return made.eval()


def decoder_of(made: MMInterleaved) -> ImageDecoder:
    assert made.image_decoder is not None
    return made.image_decoder


def fixed_draws(made: MMInterleaved, n: int, seed: int, step: int, timestep: int) -> DiffusionDraws:
    """The draws of ``n`` images that all have the same seed, each as if it were alone, at one timestep."""
    decoder = decoder_of(made)
    alone = DiffusionDraws.create(seed, step, 0, 1, decoder.latent_shape, decoder.config.diffusion.n_timesteps, 0.0)
    draws = DiffusionDraws.cat([alone] * n)
    return replace(draws, timesteps=torch.full((n,), timestep))


def test_the_same_seed_gives_the_same_loss_and_another_one_another(generator: Generator) -> None:
    first, second = (generator.image_losses(PROMPTS, TARGETS, [7, 8, 9]) for _ in range(2))
    assert first == second
    assert all(loss > 0 for loss in first)
    other = generator.image_losses(PROMPTS, TARGETS, [7, 8, 10])
    assert other[:2] == pytest.approx(first[:2])
    assert abs(other[2] - first[2]) > 1e-4


def test_one_seed_is_the_same_noise_whatever_the_prompt(generator: Generator) -> None:
    """Noise is drawn for the seed, not for the place in the batch, so that losses can be compared."""
    same = generator.image_losses([["x"], ["x"]], [TARGETS[0]] * 2, [3, 3])
    assert same[0] == pytest.approx(same[1], rel=1e-5)
    told, untold = generator.image_losses([["x", picture(4)], ["x", picture(9)]], [TARGETS[0]] * 2, [3, 3])
    assert abs(told - untold) > 1e-5


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_a_loss_does_not_depend_on_the_prompts_beside_it_or_their_order(generator: Generator, order: list[int]) -> None:
    seeds = [4, 5, 6]
    together = generator.image_losses(
        [PROMPTS[i] for i in order], [TARGETS[i] for i in order], [seeds[i] for i in order]
    )
    for i, loss in zip(order, together, strict=True):
        (alone,) = generator.image_losses([PROMPTS[i]], [TARGETS[i]], [seeds[i]])
        assert loss == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("n_timesteps", [1, 3])
def test_a_loss_is_that_of_training_for_the_same_draws(generator: Generator, n_timesteps: int) -> None:
    data = batch([[("ab", 1, "cd", 2, "e", 3)], [("f", 4)]])
    made = generator.network
    total = decoder_of(made).config.diffusion.n_timesteps
    trained = torch.zeros(data.n_images)
    for k in range(n_timesteps):
        draws = fixed_draws(made, data.n_images, 5, k, (2 * k + 1) * total // (2 * n_timesteps))
        with torch.no_grad():
            out = made(data, draws)
        assert out.image_index.tolist() == list(range(data.n_images))
        trained += out.image_loss / n_timesteps
    state = InterleavedState(made, 2)
    state.read(data.text_ids, data.attention_mask, data.images, data.image_row, data.image_start)
    assert data.target_images is not None
    losses = state.image_losses(data.image_row, data.image_start, data.target_images, [5] * data.n_images, n_timesteps)
    torch.testing.assert_close(losses, trained)


def test_no_prompts_give_no_losses(generator: Generator) -> None:
    assert generator.image_losses([], [], []) == []


def test_a_network_without_image_decoder_says_so() -> None:
    writer = Generator(network(decoder={"enabled": False}), byte_tokenizer())
    with pytest.raises(ValueError, match=r"no image decoder \(image_decoder\.enabled is false\)") as error:
        writer.image_losses([["a"]], [picture()], [0])
    assert "\n" not in str(error.value)


def test_targets_of_another_size_are_refused(generator: Generator) -> None:
    state = generator.read([["a"]])
    state.read(torch.tensor([[generator.tokenizer.special.image_start]]))
    with pytest.raises(ValueError, match=r"target images have shape \(3, 16, 16\), but image_decoder.image_size is 32"):
        state.image_losses(torch.tensor([0]), torch.tensor([2]), torch.zeros(1, 3, 16, 16, dtype=torch.uint8), [0])


DATA = batch([[("ab", 1, "cd", 2, "e", 3)], [("f", 4, "g", 5)]])


def run(made: MMInterleaved, data: InterleavedBatch = DATA) -> NetworkOutput:
    with torch.no_grad():
        return made(data, fixed_draws(made, data.n_images, 1, 0, 400))


def test_a_silenced_network_is_one_without_mmfs() -> None:
    """The other network has no MMFS parameters at all; every weight that both have is equal."""
    config = tiny_config()
    off = replace(config.language.mmfs, enabled=False), replace(config.image_decoder.mmfs, enabled=False)
    full, without = network(), network(language_mmfs=off[0], decoder_mmfs=off[1])
    kept = without.load_state_dict(full.state_dict(), strict=False)
    assert not kept.missing_keys
    assert all("mmfs" in name for name in kept.unexpected_keys)
    loud = run(full)
    full.silence_mmfs()
    silent, expected = run(full), run(without)
    torch.testing.assert_close(silent.text_loss, expected.text_loss)
    torch.testing.assert_close(silent.image_loss, expected.image_loss)
    assert (loud.text_loss - silent.text_loss).abs().max() > 1e-3
    assert (loud.image_loss - silent.image_loss).abs().max() > 1e-4


def test_a_silenced_network_hears_visual_tokens_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other pyramids with the same visual tokens change every output of the full network and none of the silenced."""
    made = network()
    see = made.visual_tokenizer.forward

    def disturbed(images: torch.Tensor) -> object:
        features = see(images)
        return replace(features, pyramid=tuple(level.flip(0) for level in features.pyramid))

    for changes in (True, False):
        plain = run(made)
        with monkeypatch.context() as patch:
            patch.setattr(made.visual_tokenizer, "forward", disturbed)
            other = run(made)
        assert torch.equal(plain.text_loss, other.text_loss) != changes
        assert torch.equal(plain.image_loss, other.image_loss) != changes
        made.silence_mmfs()


def test_silence_reaches_the_u_net_too_and_survives_saving() -> None:
    made = network()
    made.silence_mmfs()
    again = network()
    again.load_state_dict(made.state_dict())
    torch.testing.assert_close(run(again).image_loss, run(made).image_loss, rtol=0, atol=0)
    gates = [block.mmfs.gate for block in made.language_model.blocks if block.mmfs is not None]
    convolutions = [module.conv.weight for module in decoder_of(made).unet.spatial_mmfs]
    assert gates
    assert convolutions
    assert not any(parameter.any() for parameter in (*gates, *convolutions))


def test_a_network_that_only_writes_can_be_silenced() -> None:
    made = network(decoder={"enabled": False})
    made.silence_mmfs()
    assert not any(block.mmfs.gate.any() for block in made.language_model.blocks if block.mmfs is not None)


def test_given_images_have_no_loss_in_training_and_change_no_other(generator: Generator) -> None:
    data = replace(DATA, image_loss=torch.tensor([True, False, True, True, False]))
    assert run(generator.network, data).image_index.tolist() == [0, 2, 3]
    torch.testing.assert_close(
        run(generator.network, data).image_loss, run(generator.network).image_loss[torch.tensor([0, 2, 3])]
    )
