from dataclasses import replace

import pytest
import torch
from factories import tiny_config
from torch import nn

from mmi.commands.params import count_parameters
from mmi.config import AdapterConfig, ConfigError, ResamplerConfig, VisionConfig, VisionTrunkConfig
from mmi.models.clip_trunk import ClipTrunk
from mmi.models.deformable_attention import DeformableAttention, Grids
from mmi.models.visual_tokenizer import CLIP_MEAN, CLIP_STD, VisualTokenizer, normalize_pixels
from mmi.models.vit_adapter import ViTAdapter

TRUNK = VisionTrunkConfig(frozen=False, image_size=32, patch_size=4, d_model=24, n_layers=4, n_heads=3, d_mlp=32)
ADAPTER = AdapterConfig(d_stem=4, n_heads=3, n_points=2)
RESAMPLER = ResamplerConfig(n_tokens=3, d_model=12, n_layers=2, n_heads=2, d_mlp=16, dropout=0.0)
SMALL = VisionConfig(image_size=32, trunk=TRUNK, adapter=ADAPTER, resampler=RESAMPLER)


def build(config=SMALL):
    torch.manual_seed(0)
    return VisualTokenizer(config, d_language=20).eval()


def pictures(n, size, seed=0):
    return torch.randint(256, (n, 3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def stir(network):
    """Give every parameter that starts at zero or one a random part, so that no branch is silent."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return network


def test_a_224_pixel_picture_gives_maps_of_64_32_16_8_and_257_tokens():
    trunk = replace(TRUNK, image_size=224, patch_size=14)
    config = replace(SMALL, image_size=224, trunk=trunk)
    tokenizer = build(config)
    features = tokenizer(pictures(1, 224))
    assert [level.shape for level in features.pyramid] == [(1, 24, size, size) for size in (64, 32, 16, 8)]
    assert features.tokens.shape == (1, 3, 20)
    seen = tokenizer.adapter(normalize_pixels(pictures(1, 224)), tokenizer.trunk)
    assert seen.tokens.shape == (1, 257, 24)


@pytest.mark.parametrize("image_size", [4, 12, 20, 32, 44, 64])
def test_every_multiple_of_the_patch_works_odd_grids_included(image_size):
    config = replace(SMALL, image_size=image_size)
    features = build(config)(pictures(2, image_size))
    assert tuple(level.shape[-1] for level in features.pyramid) == config.pyramid_sizes
    assert features.tokens.isfinite().all()


def test_a_checkpoint_fits_every_picture_size():
    small, large = stir(build()), build(replace(SMALL, image_size=48))
    large.load_state_dict(small.state_dict())
    assert large(pictures(1, 48)).pyramid[2].shape == (1, 24, 12, 12)


@pytest.mark.parametrize("n_tokens", [1, 8, 17])
def test_any_number_of_visual_tokens(n_tokens):
    config = replace(SMALL, resampler=replace(RESAMPLER, n_tokens=n_tokens))
    assert build(config)(pictures(2, 32)).tokens.shape == (2, n_tokens, 20)


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 3, 36, 36\]; expected \[M, 3, 32, 32\]"):
        build()(pictures(2, 36))


def test_with_gamma_at_zero_the_tokens_are_plain_clip():
    tokenizer = stir(build())
    for interaction in tokenizer.adapter.interactions:
        nn.init.zeros_(interaction.injector.gamma)
    pixels = normalize_pixels(pictures(2, 32))
    assert torch.equal(tokenizer.adapter(pixels, tokenizer.trunk).tokens, tokenizer.trunk(pixels))


def test_gamma_lets_the_convolutions_change_the_tokens():
    tokenizer = stir(build())
    pixels = normalize_pixels(pictures(2, 32))
    assert not torch.allclose(tokenizer.adapter(pixels, tokenizer.trunk).tokens, tokenizer.trunk(pixels), atol=1e-3)


def test_bytes_and_unit_floats_mean_the_same_and_stay_unchanged():
    tokenizer = stir(build())
    as_bytes = pictures(2, 32)
    as_floats = as_bytes / 255
    kept_bytes, kept_floats = as_bytes.clone(), as_floats.clone()
    torch.testing.assert_close(tokenizer(as_bytes).tokens, tokenizer(as_floats).tokens)
    assert torch.equal(as_bytes, kept_bytes)
    assert torch.equal(as_floats, kept_floats)


def test_pixels_are_normalised_per_channel():
    mean, std = torch.tensor(CLIP_MEAN).view(3, 1, 1), torch.tensor(CLIP_STD).view(3, 1, 1)
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(normalize_pixels(images), (images - mean) / std)


def test_no_pictures_give_empty_features_and_zero_gradients():
    tokenizer = build().train()
    features = tokenizer(pictures(0, 32))
    assert features.tokens.shape == (0, 3, 20)
    assert [level.shape for level in features.pyramid] == [(0, 24, size, size) for size in (32, 16, 8, 4)]
    (features.tokens.sum() + sum(level.sum() for level in features.pyramid)).backward()
    assert all(p.grad is not None and not p.grad.any() for p in tokenizer.parameters())


def test_pictures_do_not_see_each_other():
    tokenizer = stir(build())
    images = pictures(3, 32)
    together, alone = tokenizer(images), tokenizer(images[1:2])
    torch.testing.assert_close(together.tokens[1:2], alone.tokens)
    torch.testing.assert_close(together.pyramid[0][1:2], alone.pyramid[0])


@pytest.mark.parametrize("frozen", [True, False])
def test_everything_trains_except_a_frozen_trunk(frozen):
    config = replace(SMALL, trunk=replace(TRUNK, frozen=frozen, allow_frozen_random=frozen))
    tokenizer = stir(build(config)).train()
    features = tokenizer(pictures(2, 32))
    (features.tokens.square().sum() + sum(level.square().sum() for level in features.pyramid)).backward()
    without = {name for name, parameter in tokenizer.named_parameters() if parameter.grad is None}
    assert without == ({f"trunk.{name}" for name, _ in tokenizer.trunk.named_parameters()} if frozen else set())
    first = tokenizer.adapter.interactions[0].injector.gamma
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


def test_a_resampler_that_reads_nothing_makes_the_tokens_constant_but_not_the_pyramid():
    config = replace(SMALL, resampler=replace(RESAMPLER, read_input=False))
    blind, seeing = stir(build(config)), stir(build())
    first, second = blind(pictures(1, 32, seed=1)), blind(pictures(1, 32, seed=2))
    assert torch.equal(first.tokens, second.tokens)
    assert not torch.allclose(first.pyramid[0], second.pyramid[0])
    assert not torch.allclose(seeing(pictures(1, 32, seed=1)).tokens, seeing(pictures(1, 32, seed=2)).tokens)
    assert blind.token_head is None


def test_the_state_holds_parameters_only():
    tokenizer = build()
    assert set(tokenizer.state_dict()) == {name for name, _ in tokenizer.named_parameters()}


def test_bfloat16_runs_and_stays_close():
    tokenizer = stir(build())
    exact = tokenizer(pictures(2, 32))
    rough = tokenizer.bfloat16()(pictures(2, 32))
    assert rough.tokens.dtype == torch.bfloat16
    assert (rough.pyramid[2].float() - exact.pyramid[2]).std() < 0.05 * exact.pyramid[2].std()


def test_ring_spreads_the_points_of_a_head_and_zero_leaves_them_together():
    ring = DeformableAttention(24, 2, replace(ADAPTER, n_heads=4, n_points=3))
    offsets = ring.sampling_offsets.bias.view(4, 2, 3, 2)
    torch.testing.assert_close(offsets[0, 0], torch.tensor([[1.0, 0], [2, 0], [3, 0]]))
    torch.testing.assert_close(offsets[1, 1], torch.tensor([[0, 1.0], [0, 2], [0, 3]]), atol=1e-6, rtol=0)
    zero = DeformableAttention(24, 2, replace(ADAPTER, offset_init="zero"))
    assert not zero.sampling_offsets.bias.any()


def test_with_zero_offsets_the_points_of_a_head_get_the_same_gradient():
    for offset_init, same in (("zero", True), ("ring", False)):
        torch.manual_seed(0)
        attention = DeformableAttention(24, 1, replace(ADAPTER, offset_init=offset_init))
        grids = Grids.of([(4, 4)], torch.device("cpu"))
        attention(torch.randn(1, 16, 24), grids.centres, torch.randn(1, 16, 24), grids).square().sum().backward()
        per_point = attention.sampling_offsets.weight.grad.view(3, 1, 2, 2, 24)
        assert torch.allclose(per_point[:, :, 0], per_point[:, :, 1], atol=1e-6) == same


def test_initialisation_of_the_adapter_keeps_the_ring():
    adapter = ViTAdapter(24, ADAPTER)
    assert adapter.interactions[0].injector.attention.sampling_offsets.bias.any()
    assert not adapter.level_embedding.any()


@pytest.mark.parametrize("also_trunk", [False, True], ids=["adapter", "adapter and trunk"])
def test_activation_checkpointing_changes_no_feature_and_no_gradient(also_trunk):
    trunk = replace(SMALL.trunk, activation_checkpointing=also_trunk)
    frugal = replace(SMALL, trunk=trunk, adapter=replace(ADAPTER, activation_checkpointing=True))
    pixels, found = pictures(2, 32), []
    for config in (SMALL, frugal):
        tokenizer = build(config)
        entered = []
        tokenizer.adapter.interactions[1].extractor.register_forward_pre_hook(lambda *_, e=entered: e.append(1))
        features = tokenizer(pixels)
        sum(part.square().sum() for part in (features.tokens, *features.pyramid)).backward()
        gradients = [p.grad for p in tokenizer.parameters()]
        found.append((len(entered), features, gradients))
    (once, plain, wanted), (twice, frugal_features, gradients) = found
    assert (once, twice) == (1, 2)
    torch.testing.assert_close(frugal_features.pyramid, plain.pyramid)
    torch.testing.assert_close(gradients, wanted)


def zero_start(**adapter):
    return replace(SMALL, adapter=replace(ADAPTER, detail_init="zero", **adapter))


def test_with_zero_detail_the_convolution_branch_adds_nothing_at_first():
    adapter, pixels = build(zero_start()).adapter, normalize_pixels(pictures(2, 32))
    assert not any(part.any() for part in adapter.spatial_prior(pixels))
    assert not adapter.up(torch.randn(2, 24, 16, 16)).any()
    random = build().adapter
    assert all(part.any() for part in random.spatial_prior(pixels))
    assert random.up(torch.randn(2, 24, 16, 16)).any()


def test_with_zero_detail_the_finest_map_starts_as_resized_patches_of_the_first_stage():
    pixels = normalize_pixels(pictures(2, 32))
    for config, same in ((zero_start(), True), (SMALL, False)):
        tokenizer = build(config)
        trunk = tokenizer.trunk
        tokens = trunk.run_layers(trunk.embed(pixels), 0, len(trunk.layers) // 4)
        patches = tokens[:, 1:].mT.unflatten(2, (8, 8))
        resized = nn.functional.interpolate(patches, size=(32, 32), mode="bilinear", align_corners=False)
        assert torch.allclose(tokenizer.adapter(pixels, trunk).pyramid[0], resized, atol=1e-6) == same


def test_zero_detail_changes_neither_other_weights_nor_what_is_trained():
    zero, random = build(zero_start()).train(), build()
    start = dict(random.named_parameters())
    differing = {name for name, parameter in zero.named_parameters() if not torch.equal(parameter, start[name])}
    assert differing
    assert all(name.startswith(("adapter.spatial_prior.projections", "adapter.up")) for name in differing)
    sum(level.square().sum() for level in zero(pictures(2, 32)).pyramid).backward()
    assert all(dict(zero.named_parameters())[name].grad.any() for name in differing)


@pytest.mark.parametrize("trunk_frozen", [False, True])
def test_a_frozen_adapter_is_not_trained_but_lets_gradients_through(trunk_frozen):
    config = replace(
        zero_start(frozen=True), trunk=replace(TRUNK, frozen=trunk_frozen, allow_frozen_random=trunk_frozen)
    )
    tokenizer = stir(build(config)).train()
    assert not any(parameter.requires_grad for parameter in tokenizer.adapter.parameters())
    features = tokenizer(pictures(2, 32))
    (features.tokens.square().sum() + features.pyramid[0].square().sum()).backward()
    assert all(parameter.grad is None for parameter in tokenizer.adapter.parameters())
    assert any(parameter.grad is not None for parameter in tokenizer.trunk.parameters()) != trunk_frozen
    assert all(parameter.grad is not None for parameter in tokenizer.resampler.parameters())


@pytest.mark.parametrize("frozen", [False, True])
def test_the_table_of_parameters_says_whether_the_adapter_is_frozen(frozen):
    config = tiny_config()
    adapter = replace(config.vision.adapter, frozen=frozen)
    config = replace(config, vision=replace(config.vision, adapter=adapter))
    parts = {count.part: count for count in count_parameters(config)}
    found = parts["visual_tokenizer / adapter"]
    assert found.total > 0
    assert found.frozen == (found.total if frozen else 0)
    assert parts["visual_tokenizer / resampler"].frozen == 0


@pytest.mark.parametrize(
    ("adapter", "message"), [({"n_heads": 5}, "n_heads 5"), ({"value_ratio": 0.3}, "value_ratio 0.3")]
)
def test_widths_that_do_not_split_are_named(adapter, message):
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, adapter=replace(ADAPTER, **adapter))


def test_the_trunk_is_not_owned_twice():
    tokenizer = build()
    assert sum(isinstance(module, ClipTrunk) for module in tokenizer.modules()) == 1
    assert not any("trunk" in name for name, _ in tokenizer.adapter.named_parameters())
