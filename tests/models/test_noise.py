import torch

from mmi.models.noise import DiffusionDraws

LATENT = (4, 8, 8)


def draws(first: int, n: int, *, seed: int = 3, step: int = 11, latent: tuple[int, ...] = LATENT) -> DiffusionDraws:
    return DiffusionDraws.create(seed, step, first, n, latent, 1000, 0.1)


def same(a: DiffusionDraws, b: DiffusionDraws) -> bool:
    return all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def test_images_drawn_at_once_equal_images_drawn_in_two_halves():
    whole = draws(0, 8)
    assert same(whole.index(torch.arange(4)), draws(0, 4))
    assert same(whole.index(torch.arange(4, 8)), draws(4, 4))


def test_a_draw_can_be_repeated_and_changes_with_seed_step_and_image():
    base = draws(0, 2)
    assert same(base, draws(0, 2))
    for other in (draws(0, 2, seed=4), draws(0, 2, step=12), draws(2, 2)):
        assert not torch.equal(base.noise, other.noise)
    assert not torch.equal(base.noise[0], base.noise[1])


def test_noise_of_one_image_never_meets_noise_of_another():
    whole = draws(0, 64)
    numbers = torch.cat([whole.noise.flatten(), whole.posterior_noise.flatten()])
    assert len(numbers.unique()) > 0.99 * len(numbers)


def test_draws_follow_their_distributions():
    many = draws(0, 4000, latent=(2, 2, 2))
    assert abs(float(many.noise.mean())) < 0.02
    assert abs(float(many.noise.std()) - 1) < 0.02
    assert int(many.timesteps.min()) >= 0
    assert int(many.timesteps.max()) <= 999
    assert abs(float(many.timesteps.float().mean()) - 499.5) < 15
    assert abs(float(many.drop_condition.float().mean()) - 0.1) < 0.02
    assert abs(float(many.priority.mean()) - 0.5) < 0.02


def test_timesteps_do_not_depend_on_the_latent_size():
    assert torch.equal(draws(0, 5).timesteps, draws(0, 5, latent=(48, 2, 2)).timesteps)


def test_no_images_give_empty_draws_and_a_negative_seed_is_fine():
    assert draws(0, 0).noise.shape == (0, *LATENT)
    assert len(draws(0, 1, seed=-1).noise) == 1


def test_joined_draws_are_those_of_the_groups():
    assert same(DiffusionDraws.cat([draws(0, 3), draws(3, 0), draws(3, 2)]), draws(0, 5))
    one, other = draws(0, 1), draws(0, 1, seed=4)
    joined = DiffusionDraws.cat([one, other])
    assert same(joined.index(torch.tensor([1])), other)
    assert same(joined.index(torch.tensor([0])), one)
